"""Processor counters against a made-up kernel, not verified on hardware; processor time against the real one."""

from __future__ import annotations

import errno
import os
import time

import numpy as np
import pytest

from profilers.base import instruments
from profilers.cycle_counter import CycleCounter
from profilers.perf_events import EVENTS
from tests.support.made_up_kernel import HARDWARE_QUANTITIES, POOL, PYTHON, WORKER, MadeUpKernel


def moment(counter: CycleCounter, kernel: MadeUpKernel, *work: tuple[int, ...]) -> dict[str, float]:
    """One moment in which the threads do the given work."""
    counter.begin()
    for thread, *amounts in work:
        kernel.does(thread, *amounts)
    counter.end()
    return counter.columns()


def test_counts_are_summed_over_the_worker_and_the_pool_but_not_over_python_threads() -> None:
    kernel = MadeUpKernel(POOL)
    counter = CycleCounter(kernel)
    found = moment(counter, kernel, (WORKER, 1000, 3000, 6000, 10), (POOL, 900, 2700, 2700, 5), (PYTHON, 500, 1500, 1500))
    assert found == {"cpu_ns": 1900, "cycles": 5700, "instructions": 8700, "cache_misses": 15, "counted_share": 1.0}
    assert {thread for _, thread, _ in kernel.open.values()} == {WORKER, POOL}
    assert counter.facts() == {
        "events": ["cycles", "instructions", "cache-misses", "task-clock"],
        "threads": 2,
        "busy_threads": 2,
        "missing": {},
    }


def test_counts_are_scaled_where_the_hardware_took_turns() -> None:
    kernel = MadeUpKernel(POOL, share=0.25)
    found = moment(CycleCounter(kernel), kernel, (WORKER, 40_000, 120_000, 240_000), (POOL, 20_000, 60_000, 60_000))
    assert found["counted_share"] == pytest.approx(0.25)
    assert found["cycles"] == pytest.approx(180_000)
    assert found["instructions"] == pytest.approx(300_000)


def test_a_thread_that_was_never_counted_leaves_the_moment_unmeasured() -> None:
    kernel = MadeUpKernel(POOL)
    counter = CycleCounter(kernel)
    counter.begin()
    kernel.does(WORKER, 1000, 3000, 3000)
    kernel.work[POOL].counts["cpu_ns"] += 1000  # on a processor, and its counters were not
    counter.end()
    assert counter.columns() == {}
    counter.begin()
    kernel.does(WORKER, 100_000, 300_000, 300_000)
    kernel.work[POOL].counts["cpu_ns"] += 100  # too little to matter
    counter.end()
    assert counter.columns()["cycles"] == 300_000


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, "perf_event_paranoid is 4"),
        (errno.EPERM, "CAP_PERFMON"),
        (errno.ENOENT, "virtual machines"),
        (errno.EOPNOTSUPP, "virtual machines"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EINVAL, "Invalid argument"),
    ],
)
def test_without_hardware_counters_processor_time_is_left_and_the_reason_told(number: int, remedy: str) -> None:
    kernel = MadeUpKernel(POOL, refused=dict.fromkeys(HARDWARE_QUANTITIES, number))
    counter = CycleCounter(kernel)
    assert moment(counter, kernel, (WORKER, 1000), (POOL, 900)) == {"cpu_ns": 1900}
    facts = counter.facts()
    assert facts["events"] == ["task-clock"]
    assert set(facts["missing"]) == set(HARDWARE_QUANTITIES)
    assert all(remedy in why and why.endswith(".") for why in facts["missing"].values())


@pytest.mark.parametrize("refused", HARDWARE_QUANTITIES)
def test_the_events_that_open_count_although_one_does_not(refused: str) -> None:
    kernel = MadeUpKernel(refused={refused: errno.ENOENT})
    counter = CycleCounter(kernel)
    found = moment(counter, kernel, (WORKER, 1000, 3000, 6000, 10))
    assert set(found) == {"cpu_ns", "counted_share", *HARDWARE_QUANTITIES} - {refused}
    assert list(counter.facts()["missing"]) == [refused]


def test_an_event_for_which_the_processor_has_no_room_is_left_out() -> None:
    kernel = MadeUpKernel(room=2)
    counter = CycleCounter(kernel)
    assert counter.quantities == ("cycles", "instructions", "cpu_ns")
    assert "taken by someone else" in counter.facts()["missing"]["cache_misses"]
    assert not kernel.open, "the trial's counters are closed"


def test_a_counter_that_opens_and_counts_nothing_is_not_believed() -> None:
    kernel = MadeUpKernel()
    kernel.broken = {"cycles", "cache_misses"}  # no misses may well be true
    counter = CycleCounter(kernel)
    assert counter.quantities == ("instructions", "cache_misses", "cpu_ns")
    assert "counts nothing" in counter.facts()["missing"]["cycles"]


def test_where_nothing_opens_nothing_is_measured_and_nothing_fails() -> None:
    kernel = MadeUpKernel(POOL, refused=dict.fromkeys([event.quantity for event in EVENTS], errno.EACCES))
    counter = CycleCounter(kernel)
    assert moment(counter, kernel, (WORKER, 1000)) == {}
    assert counter.read() == []
    assert len(counter.facts()["missing"]) == len(EVENTS)


def test_another_system_says_so() -> None:
    class Elsewhere(MadeUpKernel):
        def trouble(self) -> str | None:
            return "Only Linux lets a program do it."

    kernel = Elsewhere(POOL)
    counter = CycleCounter(kernel)
    assert moment(counter, kernel, (WORKER, 1000)) == {}
    assert set(counter.facts()["missing"].values()) == {"Only Linux lets a program do it."}


def test_a_count_that_goes_backwards_is_not_measured_and_the_others_are() -> None:
    kernel = MadeUpKernel()
    counter = CycleCounter(kernel)
    assert "cycles" in moment(counter, kernel, (WORKER, 1000, 3000, 3000, 20))
    assert set(moment(counter, kernel, (WORKER, 1000, 3000, 3000, -20))) == {
        "cpu_ns",
        "cycles",
        "instructions",
        "counted_share",
    }
    assert moment(counter, kernel, (WORKER, -1000, 3000, 3000)) == {}


def test_more_than_eight_instructions_a_cycle_are_not_believed() -> None:
    kernel = MadeUpKernel()
    counter = CycleCounter(kernel)
    assert moment(counter, kernel, (WORKER, 1000, 1000, 8001)) == {"cpu_ns": 1000}
    assert moment(counter, kernel, (WORKER, 1000, 1000, 8000))["instructions"] == 8000


def test_a_moment_in_which_the_threads_changed_is_not_measured_and_the_next_is() -> None:
    kernel = MadeUpKernel()
    counter = CycleCounter(kernel)
    counter.begin()
    kernel.pool.add(POOL)  # torch's pool appears in the first forward
    kernel.does(POOL, 900, 2700, 2700)
    kernel.does(WORKER, 1000, 3000, 3000)
    counter.end()
    assert counter.columns() == {}
    assert moment(counter, kernel, (WORKER, 1000, 3000, 3000), (POOL, 900, 2700, 2700))["cycles"] == 5700
    kernel.pool.discard(POOL)
    assert moment(counter, kernel, (WORKER, 1000, 3000, 3000))["cycles"] == 3000
    assert {thread for _, thread, _ in kernel.open.values()} == {WORKER}


def test_a_thread_that_ends_while_its_counters_open_is_left_out() -> None:
    kernel = MadeUpKernel(POOL)
    kernel.gone = {POOL}
    counter = CycleCounter(kernel)
    counter.begin()
    assert {thread for _, thread, _ in kernel.open.values()} == {WORKER}
    kernel.pool.discard(POOL)  # by now it is not listed any more
    kernel.does(WORKER, 1000, 3000, 3000)
    counter.end()
    assert counter.columns()["cycles"] == 3000


def test_running_out_of_files_ends_the_counting_with_a_reason() -> None:
    kernel = MadeUpKernel(POOL)
    counter = CycleCounter(kernel)
    kernel.refused = {"cpu_ns": errno.EMFILE}
    assert moment(counter, kernel, (WORKER, 1000, 3000, 3000)) == {}
    assert moment(counter, kernel, (WORKER, 1000, 3000, 3000)) == {}
    assert "ulimit" in counter.facts()["missing"]["cycles"]
    assert not kernel.open


def test_a_reading_that_fails_never_raises_and_measures_nothing() -> None:
    kernel = MadeUpKernel(POOL)
    counter = CycleCounter(kernel)
    counter.begin()
    kernel.fails = {POOL}
    kernel.does(WORKER, 1000, 3000, 3000)
    assert counter.read() == []
    counter.end()
    assert counter.columns() == {}


def test_idle_threads_are_read_at_the_ends_only_until_they_compute() -> None:
    kernel = MadeUpKernel(POOL, 102)
    counter = CycleCounter(kernel)
    for _ in range(4):
        moment(counter, kernel, (WORKER, 1000, 3000, 3000), (POOL, 1000, 3000, 3000))
    assert counter.facts()["busy_threads"] == 2
    assert len(counter.read()) == 2
    found = moment(counter, kernel, (WORKER, 1000, 3000, 3000), (POOL, 1000, 3000, 3000), (102, 500, 1500, 1500))
    assert found["cycles"] == 7500
    assert len(counter.read()) == 3
    for _ in range(4):
        moment(counter, kernel, (POOL, 1000, 3000, 3000), (102, 1000, 3000, 3000))
    assert len(counter.read()) == 3, "the worker is always read"


def test_readings_within_a_moment_are_differences_of_what_was_counted() -> None:
    kernel = MadeUpKernel(POOL)
    counter = CycleCounter(kernel)
    counter.begin()
    raws = [counter.read()]
    for step in (1, 2, 3):
        kernel.does(WORKER, 1000 * step, 3000 * step, 6000 * step, step)
        kernel.does(POOL, 1000, 1000, 1000)
        raws.append(counter.read())
    found = counter.between(raws[:-1], raws[1:])
    assert found["cycles"].tolist() == [4000, 7000, 10000]
    assert found["cpu_ns"].tolist() == [2000, 3000, 4000]
    totals = counter.decode(raws)
    assert np.diff(totals["cycles"]).tolist() == [4000, 7000, 10000]
    assert counter.between(raws[:2], [raws[1], []])["cycles"].tolist() == [4000, -1]
    assert np.isnan(counter.decode([raws[0], [], raws[2]])["cycles"]).tolist() == [False, True, False]


def test_every_descriptor_is_closed() -> None:
    kernel = MadeUpKernel(POOL)
    counter = CycleCounter(kernel)
    moment(counter, kernel, (WORKER, 1000, 3000, 3000))
    assert len(kernel.open) == 2 * len(EVENTS)
    counter.close()
    counter.close()
    assert not kernel.open
    assert counter.read() == []
    assert counter.facts()["threads"] == 2, "what was counted can still be told"


def test_the_real_kernel_gives_back_every_descriptor_and_counts_processor_time_or_says_why() -> None:
    before = len(os.listdir("/proc/self/fd"))
    counter = CycleCounter()
    counter.begin()
    started = time.thread_time_ns()
    sum(range(300_000))
    spent = time.thread_time_ns() - started
    counter.end()
    found = counter.columns()
    counter.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert set(counter.quantities) | set(counter.facts()["missing"]) == {event.quantity for event in EVENTS}
    assert set(found) - {"counted_share"} <= set(counter.quantities)
    assert found.get("cpu_ns", spent) >= spent


def test_the_instrument_is_there_by_default_and_is_not_sampled() -> None:
    instrument = instruments()["cycles"]
    assert instrument.by_default
    assert instrument.period_s is None
    counter = CycleCounter()
    assert (instrument.check() is None) == bool(counter.quantities)
