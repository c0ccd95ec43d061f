"""Adds to a made-up run what ``torch.profiler`` would have seen, for tests of views and files that need no profiler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from core.records.run import Run
from profilers.trace import (
    KINDS,
    MOMENT_COLUMNS,
    NOT_MEASURED,
    PLACES,
    REQUEST_COLUMNS,
    Columns,
    Layer,
    Recorder,
    Tag,
)
from tests.support.synthetic import synthetic_run

US = 1_000
CPU, RUNTIME, KERNEL, COPY, PYTHON = range(len(PLACES))
THREAD, STREAM = 4711, 7


def with_operators(run: Run, *, decodes: int = 3, on_device: bool = False) -> Run:
    """The run with a last request tagged PROFILED: a prefill and ``decodes`` decode moments with their operators.

    Linear layers call ``aten::linear`` > ``aten::t``, ``aten::addmm`` (with shapes and FLOPs), embeddings ``aten::embedding``,
    everything else ``aten::mul``. With ``on_device`` each product launches a kernel, as on a GPU.
    """
    trace = run.trace
    recorder = Recorder()
    requests, moments = Columns(REQUEST_COLUMNS), Columns(MOMENT_COLUMNS)
    requests.extend(trace.requests)
    moments.extend(trace.moments)
    start = int((trace.moments["start_ns"] + trace.moments["duration_ns"]).max(initial=0)) + 1_000_000
    request = requests.append(tags=int(Tag.PROFILED), start_ns=start, input_tokens=5, output_tokens=1 + decodes)
    for step in range(1 + decodes):
        tokens = 5 if step == 0 else 1
        moment = moments.count
        duration = _operators(recorder, trace.layers, moment, start, tokens, on_device)
        moments.append(
            request=request,
            kind=KINDS.index("decode" if step else "prefill"),
            step=step,
            tags=int(Tag.PROFILED),
            start_ns=start,
            duration_ns=duration,
            latency_ns=duration + 400 * US,
            paused_ns=0,
            tokens=tokens,
            context=4 + step if step else 0,
            kv_bytes=(5 + step) * 23040 * 2,
        )
        start += duration + 400 * US
    requests.set(request, end_ns=start)
    added = recorder.snapshot()
    config = replace(run.config, profilers=(*run.config.profilers, "kernels"))
    instruments = {**run.facts.instruments, "kernels": {"source": "torch.profiler (Kineto)", "aligned_within_ns": 500}}
    return replace(
        run,
        config=config,
        facts=replace(run.facts, instruments=instruments),
        trace=replace(trace, requests=requests.view(), moments=moments.view(), operators=added.operators, names=added.names),
    )


def imported_run(*, steps: int = 3) -> Run:
    """A run as read from another tool's trace: no layers; operators in ``steps`` forward moments and a few in none (-1)."""
    recorder, moments = Recorder(), Columns(MOMENT_COLUMNS)
    leaves = (Layer("", "Linear", "other", -1),) * 4
    start = 1_000_000
    for step in range(steps):
        duration = _operators(recorder, leaves, step, start, 1, on_device=True)
        moments.append(
            request=NOT_MEASURED, kind=KINDS.index("forward"), step=step, tags=0, start_ns=start, duration_ns=duration
        )
        start += duration + 100 * US
    _operators(recorder, leaves, -1, start, 1, on_device=True)
    operators = {name: column.copy() for name, column in recorder.operators.view().items()}
    operators["layer"][:] = NOT_MEASURED
    base = synthetic_run(repeats=1, warmup=0, new_tokens=1, blocks=1)
    empty = Recorder().snapshot()
    return replace(
        base,
        name="imported",
        facts=replace(base.facts, status="imported", model=None, target=None, passes=(), environment={}),
        trace=replace(empty, moments=moments.view(), operators=operators, names=recorder.snapshot().names),
    )


def _operators(recorder: Recorder, layers: tuple[Layer, ...], moment: int, start_ns: int, tokens: int, on_device: bool) -> int:
    """Append one moment's operators; returns the moment's duration in ns."""
    now = start_ns + 20 * US
    correlation = 0

    def add(layer: int, name: str, at: int, duration: int, own: int, **more: float) -> None:
        values: Mapping[str, float] = {"lane": THREAD, "place": CPU, "shapes": NOT_MEASURED, **more}
        recorder.operators.append(
            moment=moment,
            layer=layer,
            name=recorder.name(name),
            start_ns=at,
            duration_ns=duration,
            self_ns=own,
            **values,
        )

    callers = {layer.parent for layer in layers}
    pace = 2 if tokens == 1 else 8  # the profiler makes a moment of 12 ms take 25
    for row, layer in enumerate(layers):
        if row in callers or layer.type == "ModuleList":
            continue
        if layer.type == "Linear":
            wide = 49152 if layer.stage == "head" else 576
            shapes = recorder.name(f"[[{tokens}, 576], [576, {wide}]]")
            product = {"shapes": shapes, "flops": 2 * tokens * 576 * wide}
            took = (1200 if layer.stage == "head" else 40) * US * pace
            add(row, "aten::linear", now, took, 3 * US, **product)
            add(row, "aten::t", now + US, 2 * US, 2 * US)
            inner = took - 5 * US
            add(row, "aten::addmm", now + 4 * US, inner, inner, allocated_bytes=4 * tokens * wide, **product)
            if on_device:
                correlation += 1
                add(row, "cudaLaunchKernel", now + 5 * US, 4 * US, 4 * US, place=RUNTIME, correlation=correlation)
                at, half = now + 12 * US, took // 2
                add(row, "sm80_xmma_gemm_f32", at, half, half, place=KERNEL, lane=STREAM, correlation=correlation)
        elif layer.stage == "embed":
            took = 15 * US * pace
            add(row, "aten::embedding", now, took, took, allocated_bytes=4 * tokens * 576)
        else:
            took = 8 * US * pace
            add(row, "aten::mul", now, took, took, flops=tokens * 576, allocated_bytes=4 * tokens * 576)
        now += took + 2 * US
    return now + 20 * US - start_ns
