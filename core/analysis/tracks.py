"""The counter tracks of a run as charts show them: memory by kind, and the machine's small multiples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from core.analysis.energy import Energy, energy
from core.records.run import Run
from profilers.trace import Array

__all__ = ["Energy", "MemorySeries", "Table", "TrackSeries", "allocated", "energy", "machine", "memory"]

MIB = 1 << 20
MS = 1e6

MEMORY_KINDS = ("other", "framework", "weights", "kv_cache", "activations")
"""From the bottom of the stack: what moves least comes first."""

Table = dict[str, Any]


@dataclass(frozen=True)
class MemorySeries:
    """The process's resident memory by kind, MiB, in stacking order; the kinds add up to what the system reports.

    ``framework`` is what the process held before the model was loaded: interpreter, torch, window. ``weights`` is missing where
    their size is unknown, ``framework`` and ``activations`` where the memory before the load and before the first request are.
    """

    time_s: Array
    kinds: dict[str, Array]

    def table(self) -> Table:
        return {"time_s": self.time_s, **{f"{kind}_mib": values for kind, values in self.kinds.items()}}


@dataclass(frozen=True)
class TrackSeries:
    """One counter track in a unit for people."""

    name: str
    title: str
    unit: str
    time_s: Array
    value: Array

    def table(self) -> Table:
        return {"time_s": self.time_s, f"{self.name} ({self.unit})": self.value}


def memory(run: Run) -> MemorySeries:
    """Resident memory over time, split by what is known: weights by their size, the KV cache by its size after the latest
    moment, ``framework`` by what the process held before the load, ``other`` by what else it held before the first request, and
    activations (with the kernels' workspace) as the rest.
    """
    time_ns, resident = _samples(run, "rss")
    facts = run.facts
    # Weights on an accelerator are not in the process's resident memory.
    on_host = facts.target is None or facts.target.id == "cpu"
    weights_bytes = facts.weights_bytes if on_host else None
    taken: dict[str, Array] = {}
    rest = resident / MIB

    def take(kind: str, mib: Array | float) -> None:
        nonlocal rest
        taken[kind] = np.minimum(rest, np.maximum(0.0, mib))
        rest = rest - taken[kind]

    if weights_bytes is not None:
        take("weights", weights_bytes / MIB)
    if on_host:
        take("kv_cache", _cache_bytes(run, time_ns) / MIB)
    if facts.rss_before_bytes is not None:
        take("framework", facts.rss_before_bytes / MIB)
    if facts.rss_loaded_bytes is not None:
        take("other", (facts.rss_loaded_bytes - (weights_bytes or 0) - (facts.rss_before_bytes or 0)) / MIB)
    taken["activations" if facts.rss_loaded_bytes is not None else "other"] = rest
    return MemorySeries(time_ns / 1e9, {kind: taken[kind] for kind in MEMORY_KINDS if kind in taken})


def allocated(run: Run) -> list[TrackSeries]:
    """What the trace of another profiler tells of memory, MiB, the highest first: allocated bytes by device, and other bytes.

    Between two samples of an allocator nothing changes. Empty for a run of which the process's resident memory is known.
    """
    if not run.imported or any(track.name == "rss" for track in run.trace.tracks):
        return []
    found = []
    for number, track in enumerate(run.trace.tracks):
        mine = run.trace.counters["track"] == number
        if track.unit == "bytes" and mine.any():
            time_s, value = run.trace.counters["time_ns"][mine] / 1e9, run.trace.counters["value"][mine] / MIB
            found.append(TrackSeries(track.name, _memory_title(track.name), "MiB", time_s, value))
    return sorted(found, key=lambda one: -float(one.value.max()))


def allocated_table(run: Run) -> Table:
    """The samples of ``allocated``, one row each, for a file."""
    lines = allocated(run)
    return {
        "time_s": np.concatenate([np.empty(0), *(one.time_s for one in lines)]),
        "memory": [one.name for one in lines for _ in one.time_s],
        "mib": np.concatenate([np.empty(0), *(one.value for one in lines)]),
    }


def _memory_title(name: str) -> str:
    """``device_allocated of GPU 1 of process 9`` as "GPU 1, process 9"."""
    kind, *owners = name.split(" of ")
    return ", ".join(owners or [_ALLOCATORS.get(kind, kind)]) if kind in _ALLOCATORS else name


_ALLOCATORS = {"allocated": "CPU", "device_allocated": "device"}


def machine(run: Run) -> list[TrackSeries]:
    """The counter tracks that are not memory, one small chart each; energy as the power that it means."""
    found = []
    for number, track in enumerate(run.trace.tracks):
        mine = run.trace.counters["track"] == number
        time_s, value = run.trace.counters["time_ns"][mine] / 1e9, run.trace.counters["value"][mine]
        name = track.name
        if track.unit == "joule":
            name, (time_s, value) = name.replace("energy", "power"), _power(time_s, value)
            if name in {other.name for other in run.trace.tracks}:
                continue  # the GPU tells its power too
        elif track.unit not in _UNITS:
            continue
        unit, factor = _UNITS.get(track.unit, ("W", 1.0))
        title = _TITLES.get(name, name.replace("_", " ").capitalize())
        found.append(TrackSeries(name, title, unit, time_s, value * factor))
    return found


def _power(time_s: Array, joules: Array) -> tuple[Array, Array]:
    """Watts between each two samples, at the later one's time."""
    later = np.diff(time_s) > 0
    return time_s[1:][later], np.diff(joules)[later] / np.diff(time_s)[later]


_UNITS = {
    "percent": ("%", 1.0),
    "hertz": ("GHz", 1e-9),
    "ns": ("ms", 1e-6),
    "per_second": ("/s", 1.0),
    "watt": ("W", 1.0),
    "celsius": ("°C", 1.0),
    "count": ("times", 1.0),
}
_TITLES = {
    "cpu": "CPU",
    "cpu_system": "CPU, whole machine",
    "others": "Others",
    "frequency": "Clock",
    "temperature": "CPU temperature",
    "throttled": "CPU throttled",
    "package_power": "CPU power",
    "dram_power": "Memory power",
    "gpu": "GPU",
    "gpu_frequency": "GPU clock",
    "gpu_power": "GPU power",
    "gpu_temperature": "GPU temperature",
    "gpu_throttled": "GPU throttled",
}


def _samples(run: Run, name: str) -> tuple[Array, Array]:
    for number, track in enumerate(run.trace.tracks):
        if track.name == name:
            mine = run.trace.counters["track"] == number
            return run.trace.counters["time_ns"][mine], run.trace.counters["value"][mine]
    return np.empty(0, np.int64), np.empty(0)


def _cache_bytes(run: Run, time_ns: Array) -> Array:
    """The KV cache at each time: as after the latest moment, and nothing once its request has ended."""
    moments, requests = run.trace.moments, run.trace.requests
    if not len(moments["tags"]) or not len(requests["tags"]):
        return np.zeros(len(time_ns))
    ends = moments["start_ns"] + moments["duration_ns"]
    latest = np.searchsorted(ends, time_ns, side="right") - 1
    request = np.minimum(moments["request"][latest], len(requests["tags"]) - 1)
    end = requests["end_ns"][request]
    over = (end >= 0) & (time_ns > end)
    return np.where((latest < 0) | over, 0, np.maximum(moments["kv_bytes"][latest], 0)).astype(np.float64)
