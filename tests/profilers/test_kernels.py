"""The operator profiler names each operator's layer, loses nothing, leaves nothing behind, and the table adds up."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from core.analysis.operators import layer_allocations, layer_work, operator_columns, operator_rows, slowdown
from core.records.run import Run
from profilers import kineto
from profilers.attribution import LAYER, MARK, aligned, columns_of
from profilers.kernels import INSTRUMENT, KernelProfiler
from profilers.layer_clock import LayerClock
from profilers.trace import PLACES, Array, Layer, Recorder, Tag, Trace
from tests.support.kineto_events import STREAM, FakeEvent
from tests.support.synthetic import synthetic_run
from tests.support.synthetic_operators import imported_run, with_operators
from tests.support.tiny import tiny_llama


class Seen:
    """One profiled moment of a model."""

    def __init__(self, model: torch.nn.Module, *inputs: torch.Tensor, labels: bool = True) -> None:
        self.recorder, self.profiler = Recorder(), KernelProfiler(model, labels=labels)
        self.paths = [path for path, _ in model.named_modules()]
        self.profiler.start()
        self.start_ns = time.perf_counter_ns()
        with torch.no_grad():
            model(*inputs)
        self.duration_ns = time.perf_counter_ns() - self.start_ns
        torch.ones(3) + 1  # after the moment, in which the profiler still runs
        self.profiler.stop()
        self.problem = self.profiler.collect(self.recorder, 5, self.start_ns, self.duration_ns)
        trace = self.recorder.snapshot()
        self.trace: Trace = trace
        self.columns: Any = trace.operators
        self.names = [trace.names[code] for code in self.columns["name"]]
        self.layers = [self.paths[row] for row in self.columns["layer"]]

    def of(self, path: str) -> set[str]:
        return {name for name, layer in zip(self.names, self.layers, strict=True) if layer == path}

    def row(self, path: str, name: str) -> dict[str, Any]:
        (index,) = [i for i, pair in enumerate(zip(self.layers, self.names, strict=True)) if pair == (path, name)]
        return {key: column[index] for key, column in self.columns.items()}


@pytest.fixture(scope="module")
def seen() -> Seen:
    return Seen(tiny_llama(), torch.arange(8)[None])


# -- attribution -----------------------------------------------------------------------------------------------------------


def test_every_operator_is_in_the_layer_that_called_it(seen: Seen) -> None:
    linears = [path for path in seen.paths if path.endswith(("_proj", "lm_head"))]
    for path in linears:
        assert {"aten::linear", "aten::mm"} <= seen.of(path), path
    assert {layer for layer, name in zip(seen.layers, seen.names, strict=True) if name == "aten::linear"} == set(linears)
    assert "aten::embedding" in seen.of("model.embed_tokens")
    assert "aten::rsqrt" in seen.of("model.layers.2.post_attention_layernorm")
    assert "aten::cos" in seen.of("model.rotary_emb")
    assert "aten::scaled_dot_product_attention" in seen.of("model.layers.1.self_attn")
    assert "aten::silu" in seen.of("model.layers.0.mlp.act_fn")
    assert "aten::add" in seen.of("model.layers.0"), "the residual is the block's own"


def test_operators_are_of_the_moment_and_of_no_other(seen: Seen) -> None:
    assert seen.problem is None
    assert set(seen.columns["moment"]) == {5}
    assert "aten::ones" not in seen.names, "ran after the moment, although the profiler still ran"
    assert not any(name.startswith("tickscope") or name == "[memory]" for name in seen.names)
    start = seen.columns["start_ns"] + seen.recorder.origin_ns
    assert (start >= seen.start_ns).all()
    assert (start + seen.columns["duration_ns"] <= seen.start_ns + seen.duration_ns).all()
    assert set(seen.columns["lane"]) == {threading.get_native_id()}


def test_own_times_add_up_to_no_more_than_the_moment(seen: Seen) -> None:
    own, whole = seen.columns["self_ns"], seen.columns["duration_ns"]
    assert (own >= 0).all()
    assert (own <= whole).all()
    assert 0 < own.sum() <= seen.duration_ns
    outer = seen.row("lm_head", "aten::linear")
    inside = np.array(seen.layers) == "lm_head"
    assert own[inside].sum() == outer["duration_ns"], "what a linear calls and its own time are all of its time"


def test_the_layer_clock_agrees_about_the_order_of_layers(seen: Seen) -> None:
    model, recorder = tiny_llama(), Recorder()
    clock = LayerClock(model)
    clock.install()
    with torch.no_grad():
        model(torch.arange(8)[None])
    clock.remove()
    clock.collect(recorder, 0, time.perf_counter_ns(), 1)
    rows = recorder.spans.view()["layer"]
    linears = [seen.paths[row] for row in rows if seen.paths[row].endswith(("_proj", "lm_head"))]
    seen_order = [layer for layer, name in zip(seen.layers, seen.names, strict=True) if name == "aten::linear"]
    assert seen_order == linears


def test_without_labels_all_belongs_to_the_model_itself() -> None:
    seen = Seen(tiny_llama(1), torch.arange(4)[None], labels=False)
    assert set(seen.layers) == {""}
    assert "belong to no layer" in seen.profiler.facts()["layers"]


def test_a_shared_layer_owns_what_it_did_in_each_call() -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = torch.nn.Linear(4, 4)
            self.inner = torch.nn.Sequential(torch.nn.ReLU(), self.one)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(self.one(x)) + 1

    seen = Seen(Twice(), torch.zeros(1, 4))
    pairs = list(zip(seen.layers, seen.names, strict=True))
    assert pairs.count(("one", "aten::linear")) == 2
    assert ("", "aten::add") in pairs


# -- what is counted -------------------------------------------------------------------------------------------------------


def test_operations_and_memory_of_a_known_linear_layer() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(48, 80))
    seen = Seen(model, torch.zeros(6, 48))
    product = seen.row("0", "aten::addmm")
    assert product["flops"] == 2 * 6 * 48 * 80
    assert product["allocated_bytes"] == 6 * 80 * 4
    assert seen.trace.names[product["shapes"]] == "[[80], [6, 48], [48, 80], [], []]"
    outer = seen.row("0", "aten::linear")
    assert outer["flops"] == product["flops"], "with all it calls"
    assert outer["allocated_bytes"] == 0, "took nothing by itself"
    assert (seen.columns["bytes"] == -1).all(), "nobody counted what a processor's operator reads"


def test_attention_is_counted_although_torch_does_not(seen: Seen) -> None:
    row = seen.row("model.layers.0.self_attn", "aten::_scaled_dot_product_flash_attention_for_cpu")
    assert row["flops"] == 2 * 2 * 4 * 8 * 8 * 16  # two products, 4 heads, 8 positions by 8, 16 wide


@pytest.mark.parametrize(
    ("name", "shapes", "flops"),
    [
        ("aten::_int_mm", [[3, 5], [5, 7]], 2 * 3 * 5 * 7),
        ("aten::_weight_int8pack_mm", [[3, 5], [7, 5], [7]], 2 * 3 * 5 * 7),
        ("aten::_weight_int4pack_mm_for_cpu", [[3, 64], [7, 32], [], [2, 7, 2]], 2 * 3 * 64 * 7),
        ("mkldnn::_linear_pointwise", [[1, 3, 5], [7, 5], []], 2 * 3 * 5 * 7),
        ("mkl::_mkl_linear", [[3, 5], [], [7, 5], []], 2 * 3 * 5 * 7),
        ("mkldnn::_linear_pointwise", [[3, 5], []], 0),
        ("aten::_scaled_dot_product_flash_attention", [[1, 2, 3]], 0),
    ],
)
def test_products_that_torch_does_not_count(name: str, shapes: list[list[int]], flops: int) -> None:
    assert kineto.flops_by_shapes(name, shapes) == flops


# -- leaves nothing behind -------------------------------------------------------------------------------------------------


class Bad(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("no")


def test_a_layer_that_raises_leaves_nothing_behind_and_the_next_moment_is_whole() -> None:
    model = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(4, 4), Bad()))
    before = [dict(module.__dict__) for module in model.modules()]
    profiler = KernelProfiler(model)
    profiler.start()
    assert "forward" in model[0][0].__dict__
    with pytest.raises(ValueError, match="no"):
        model(torch.zeros(1, 4))
    profiler.stop()
    profiler.stop()
    assert [dict(module.__dict__) for module in model.modules()] == before
    model[0][1] = torch.nn.ReLU()
    seen = Seen(model, torch.zeros(1, 4))
    assert seen.of("0.0") >= {"aten::linear", "aten::addmm"}
    assert "aten::relu" in seen.of("0.1")


def test_a_forward_of_ones_own_is_given_back() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    own = model[0].forward
    model[0].__dict__["forward"] = own
    Seen(model, torch.zeros(1, 4))
    assert model[0].__dict__["forward"] is own


def test_a_later_moment_is_free_of_the_profiler() -> None:
    model = tiny_llama(1)
    Seen(model, torch.arange(4)[None])
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert not torch.autograd._profiler_enabled()


def test_moments_follow_each_other_and_facts_tell_of_all() -> None:
    model, recorder = tiny_llama(1), Recorder()
    profiler = KernelProfiler(model)
    for moment in range(2):
        profiler.install()
        start = time.perf_counter_ns()
        model(torch.arange(4)[None])
        duration = time.perf_counter_ns() - start
        profiler.remove()
        assert profiler.collect(recorder, moment, start, duration) is None
    first, second = (np.flatnonzero(recorder.operators.view()["moment"] == moment) for moment in range(2))
    assert len(first) == len(second) > 50
    facts = profiler.facts()
    assert facts["moments"] == 2
    assert facts["operators"] == len(first) + len(second)
    assert facts["aligned_within_ns"] > 0
    assert "device" not in facts


def test_it_is_an_instrument_that_nobody_gets_unasked() -> None:
    assert (INSTRUMENT.id, INSTRUMENT.by_default, INSTRUMENT.period_s, INSTRUMENT.check()) == ("kernels", False, None, None)


# -- a device's events (made up: not verified on hardware) ------------------------------------------------------------------


def launches() -> list[FakeEvent]:
    """Two layers that launch a kernel each, one known by its operator and one by its driver call; a copy; and strays."""
    return [
        FakeEvent("aten::before", 10, 5, correlation=90),
        FakeEvent(LAYER + "1", 100, 400, correlation=1),
        FakeEvent("aten::mm", 110, 100, correlation=2, operations=64, sizes=[[2, 4], [4, 4]]),
        FakeEvent("[memory]", 112, 0, "cpu_instant_event", size=512),
        FakeEvent("cudaLaunchKernel", 120, 30, "cuda_runtime", correlation=501, linked=2),
        FakeEvent("sgemm", 900, 70, "kernel", lane=STREAM, correlation=501, linked=2),
        FakeEvent(LAYER + "2", 300, 150, correlation=3),
        FakeEvent("cudaLaunchKernel", 310, 20, "cuda_runtime", correlation=502),
        FakeEvent("softmax_kernel", 980, 10, "kernel", lane=STREAM, correlation=502),
        FakeEvent("Memcpy DtoD", 1000, 8, "gpu_memcpy", lane=STREAM, correlation=503, linked=3, size=4096),
        FakeEvent("of_the_moment_before", 105, 8, "kernel", lane=STREAM, correlation=77, linked=90),
        FakeEvent("nobodys", 450, 9, "kernel", lane=STREAM),
        FakeEvent("cudaStreamSynchronize", 455, 9, "overhead"),
        FakeEvent("hidden", 460, 5, hidden=True),
    ]


def test_a_kernel_belongs_to_the_layer_whose_operator_launched_it() -> None:
    recorder = Recorder()
    recorder.origin_ns = 50
    columns = columns_of(kineto.read(launches()), recorder, 100, 500)
    recorder.operators.extend(columns)
    trace = recorder.snapshot()
    found = {
        trace.names[row["name"]]: row
        for row in ({key: column[i] for key, column in columns.items()} for i in range(len(columns["name"])))
    }
    assert set(found) == {"aten::mm", "cudaLaunchKernel", "sgemm", "softmax_kernel", "Memcpy DtoD", "nobodys"}
    kernel = found["sgemm"]
    assert (kernel["layer"], PLACES[kernel["place"]], kernel["lane"], kernel["correlation"]) == (1, "kernel", STREAM, 501)
    assert (kernel["start_ns"], kernel["duration_ns"]) == (850, 70), "after the moment's end on the processor, and not cut"
    assert found["softmax_kernel"]["layer"] == 2, "by its driver call, which was made inside that layer"
    copy = found["Memcpy DtoD"]
    assert (copy["layer"], PLACES[copy["place"]], copy["bytes"]) == (2, "copy", 4096)
    assert found["nobodys"]["layer"] == -1
    operator = found["aten::mm"]
    assert (operator["self_ns"], operator["flops"], operator["allocated_bytes"]) == (70, 64, 512)
    assert (kernel["flops"], kernel["allocated_bytes"], operator["correlation"]) == (-1, -1, -1)


def test_other_threads_work_for_the_layer_under_way() -> None:
    events = [
        FakeEvent(LAYER + "1", 100, 100),
        FakeEvent("aten::mm", 110, 80),
        FakeEvent("aten::part", 105, 85, lane=9),
        FakeEvent(LAYER + "2", 200, 50),
        FakeEvent("aten::part", 210, 100, lane=9),
    ]
    columns = columns_of(kineto.read(events), Recorder(), 0, 1000)
    assert columns["layer"].tolist() == [1, 1, 2]
    assert columns["self_ns"].tolist() == [80, 85, 100]


def test_an_operator_that_outlasts_its_caller_is_cut_to_it() -> None:
    events = [FakeEvent("a", 0, 100), FakeEvent("b", 60, 50), FakeEvent("c", 70, 100), FakeEvent("d", 100, 10)]
    columns = columns_of(kineto.read(events), Recorder(), 0, 1000)
    assert columns["duration_ns"].tolist() == [100, 40, 30, 10]
    assert columns["self_ns"].tolist() == [60, 10, 30, 10]


def test_memory_given_back_is_no_allocation_and_a_moment_may_be_empty() -> None:
    events = [FakeEvent("a", 0, 10), FakeEvent("[memory]", 5, 0, "cpu_instant_event", size=-64)]
    assert columns_of(kineto.read(events), Recorder(), 0, 100)["allocated_bytes"].tolist() == [0]
    assert len(columns_of(kineto.read([]), Recorder(), 0, 100)["name"]) == 0


def test_clocks_are_joined_by_the_tightest_marks_and_drift_is_spread() -> None:
    unix = 1_795_000_000_000_000_000
    starts = [unix, unix + 100, unix + 10_000, unix + 10_100]
    marks = [(0, 900), (190, 200), (10_300, 10_310), (10_000, 11_000)]
    events = [FakeEvent(MARK, start, 1) for start in starts] + [FakeEvent("a", unix + 5_050, 10)]
    moved, within = aligned(kineto.read(events), marks)
    assert moved.start_ns[[1, 2]].tolist() == [195, 10_305]
    assert abs(int(moved.start_ns[-1]) - 5_250) <= 2
    assert within == 6


def test_activities_are_told_apart() -> None:
    named = {
        ("cpu_op", "aten::mm"): kineto.CPU,
        ("cuda_driver", "cuLaunchKernel"): kineto.RUNTIME,
        ("xpu_runtime", "x"): kineto.RUNTIME,
        ("gpu_memset", "Memset"): kineto.COPY,
        ("python_function", "f"): kineto.PYTHON,
        ("cpu_instant_event", "[memory]"): kineto.MEMORY,
        ("cpu_instant_event", "[OutOfMemory]"): None,
        ("gpu_user_annotation", "step"): None,
        ("cuda_sync", "Event Sync"): None,
    }
    assert {key: kineto.place_of(*key) for key in named} == named


def test_a_real_moment_of_many_operators_is_read_in_one_pass_each() -> None:
    """Ten thousand events; what is asked of each is counted instead of timed."""
    asked = 0

    class Counting(FakeEvent):
        def name(self) -> str:
            nonlocal asked
            asked += 1
            return super().name()

    events = [Counting(f"op{i % 50}", 10 * i, 10) for i in range(10_000)]
    columns = columns_of(kineto.read(events), Recorder(), 0, 200_000)
    assert asked == 10_000
    assert columns["self_ns"].sum() == 100_000


# -- the table -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run() -> Run:
    return with_operators(synthetic_run(new_tokens=8, blocks=3))


def real_run(seen: Seen, model: torch.nn.Module) -> Run:
    """A run with that one profiled moment, as moment 5."""
    base = synthetic_run(new_tokens=2, warmup=1, repeats=3)
    moments: dict[str, Array] = {name: column[:6].copy() for name, column in base.trace.moments.items()}
    moments["tags"][5], moments["duration_ns"][5] = int(Tag.PROFILED), seen.duration_ns
    layers = tuple(Layer(path, type(module).__name__, "other", -1) for path, module in model.named_modules())
    return replace(base, trace=replace(seen.trace, layers=layers, moments=moments))


def test_the_table_adds_up(run: Run) -> None:
    rows = operator_rows(run, kind="decode")
    moment = run.trace.operators["moment"]
    one = moment == np.flatnonzero(run.trace.moments["tags"] & int(Tag.PROFILED))[-1]
    assert sum(row.calls for row in rows) == one.sum()
    assert sum(row.self_ns for row in rows) == run.trace.operators["self_ns"][one].sum()
    assert sum(row.share for row in rows) <= 1
    assert {row.kind for row in operator_rows(run)} == {"prefill", "decode"}
    assert [row.self_ns for row in rows] == sorted((row.self_ns for row in rows), reverse=True)


def test_rows_can_be_put_together(run: Run) -> None:
    whole = operator_rows(run, kind="decode", by_layer=False, by_shapes=False)
    product = next(row for row in whole if row.name == "aten::addmm")
    assert (product.layer, product.stage, product.shapes) == (None, None, None)
    assert product.calls == 3 * 7 + 1
    assert product.flops == 2 * 576 * (21 * 576 + 49152)


def test_a_layer_has_its_own_and_those_below(run: Run) -> None:
    below = operator_rows(run, "model.layers.1.mlp", "decode")
    assert {row.layer for row in below} == {
        f"model.layers.1.mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj", "act_fn")
    }
    assert operator_rows(run, "model.layers.1.ml") == []
    assert len(operator_rows(run, "")) == len(operator_rows(run))


def test_a_layers_work_counts_nested_operations_once(run: Run) -> None:
    work = {layer.path: layer for layer in layer_work(run, "decode")}
    head = work["lm_head"]
    assert head.flops == 2 * 576 * 49152, "aten::linear contains aten::addmm"
    assert (head.calls, head.allocated_bytes, head.device_ns, head.bytes) == (3, 4 * 49152, None, None)
    assert layer_allocations(run)["lm_head"] == 4 * 49152
    assert sum(layer.share for layer in work.values()) <= 1


def test_kernels_are_a_time_of_their_own() -> None:
    run = with_operators(synthetic_run(new_tokens=4, blocks=2), on_device=True)
    head = next(layer for layer in layer_work(run, "decode") if layer.path == "lm_head")
    assert head.device_ns == 1_200_000
    assert {row.place for row in operator_rows(run, "lm_head")} == {"cpu", "runtime", "kernel"}


def test_slowdown_is_profiled_over_clean(run: Run) -> None:
    ratios = slowdown(run)
    assert ratios is not None
    moments = run.trace.moments
    decode = (moments["kind"] == 2) & (moments["tags"] == int(Tag.CLEAN))
    profiled = (moments["kind"] == 2) & (moments["tags"] == int(Tag.PROFILED))
    expected = np.median(moments["duration_ns"][profiled]) / np.median(moments["duration_ns"][decode])
    assert ratios["decode"] == pytest.approx(expected)
    assert slowdown(synthetic_run()) is None


def test_an_imported_trace_has_no_layers_and_all_moments_count() -> None:
    run = imported_run(steps=3)
    rows = operator_rows(run)
    product = next(row for row in rows if row.name == "aten::addmm" and row.kind == "forward")
    assert (product.calls, product.layer, product.stage) == (12, None, None)
    assert any(row.kind is None for row in rows), "some were in no step"
    assert sum(row.calls for row in rows) == len(run.trace.operators["name"])
    assert operator_rows(run, "") == []
    assert layer_work(run) == []
    assert layer_allocations(run) == {}


def test_columns_for_a_file(run: Run) -> None:
    columns = operator_columns(run)
    assert {len(column) for column in columns.values()} == {len(operator_rows(run))}
    assert None in columns["shapes"]
    assert all(column == [] for column in operator_columns(synthetic_run()).values())


def test_a_real_moment_in_the_table() -> None:
    model = tiny_llama()
    seen = Seen(model, torch.arange(8)[None])
    run = real_run(seen, model)
    rows = operator_rows(run)
    assert sum(row.calls for row in rows) == len(seen.names)
    assert 0 < sum(row.share for row in rows) <= 1
    work = {layer.path: layer for layer in layer_work(run)}
    assert work["lm_head"].flops == 2 * 8 * 64 * 256
    allocated = work["model.layers.0.mlp.gate_proj"].allocated_bytes
    assert allocated == 8 * 128 * 4


def test_a_live_run_whose_operators_are_ahead_of_their_moment(run: Run) -> None:
    first = int(np.flatnonzero(run.trace.moments["tags"] & int(Tag.PROFILED))[0])
    for count in (0, first):
        moments = {name: column[:count] for name, column in run.trace.moments.items()}
        assert operator_rows(replace(run, trace=replace(run.trace, moments=moments))) == []
    moments = {name: column[: first + 1] for name, column in run.trace.moments.items()}
    assert {row.kind for row in operator_rows(replace(run, trace=replace(run.trace, moments=moments)))} == {"prefill"}
