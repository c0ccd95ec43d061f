"""The layer clock and the tripwire leave no trace, lose no time, and cope with any module tree."""

from __future__ import annotations

import inspect
import time

import numpy as np
import pytest
import torch

from core.errors import Cancelled
from profilers.cancel_patch import CancelPatch
from profilers.cycle_counter import CycleCounter, Raw
from profilers.layer_clock import LayerClock, parents_of
from profilers.trace import NOT_MEASURED, Recorder
from tests.support.made_up_kernel import WORKER, MadeUpKernel
from tests.support.tiny import tiny_llama


class Shared(torch.nn.Module):
    """Calls one module twice, one of them nested, and never calls another."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = torch.nn.Linear(4, 4)
        self.inner = torch.nn.Sequential(torch.nn.ReLU(), self.twice)
        self.idle = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(self.twice(x))


def timed_moment(model: torch.nn.Module, *inputs: torch.Tensor) -> tuple[Recorder, list[str]]:
    recorder, clock = Recorder(), LayerClock(model)
    clock.install()
    start = time.perf_counter_ns()
    model(*inputs)
    duration = time.perf_counter_ns() - start
    clock.remove()
    clock.collect(recorder, 0, start, duration)
    return recorder, [path for path, _ in model.named_modules()]


def test_a_shared_module_has_a_span_for_each_call_and_an_uncalled_one_none() -> None:
    recorder, paths = timed_moment(Shared(), torch.zeros(1, 4))
    called = [paths[row] for row in recorder.spans.view()["layer"]]
    assert sorted(called) == ["", "inner", "inner.0", "twice", "twice"]


def test_self_times_add_up_to_the_moment_and_are_never_negative() -> None:
    recorder, _ = timed_moment(tiny_llama(), torch.arange(8)[None])
    spans = recorder.spans.view()
    assert spans["self_ns"].sum() == spans["duration_ns"][spans["layer"] == 0][0]
    assert (spans["self_ns"] >= 0).all()


def test_consecutive_traced_moments_do_not_see_each_others_spans() -> None:
    model, recorder = tiny_llama(1), Recorder()
    clock = LayerClock(model)
    clock.install()
    for moment in range(3):
        start = time.perf_counter_ns()
        model(torch.arange(4)[None])
        clock.collect(recorder, moment, start, time.perf_counter_ns() - start)
    clock.remove()
    counts = np.bincount(recorder.spans.view()["moment"])
    assert len(set(counts.tolist())) == 1


class SlowCounter(CycleCounter):
    """Counts 10 cycles a reading on a made-up kernel, and takes a millisecond for it."""

    def __init__(self) -> None:
        self.kernel = MadeUpKernel()
        self.readings = 0
        super().__init__(self.kernel)

    def read(self) -> Raw:
        self.readings += 1
        began = time.perf_counter_ns()
        while time.perf_counter_ns() - began < 1_000_000:
            pass
        self.kernel.does(WORKER, 5, 10, 20, 1)
        return super().read()


def test_counted_rows_have_counts_and_no_other() -> None:
    model, counter = Shared(), SlowCounter()
    paths = [path for path, _ in model.named_modules()]
    counted = [0, paths.index("twice"), paths.index("idle")]  # the model itself is the engine's, "idle" is never called
    recorder, clock = Recorder(), LayerClock(model, counter, counted)
    for moment in range(2):
        counter.begin()
        clock.install()
        start = time.perf_counter_ns()
        model(torch.zeros(1, 4))
        clock.remove()
        clock.collect(recorder, moment, start, time.perf_counter_ns() - start)
    counter.close()
    spans = recorder.spans.view()
    mine = spans["layer"] == paths.index("twice")
    assert mine.sum() == 4
    assert spans["cycles"][mine].tolist() == [10] * 4
    assert spans["instructions"][mine].tolist() == [20] * 4
    assert spans["cpu_ns"][mine].tolist() == [5] * 4
    assert (spans["cycles"][~mine] == NOT_MEASURED).all()


def test_the_time_of_reading_counters_is_no_layers_own() -> None:
    model, counter = Shared(), SlowCounter()
    paths = [path for path, _ in model.named_modules()]
    recorder, clock = Recorder(), LayerClock(model, counter, [paths.index("twice")])
    counter.begin()
    counter.readings = 0
    clock.install()
    start = time.perf_counter_ns()
    model(torch.zeros(1, 4))
    duration = time.perf_counter_ns() - start
    clock.remove()
    clock.collect(recorder, 0, start, duration)
    counter.close()
    spans = recorder.spans.view()
    # two calls, read at both ends; the first's end serves as the second's beginning where less than NEAR_NS lies between
    assert counter.readings in (3, 4)
    assert duration - spans["self_ns"].sum() >= counter.readings * 1_000_000  # a millisecond each
    assert (spans["self_ns"] >= 0).all()


def test_without_a_counter_no_row_is_counted() -> None:
    model = Shared()
    recorder, clock = Recorder(), LayerClock(model, None, [1, 2])
    clock.install()
    model(torch.zeros(1, 4))
    clock.collect(recorder, 0, 0, time.perf_counter_ns())
    clock.remove()
    assert (recorder.spans.view()["cycles"] == NOT_MEASURED).all()


@pytest.mark.parametrize(
    ("starts", "parents"),
    [
        ([0], [0]),
        ([1, 3, 0], [2, 2, 2]),  # two children of one caller
        ([2, 1, 4, 0], [1, 3, 3, 3]),  # a grandchild, its caller, another child
        ([3, 2, 1, 0], [1, 2, 3, 3]),  # a chain of any depth
    ],
)
def test_parents_come_from_containment(starts: list[int], parents: list[int]) -> None:
    assert parents_of(starts).tolist() == parents


def test_parents_of_a_tree_deeper_than_the_recursion_limit() -> None:
    depth = 5000
    assert parents_of(list(range(depth - 1, -1, -1))).tolist() == [*range(1, depth), depth - 1]


def test_after_removal_the_model_is_what_it_was() -> None:
    model = tiny_llama(1)
    attention = model.model.layers[0].self_attn
    own = attention.forward
    attention.forward = own  # an instance's own forward, as accelerate's hooks leave it
    before = {path: dict(module.__dict__) for path, module in model.named_modules()}
    clock = LayerClock(model)
    clock.install()
    assert attention.__dict__ != before["model.layers.0.self_attn"]
    assert inspect.signature(attention.forward) == inspect.signature(own)
    clock.remove()
    for path, module in model.named_modules():
        assert module.__dict__.keys() == before[path].keys()
    assert attention.forward is own


def test_the_tripwire_stops_a_forward_and_is_gone_afterwards() -> None:
    model = tiny_llama(1)
    wire = CancelPatch(model, Cancelled)
    expected = model(torch.arange(4)[None]).logits
    wire.pull()
    with pytest.raises(Cancelled):
        model(torch.arange(4)[None])
    wire.clear()
    wire.pull()  # too late: the run is over
    assert torch.equal(model(torch.arange(4)[None]).logits, expected)


def test_a_disarmed_tripwire_leaves_the_layers_alone() -> None:
    model = tiny_llama(1)
    wire = CancelPatch(model, Cancelled)
    wire.armed = False
    wire.pull()
    assert model(torch.arange(4)[None]).logits.isfinite().all()
