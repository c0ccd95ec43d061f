"""The counter tracks of a run as charts show them: memory by kind, and the machine's small multiples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from core.session.run import Run
from profilers.trace import Array

MIB = 1 << 20
MS = 1e6

Table = dict[str, Any]


@dataclass(frozen=True)
class MemorySeries:
    """The process's resident memory by kind, MiB, in stacking order; the kinds add up to what the system reports.

    ``weights`` is missing where their size is unknown, ``activations`` where the memory before the first request is.
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
    moment, ``other`` by what the process held before the first request, and activations as the rest.
    """
    time_ns, resident = _samples(run, "rss")
    rest = resident / MIB
    kinds: dict[str, Array] = {}
    facts = run.facts
    # Weights on an accelerator are not in the process's resident memory.
    on_host = facts.target is None or facts.target.id == "cpu"
    weights_bytes = facts.weights_bytes if on_host else None
    weights = np.minimum(rest, (weights_bytes or 0) / MIB)
    rest = rest - weights
    cache = np.minimum(rest, _cache_bytes(run, time_ns) / MIB) if on_host else np.zeros_like(rest)
    rest = rest - cache
    if facts.rss_loaded_bytes is None:
        kinds["other"] = rest
    else:
        kinds["other"] = np.minimum(rest, max(0.0, (facts.rss_loaded_bytes - (weights_bytes or 0)) / MIB))
    if weights_bytes is not None:
        kinds["weights"] = weights
    if on_host:
        kinds["kv_cache"] = cache
    if facts.rss_loaded_bytes is not None:
        kinds["activations"] = rest - kinds["other"]
    return MemorySeries(time_ns / 1e9, kinds)


def machine(run: Run) -> list[TrackSeries]:
    """The counter tracks that are not memory, one small chart each."""
    found = []
    for number, track in enumerate(run.trace.tracks):
        if track.unit not in _UNITS:
            continue
        unit, factor = _UNITS[track.unit]
        mine = run.trace.counters["track"] == number
        title = _TITLES.get(track.name, track.name.replace("_", " ").capitalize())
        time_s = run.trace.counters["time_ns"][mine] / 1e9
        found.append(TrackSeries(track.name, title, unit, time_s, run.trace.counters["value"][mine] * factor))
    return found


_UNITS = {
    "percent": ("%", 1.0),
    "hertz": ("GHz", 1e-9),
    "ns": ("ms", 1e-6),
    "per_second": ("/s", 1.0),
    "watt": ("W", 1.0),
    "celsius": ("°C", 1.0),
}
_TITLES = {"cpu": "CPU", "gpu": "GPU", "frequency": "Clock"}


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
