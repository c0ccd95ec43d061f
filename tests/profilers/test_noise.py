"""Noise: a process in the way is seen in the columns, named, and marks the moment; a quiet moment is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from profilers import competitors, noise
from profilers.competitors import Competition, busy_now, of_a_core
from profilers.noise import Clock, Noise, NoiseProbe, perturbed
from profilers.processors import Processors, Usage, usable_processors
from profilers.trace import MOMENT_COLUMNS, Recorder

MS = 1_000_000
SPIN = "print(flush=True)\nwhile True: pass"


@pytest.fixture
def spinning() -> Iterator[list[subprocess.Popen[bytes]]]:
    """One real process per processor that does nothing but compute."""
    found = [subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE) for _ in range(usable_processors())]
    for one in found:
        assert one.stdout is not None
        one.stdout.readline()
    yield found
    for one in found:
        one.kill()
        one.communicate()


def compute(milliseconds: float) -> int:
    """A moment's work; how long it took, ns."""
    start = time.perf_counter_ns()
    while time.process_time_ns() and time.perf_counter_ns() - start < milliseconds * MS:
        pass
    return time.perf_counter_ns() - start


def moments(probe: NoiseProbe, count: int, milliseconds: float) -> list[tuple[dict[str, float], int]]:
    found = []
    for _ in range(count):
        probe.begin()
        duration_ns = compute(milliseconds)
        probe.end()
        found.append((probe.columns(), duration_ns))
    return found


def test_a_competing_process_is_in_the_columns_and_marks_the_moments(spinning: list[subprocess.Popen[bytes]]) -> None:
    probe = Noise().open_probe()
    seen = moments(probe, 30, 20)
    facts = probe.facts()
    probe.close()
    columns, duration_ns = seen[-1]
    assert columns.keys() <= MOMENT_COLUMNS.keys()
    assert columns["others_ns"] > 0.1 * duration_ns
    assert "other processes took" in str(perturbed(columns, duration_ns))
    assert facts["others_share"] > 0.05
    assert "others_ns" not in seen[0][0]  # there was no window yet to tell it from


def test_the_process_in_the_way_is_named_before_a_run(spinning: list[subprocess.Popen[bytes]]) -> None:
    said = busy_now(0.3)
    assert said is not None
    assert said.startswith("The machine is busy: ")
    assert " take" in said  # on a shared machine it may be somebody else who is busiest, and several of one name


def test_competitors_are_named_by_the_sampled_reading(
    spinning: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(competitors, "MOST_NAMED", 100)
    recorder = Recorder()
    reading = Noise().open(recorder)
    for _ in range(3):
        threading.Event().wait(0.4)
        reading.sample()
    name = psutil.Process(spinning[0].pid).name()
    assert any(said.startswith(f"{name} (") for said in reading.facts()["competitors"])
    reading.close()
    trace = recorder.snapshot()
    assert [(track.name, track.unit) for track in trace.tracks] == [("others", "percent")]
    assert trace.counters["value"].max() > 10


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({}, None),
        ({"switches": -1, "steal_ns": -1, "others_ns": -1, "stalled_ns": -1}, None),
        ({"switches": 4, "steal_ns": 0, "others_ns": MS, "stalled_ns": 2 * MS}, None),
        ({"others_ns": 12 * MS}, "other processes took 60 % of a core"),
        ({"others_ns": 30 * MS}, "other processes took 1.5 cores"),
        ({"steal_ns": 2 * MS}, "the hypervisor took 10 % of a core away"),
        ({"stalled_ns": 5 * MS}, "something waited for a processor 25 % of the time"),
        ({"switches": 14}, "the system took a processor away 14 times"),
    ],
)
def test_what_makes_a_moment_perturbed(columns: dict[str, float], why: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "usable_processors", lambda: 2)
    assert perturbed(columns, 20 * MS) == why


def test_a_busy_core_in_a_large_machine_is_no_hindrance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "usable_processors", lambda: 64)
    assert perturbed({"others_ns": 20 * MS}, 20 * MS) is None
    assert perturbed({"others_ns": 80 * MS}, 20 * MS) == "other processes took 4.0 cores"


def test_a_clock_that_falls_is_told_once_it_is_known() -> None:
    clock = Clock()
    assert [clock.fallen(3e9 + step) for step in range(8)] == [None] * 8
    assert clock.fallen(2.8e9) is None
    assert clock.fallen(2.1e9) == "the processor's clock fell from 3.0 to 2.1 GHz"


def test_the_clock_comes_from_cycles_where_they_are_counted() -> None:
    probe = NoiseProbe()
    for _ in range(10):
        assert probe.perturbed({"cycles": 60 * MS, "cpu_ns": 20 * MS}, 10 * MS) is None
    assert probe.perturbed({"cycles": 10 * MS, "cpu_ns": 10 * MS}, 80 * MS) is None  # the first of that length
    assert probe.perturbed({"cycles": 40 * MS, "cpu_ns": 20 * MS}, 10 * MS) == "the processor's clock fell from 3.0 to 2.0 GHz"
    probe.close()


def test_without_counters_the_sampled_clock_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    mhz = [3000.0]
    monkeypatch.setattr(noise, "WINDOW_NS", 0)
    monkeypatch.setattr(
        psutil, "cpu_freq", lambda percpu=False: [SimpleNamespace(current=800.0), SimpleNamespace(current=mhz[0])]
    )
    instrument = Noise()
    reading, probe = instrument.open(Recorder()), instrument.open_probe()
    for _ in range(10):
        reading.sample()
    mhz[0] = 1500.0
    reading.sample()
    assert probe.perturbed({}, MS) is None  # once may be a core caught idle
    reading.sample()
    assert probe.perturbed({}, MS) == "the processor's clock fell from 3.0 to 1.5 GHz"
    reading.close()
    assert probe.perturbed({}, MS) is None
    probe.close()


def test_accounts_of_the_processors_we_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "stat"
    stat.write_bytes(b"cpu  10 0 5 500 20 0 1 7 0 0\ncpu0 4 0 2 200 10 0 0 3 0 0\ncpu1 6 0 3 300 10 0 1 4 0 0\nintr 5\n")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1}, raising=False)
    monkeypatch.setattr(os, "sysconf", lambda _name: 100, raising=False)
    whole = Processors(stat)
    usage = whole.read()
    assert (usage.idle_ns, usage.stolen_ns) == (5200 * MS, 70 * MS)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {1}, raising=False)
    pinned = Processors(stat)
    usage = pinned.read()
    assert (usage.idle_ns, usage.stolen_ns) == (3100 * MS, 40 * MS)
    whole.close()
    pinned.close()


def test_others_are_what_is_neither_idle_nor_stolen_nor_ours() -> None:
    processors = Processors()
    processors.count = 2
    before = Usage(0, 0, 0, 0)
    taken = processors.taken(before, Usage(1000 * MS, 600 * MS, 100 * MS, 900 * MS))
    assert (taken.others_ns, taken.stolen_ns) == (400 * MS, 100 * MS)
    assert processors.taken(before, Usage(1000 * MS, 1100 * MS, 0, 950 * MS)).others_ns == 0  # rounding, never negative
    assert processors.taken(before, Usage(1000 * MS, 0, None, 0)).stolen_ns is None
    processors.close()


def test_off_linux_psutil_tells_and_the_rest_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(noise, "PRESSURE", Path("/nowhere/pressure"))
    monkeypatch.setattr(noise, "WINDOW_NS", 10 * MS)
    probe = NoiseProbe()
    columns, _ = moments(probe, 1, 60)[0]
    assert columns.keys() == {"switches", "others_ns"}
    facts = probe.facts()
    assert facts["source"] == "psutil"
    assert facts["steal_share"] is None
    assert facts["missing"].keys() == {"steal", "pressure"}
    assert all(why.endswith(".") for why in facts["missing"].values())
    probe.close()


def test_competition_adds_up_by_name_and_leaves_out_the_idle() -> None:
    competition = Competition()
    before = {1: ("cc1plus", 5.0), 2: ("cc1plus", 1.0), 3: ("idle", 9.0), 4: ("brief", 1.0)}
    competition.add(
        before, {1: ("cc1plus", 5.6), 2: ("cc1plus", 1.4), 3: ("idle", 9.0), 5: ("rustc", 0.3), 4: ("brief", 1.01)}, 1.0
    )
    assert [(name, round(share, 2)) for name, share in competition.shares()] == [("cc1plus", 1.0), ("rustc", 0.3)]
    assert competition.pids["cc1plus"] == {1, 2}
    assert Competition().shares() == []
    assert (of_a_core(0.614), of_a_core(1.8)) == ("61 % of a core", "1.8 cores")


def test_a_calm_machine_may_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    calm = SimpleNamespace(others_ns=100, elapsed_ns=1000)
    monkeypatch.setattr(Processors, "taken", lambda *_: calm)
    assert busy_now(0.01) is None
    calm.others_ns = 400
    monkeypatch.setattr(competitors, "scan", dict)
    said = busy_now(0.01)
    assert said == "The machine is busy: other processes take 40 % of a core. Wait for them to end, then measure."


def test_several_of_one_name_take_no_more_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """On two cores "python (7 processes) takes 2.3 cores" stood there: what they took during the scan was in it."""
    busy = SimpleNamespace(others_ns=1900, elapsed_ns=1000)
    scans = [{1: ("python", 0.0), 2: ("python", 0.0)}, {1: ("python", 9.0), 2: ("python", 9.0)}]
    monkeypatch.setattr(Processors, "taken", lambda *_: busy)
    monkeypatch.setattr(competitors, "usable_processors", lambda: 2)
    monkeypatch.setattr(competitors, "scan", lambda: scans.pop(0))
    assert busy_now(0.01) == (
        "The machine is busy: python (2 processes) take 2.0 cores. Wait for them to end, or end them, then measure."
    )
