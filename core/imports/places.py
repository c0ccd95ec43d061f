"""Where the events of an imported trace ran, by their categories: those of today's torch, of older ones, and of none."""

from __future__ import annotations

import re

import numpy as np

from core.imports.slices import MEMORY, Slices
from profilers.trace import KINDS, PLACES, Array

DROPPED, REGION = -2, -1
MOMENT = re.compile(rf"({'|'.join(KINDS)}) (\d{{1,9}})")
"""A moment in Tickscope's own traces: its kind and its number in its request."""

STEP = re.compile(rf"ProfilerStep#\d+(?: {MOMENT.pattern})?")
"""A profiler step; in Tickscope's own traces with the moment that it is."""
CPU, RUNTIME, KERNEL, COPY, PYTHON = map(PLACES.index, PLACES)

_KNOWN = {
    "cpu_op": CPU,
    "operator": CPU,  # torch 1.8 to 1.10 wrote Operator, Runtime, Kernel, Memcpy, Memset
    "user_annotation": REGION,
    "kernel": KERNEL,
    "memcpy": COPY,
    "memset": COPY,
    "runtime": RUNTIME,
    "driver": RUNTIME,
    "overhead": RUNTIME,
    "python": PYTHON,
    "python_function": PYTHON,
    "trace": DROPPED,  # the whole of it as one slice
    "gpu_user_annotation": DROPPED,  # the same regions once more, as their kernels saw them
    "external_correlation": DROPPED,
    "cpu_instant_event": DROPPED,
    MEMORY: DROPPED,
    "collective_comm": KERNEL,
}
_RUNTIME = re.compile(r".*_(runtime|driver|sync)")
_COPY = re.compile(r"gpu_mem.*|.*_(memcpy|memset)")
_DEVICE = re.compile(r"(gpu|cuda|hip|rocm|xpu|hpu|mtia|npu|musa|privateuse1)_.*")
_AROUND = re.compile(r".*_(range|ranges|annotation|insight|event)")
_DEVICE_PROCESS = re.compile(r"(?!cpu\b)\w+ functions", re.IGNORECASE)
"""How ``EventList.export_chrome_trace``, which writes no categories, calls the process of a device ("CUDA functions")."""

_PYTHON_NAME = re.compile(r"nn\.Module: |<built-in |(?:[^\n]{1,500}\.py|<[^>\n]{1,500}>[.\w]{0,20})\(\d+\): ")
"""How the tracer of Python names a function, where no category says that it is one: its file and line, or what stands for a
file where the code came from none (``<frozen os>``, ``<string>``, torch.fx's ``<eval_with_key>.5``)."""


def places_of(slices: Slices, columns: dict[str, Array]) -> Array:
    """Where each slice ran, as an index into ``PLACES``; regions -1, what is not shown -2."""
    by_category = [_place(category) for category in slices.categories]
    place: Array = np.array([CPU if one is None else one for one in by_category] or [CPU], np.int8)[columns["category"]]
    _tell_ranges(slices, columns)
    if None in by_category:
        unknown = np.array([one is None for one in by_category])[columns["category"]]
        place[unknown & _on_device_lane(slices, columns, place, unknown)] = KERNEL
        python = np.array([_PYTHON_NAME.match(name) is not None for name in slices.names] or [False])
        place[unknown & (place == CPU) & python[columns["name"]]] = PYTHON
        copies = np.array([name.lower().startswith(("memcpy", "memset")) for name in slices.names] or [False])
        place[unknown & (place == KERNEL) & copies[columns["name"]]] = COPY
    steps = np.array([STEP.fullmatch(name) is not None for name in slices.names] or [False])
    place[steps[columns["name"]] & (place == CPU)] = REGION  # before torch 1.11 a step was an operator like any other
    return place


def is_on_device(place: Array) -> Array:
    """Which of these places are those of kernels and copies."""
    found: Array = (place == KERNEL) | (place == COPY)
    return found


def _place(category: str) -> int | None:
    """The place that a category means, None for one that is not known."""
    name = category.lower()
    if name in _KNOWN:
        return _KNOWN[name]
    if _RUNTIME.fullmatch(name):
        return RUNTIME
    if _COPY.fullmatch(name):
        return COPY
    if _DEVICE.fullmatch(name):
        return DROPPED if _AROUND.fullmatch(name) else KERNEL
    return None


def _tell_ranges(slices: Slices, columns: dict[str, Array]) -> None:
    """Ranges over kernels would count the kernels' time twice; that they are left out is told."""
    counts = np.bincount(columns["category"], minlength=len(slices.categories))
    for category, count in zip(slices.categories, counts.tolist(), strict=False):
        name = category.lower()
        if name not in _KNOWN and _DEVICE.fullmatch(name) and _AROUND.fullmatch(name):
            slices.miss(f"events of the category {category}, which lie around others of the device", count)


def _on_device_lane(slices: Slices, columns: dict[str, Array], place: Array, unknown: Array) -> Array:
    """Which slices are on a lane of a device: by its process's name, or since nothing else than kernels and copies is there."""
    lanes = np.array([isinstance(pid, str) and bool(_DEVICE_PROCESS.fullmatch(pid)) for pid, _ in slices.lanes] or [False])
    on_device = is_on_device(place) & ~unknown
    only = np.bincount(columns["lane"][on_device], minlength=len(lanes)) > 0
    only &= np.bincount(columns["lane"][~on_device & ~unknown & (place != DROPPED)], minlength=len(lanes)) == 0
    found: Array = (lanes | only)[columns["lane"]]
    return found
