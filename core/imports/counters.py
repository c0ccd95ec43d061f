"""What an imported trace counted over time, and what happened at one time: allocations, counters, instants."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from core.imports.decoding import time_ns
from core.imports.rows import Rows, empty
from core.imports.slices import Slices
from profilers.trace import COUNTER_COLUMNS, Array, Instant, Track

_UNITS = {"bytes", "percent", "hertz", "ns", "per_second", "watt", "joule", "celsius", "count"}
_MOST_TRACKS = 1000
_MOST_INSTANTS = 100_000


def counters_of(rows: Rows, memory: Array, slices: Slices, origin: int) -> tuple[dict[str, Array], tuple[Track, ...]]:
    """What was allocated, by device, and every counter of the trace."""
    tracks: dict[str, str] = {}
    parts: list[tuple[int, Array, Array]] = []
    known = memory & (rows["total_allocated"] >= 0)
    for device in np.unique(rows["device_type"][known]).tolist():
        name = "allocated" if device == 0 else "device_allocated"
        number = list(tracks).index(name) if name in tracks else len(tracks)
        tracks[name] = "bytes"
        chosen = np.flatnonzero(known & (rows["device_type"] == device))
        parts.append((number, rows["ts_ns"][chosen], rows["total_allocated"][chosen].astype(float)))
    samples: dict[str, tuple[str, list[int], list[float]]] = {}
    for event in slices.others:
        if event.get("ph") == "C":
            _add_counter(event, samples, origin, slices)
    for name, (unit, times, values) in samples.items():
        number = list(tracks).index(name) if name in tracks else len(tracks)
        tracks.setdefault(name, unit)
        parts.append((number, np.array(times, np.int64), np.array(values)))
    counters = empty(COUNTER_COLUMNS, sum(len(times) for _, times, _ in parts))
    if parts:
        counters["track"] = np.concatenate([np.full(len(times), number, np.int16) for number, times, _ in parts])
        counters["time_ns"] = np.concatenate([times for _, times, _ in parts])
        counters["value"] = np.concatenate([values for _, _, values in parts])
        order = np.argsort(counters["time_ns"], kind="stable")
        counters = {name: column[order] for name, column in counters.items()}
    return counters, tuple(Track(name, unit) for name, unit in tracks.items())


def _add_counter(
    event: Mapping[str, Any], samples: dict[str, tuple[str, list[int], list[float]]], origin: int, slices: Slices
) -> None:
    at_ns = time_ns(event, origin)
    values = event.get("args")
    if at_ns is None or not isinstance(values, dict):
        slices.miss("counters without a usable time or value")
        return
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            slices.miss("counters without a usable time or value")
            continue
        known = key in _UNITS
        name = str(event.get("name", "")) if known else f"{event.get('name', '')} {key}".strip()
        if name not in samples and len(samples) >= _MOST_TRACKS:
            slices.miss(f"more than {_MOST_TRACKS} differently named counters")
            continue
        _, times, found = samples.setdefault(name, (key if known else "count", [], []))
        times.append(at_ns)
        found.append(float(value))


def instants_of(slices: Slices, origin: int) -> tuple[Instant, ...]:
    """What happened at one time."""
    found: list[Instant] = []
    for event in slices.others:
        if event.get("ph") in ("i", "I"):
            at_ns = time_ns(event, origin)
            if at_ns is None or len(found) >= _MOST_INSTANTS:
                slices.miss("instants without a usable time, or too many")
            else:
                found.append(Instant(str(event.get("cat") or "trace"), max(0, at_ns), str(event.get("name", ""))))
    return tuple(found)
