"""Which matrix kernels really ran: a call is profiled once and the names are read from the raw events."""

from __future__ import annotations

import functools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from core.passes.base import Subject

_GEMM = re.compile(r"mm($|_|[^a-z])|gemm|gemv|matmul|linear|cutlass", re.IGNORECASE)
_NOT_GEMM = re.compile(r"^cpp_fused|comm|prepack|pack_weight|_prepare|^graph_\d+")


def kernels_that_ran(call: Callable[[], object]) -> tuple[str, ...]:
    """Names of the matrix-multiplication kernels that ``call`` ran, most frequent first.

    On the CPU these are the innermost operators that name one (``aten::addmm``, ``mkldnn::_linear_pointwise``,
    ``quantized::linear_dynamic``, ``aten::_weight_int8pack_mm``), not what merely calls them (``aten::linear``); where
    a GPU ran kernels, theirs. The profiler's raw events are read: 0.6 µs each instead of 16 to 80 µs.
    """
    # before its first use in a process; else the profiler prints two lines to stderr each time
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as session:
        call()
    events = session.profiler.kineto_results.events()
    on_device = [event for event in events if not str(event.device_type()).endswith("CPU") and is_gemm(event.name())]
    names = [event.name() for event in on_device] if on_device else innermost(events)
    return tuple(name for name, _ in Counter(names).most_common())


@contextmanager
def as_run(subject: Subject) -> Iterator[None]:
    """While it lasts, the model's forward is what runs in moments: ``decode_forward`` for one new position, else its own.

    For a probe outside of the engine's moments, so that a compiled decode is probed and not the eager one.
    """
    decode, model = subject.decode_forward, subject.model
    if decode is None:
        yield
        return
    plain, own = model.forward, model.__dict__.get("forward")

    @functools.wraps(plain)  # generate reads the signature
    def forward(*args: Any, **kwargs: Any) -> Any:
        inputs = kwargs.get("input_ids")
        return (decode if inputs is not None and inputs.shape[1] == 1 else plain)(*args, **kwargs)

    model.__dict__["forward"] = forward
    try:
        yield
    finally:
        if own is None:
            del model.__dict__["forward"]
        else:
            model.__dict__["forward"] = own


def is_gemm(name: str) -> bool:
    """Whether an event's name is that of a matrix multiplication."""
    return _GEMM.search(name) is not None and _NOT_GEMM.search(name) is None


def innermost(events: Iterable[Any]) -> list[str]:
    """Names of the events that multiply matrices and contain no other such event, by time within each thread."""
    threads: dict[int, list[tuple[int, int, str]]] = {}
    for event in events:
        if is_gemm(name := event.name()):
            start = event.start_ns()
            threads.setdefault(event.start_thread_id(), []).append((start, -event.duration_ns(), name))
    names: list[str] = []
    for found in threads.values():
        found.sort()
        for here, after in zip(found, [*found[1:], None], strict=True):
            if after is None or after[0] >= here[0] - here[1]:
                names.append(here[2])
    return names
