"""Raw Kineto events as columns: the one place that reads what ``torch.profiler`` recorded.

``kineto_results.events()`` costs 0.3 to 0.6 µs for each thing asked of an event; ``prof.events()`` builds a Python object with
its family around each one and costs 16 to 80 µs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from profilers.trace import NOT_MEASURED, PLACES, Array

CPU, RUNTIME, KERNEL, COPY, PYTHON = range(len(PLACES))
MEMORY = len(PLACES)
"""Not a place: memory was taken (``nbytes`` above 0) or given back at that time."""

_PLACE_OF = {
    "cpu_op": CPU,
    "user_annotation": CPU,
    "python_function": PYTHON,
    "kernel": KERNEL,
    "mtia_ccp_events": KERNEL,
    "hpu_op": KERNEL,
    "gpu_memcpy": COPY,
    "gpu_memset": COPY,
}

Shapes = Sequence[Sequence[int]]


def place_of(activity: str, name: str) -> int | None:
    """Where an event of that Kineto activity ran, as an index into ``PLACES`` (or ``MEMORY``); None: it is no operator.

    Not operators are marks on the device's time line, waits and the profiler's own overhead.
    """
    if activity.endswith(("_runtime", "_driver")):
        return RUNTIME
    if activity == "cpu_instant_event":
        return MEMORY if name == "[memory]" else None
    return _PLACE_OF.get(activity)


@dataclass(frozen=True)
class Events:
    """Events in the order recorded; every array has one value an event.

    ``name`` and ``shapes`` are indices into ``texts`` (``shapes`` -1: none); ``lane`` is a native thread id, on the device a
    stream; ``start_ns`` is Unix time. ``correlation`` of a kernel and of the driver call that launched it is the same;
    ``linked`` is the ``correlation`` of the operator that launched either (0: unknown). ``flops`` 0: no formula.
    """

    texts: tuple[str, ...]
    name: Array
    place: Array
    lane: Array
    start_ns: Array
    duration_ns: Array
    correlation: Array
    linked: Array
    flops: Array
    nbytes: Array
    shapes: Array

    def __len__(self) -> int:
        return len(self.name)

    @property
    def on_cpu(self) -> Array:
        """Which events ran on a thread of the processor, so that they nest."""
        return np.isin(self.place, (CPU, RUNTIME, PYTHON))

    @property
    def on_device(self) -> Array:
        """Which events ran on an accelerator."""
        return np.isin(self.place, (KERNEL, COPY))


def profiler(**options: bool) -> Any:
    """A ``torch.profiler.profile`` for the processor and the accelerator there is; not started.

    Args:
        options: ``record_shapes``, ``with_flops``, ``profile_memory``.
    """
    # before its first use in a process; else the profiler prints two lines to stderr each time
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    for kind, device in ((ProfilerActivity.CUDA, torch.cuda), (ProfilerActivity.XPU, torch.xpu)):
        if device.is_available():
            activities.append(kind)
    return profile(activities=activities, **options)


def events_of(session: Any) -> Events:
    """What a stopped ``torch.profiler.profile`` recorded."""
    return read(session.profiler.kineto_results.events())


def read(events: Iterable[Any]) -> Events:
    """The events as columns, without those that are no operators."""
    codes: dict[str, int] = {}
    counts: dict[tuple[str, str], int] = {}
    rows: list[tuple[int, ...]] = []
    for event in events:
        name = event.name()
        place = place_of(event.activity_type(), name)
        if place is None or event.is_hidden_event():
            continue
        flops, shapes = 0, NOT_MEASURED
        if place == CPU:
            flops = event.flops()
            sizes = event.shapes()
            if any(sizes):
                text = str(sizes)
                shapes = codes.setdefault(text, len(codes))
                if flops == 0 and name in FORMULAS:
                    key = name, text
                    if key not in counts:
                        counts[key] = flops_by_shapes(name, sizes)
                    flops = counts[key]
        rows.append(
            (
                codes.setdefault(name, len(codes)),
                place,
                event.device_resource_id(),
                event.start_ns(),
                event.duration_ns(),
                event.correlation_id(),
                event.linked_correlation_id(),
                flops,
                event.nbytes(),
                shapes,
            )
        )
    columns = np.array(rows, np.int64).reshape(-1, 10).T
    return Events(tuple(codes), *columns)


def nest(lanes: Array, starts: Array, ends: Array) -> tuple[Array, Array, Array]:
    """Which event calls which, told by time within each lane.

    Args:
        lanes: thread of each event, in any order.
        starts: when each began, ns.
        ends: when each ended, ns.

    Returns:
        For each event the index of its caller (-1: none); the ends, none later than the caller's; and an order of the events in
        which every caller comes before what it calls.
    """
    order = np.lexsort((starts - ends, starts, lanes))
    parents = [-1] * len(order)
    closing = ends.tolist()
    begins, rows = starts.tolist(), lanes.tolist()
    open_events: list[int] = []
    lane = None
    for index in order.tolist():
        if rows[index] != lane:
            lane = rows[index]
            open_events.clear()
        start = begins[index]
        while open_events and closing[open_events[-1]] <= start:
            open_events.pop()
        if open_events:
            caller = parents[index] = open_events[-1]
            closing[index] = min(closing[index], closing[caller])
        open_events.append(index)
    return np.array(parents, np.int64), np.array(closing, np.int64), order


# -- products whose operations torch.profiler does not count (it knows mm, addmm, bmm, baddbmm, conv2d, mul and add) ----------


def _attention(shapes: Shapes) -> int:
    """Two products per head, 2 operations per multiply-add, a causal mask not halved."""
    (batch, heads, length, depth), key, value = shapes[:3]
    return 2 * batch * heads * length * key[2] * (depth + value[3])


def _linear(shapes: Shapes, weight: int = 1) -> int:
    """Input [..., k], weight [n, k] (or [n, packed])."""
    return 2 * prod(shapes[0]) * shapes[weight][0]


FORMULAS: Mapping[str, Callable[[Shapes], int]] = {
    "aten::_scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten::_scaled_dot_product_flash_attention": _attention,
    "aten::_scaled_dot_product_efficient_attention": _attention,
    "aten::_scaled_dot_product_cudnn_attention": _attention,
    "aten::_int_mm": lambda shapes: 2 * prod(shapes[0]) * shapes[1][1],
    "aten::_weight_int8pack_mm": _linear,
    "aten::_weight_int4pack_mm_for_cpu": _linear,
    "mkldnn::_linear_pointwise": _linear,
    "mkl::_mkl_linear": lambda shapes: _linear(shapes, 2),  # the weight packed, then as it was
}


def flops_by_shapes(name: str, shapes: Shapes) -> int:
    """Floating-point operations (or integer ones) of an operator in ``FORMULAS``; 0 where its shapes are not as expected."""
    try:
        return FORMULAS[name](shapes)
    except (IndexError, ValueError):
        return 0
