"""Which matrix kernels really ran: a call is profiled once and the names are read from the raw events."""

from __future__ import annotations

import functools
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from core.pass_api.subject import Subject
from profilers import kineto
from profilers.forward_patch import Forward, ForwardPatch, Order
from profilers.kernels import KernelProfiler
from profilers.trace import NOT_MEASURED, Recorder

_GEMM = re.compile(r"mm($|_|[^a-z])|gemm|gemv|matmul|linear|cutlass", re.IGNORECASE)
_NOT_GEMM = re.compile(r"^cpp_fused|comm|prepack|pack_weight|_prepare|^graph_\d+")


def kernels_by_layer(subject: Subject, call: Callable[[], object]) -> dict[str, Counter[str]]:
    """How often each matrix-multiplication kernel ran in ``call``, by the path of the layer that ran it.

    On the CPU these are the innermost operators that name one (``aten::addmm``, ``mkldnn::_linear_pointwise``,
    ``quantized::linear_dynamic``, ``aten::_weight_int8pack_mm``), not what merely calls them (``aten::linear``); where
    a GPU ran kernels, theirs. All are under "" where a compiled graph runs, which has no layers.
    """
    profiler, recorder = KernelProfiler(subject.model, labels=subject.execution.step is None), Recorder()
    start_ns = time.perf_counter_ns()
    profiler.start()
    try:
        call()
    finally:
        profiler.stop()
    profiler.collect(recorder, NOT_MEASURED, start_ns)
    trace = recorder.snapshot()
    operators, paths = trace.operators, [path for path, _ in subject.model.named_modules()]
    gemm = np.array([is_gemm(name) for name in trace.names], bool)[operators["name"]]
    rows = np.flatnonzero(gemm & (operators["place"] == kineto.KERNEL))
    if not len(rows):
        on_cpu = np.flatnonzero(gemm & (operators["place"] == kineto.CPU))
        starts = operators["start_ns"][on_cpu]
        callers, _, _ = kineto.nest(operators["lane"][on_cpu], starts, starts + operators["duration_ns"][on_cpu])
        rows = np.delete(on_cpu, callers[callers >= 0])
    ran: dict[str, Counter[str]] = {}
    for layer, name in zip(operators["layer"][rows].tolist(), operators["name"][rows].tolist(), strict=True):
        ran.setdefault(paths[layer] if layer >= 0 else "", Counter())[trace.names[name]] += 1
    return ran


@contextmanager
def as_run(subject: Subject) -> Iterator[None]:
    """While it lasts, the model's forward is what runs in moments: a compiled step for one new position, else its own.

    For a probe outside of the engine's moments, so that a compiled decode is probed and not the eager one.
    """
    step = subject.execution.step
    if step is None:
        yield
        return

    def chosen(plain: Forward) -> Forward:
        @functools.wraps(plain)  # generate reads the signature
        def forward(*args: Any, **kwargs: Any) -> Any:
            inputs = kwargs.get("input_ids")
            one = step.every or (inputs is not None and inputs.shape[1] == 1)
            return (step.call if one else plain)(*args, **kwargs)

        return forward

    patch = ForwardPatch(Order.PASS, [(subject.model, chosen)])
    patch.push()
    try:
        yield
    finally:
        patch.pop()


def is_gemm(name: str) -> bool:
    """Whether an event's name is that of a matrix multiplication."""
    return _GEMM.search(name) is not None and _NOT_GEMM.search(name) is None
