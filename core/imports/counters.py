"""What an imported trace counted over time, and what happened at one time: allocations, counters, instants."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np

from core.imports.decoding import as_identity, time_ns
from core.imports.rows import Rows, empty
from core.imports.slices import Slices
from profilers.trace import COUNTER_COLUMNS, Array, Instant, Track

ALLOCATED, DEVICE_ALLOCATED = "allocated", "device_allocated"
"""Names of the tracks with what torch's allocators gave out; of several devices or processes each has a track of its own."""

_UNITS = {"bytes", "percent", "hertz", "ns", "per_second", "watt", "joule", "celsius", "count"}
_MOST_TRACKS = 1000
_MOST_INSTANTS = 100_000
_GPU_TYPES = {1, 6, 12}  # torch.profiler's DeviceType: CUDA, HIP, XPU

_Samples = dict[str, tuple[str, list[int], list[float]]]


def counters_of(rows: Rows, slices: Slices, origin: int) -> tuple[dict[str, Array], tuple[Track, ...]]:
    """What was allocated, by process and device, and every counter of the trace."""
    tracks: dict[str, str] = {}
    parts: list[tuple[int, Array, Array]] = []
    for name, times, values in _allocations(rows, slices):
        tracks[name] = "bytes"
        parts.append((len(tracks) - 1, times, values))
    samples: _Samples = {}
    events = [event for event in slices.others if event["ph"] == "C"]
    owners: dict[str, set[int | str]] = {}
    for event in events:
        owners.setdefault(str(event.get("name", "")), set()).add(as_identity(event.get("pid")))
    for event in events:
        name = str(event.get("name", ""))
        name += f" of process {event.get('pid')}" if len(owners[name]) > 1 else ""
        _add_counter(event, name, samples, origin, slices)
    for name, (unit, sampled, found) in samples.items():
        number = list(tracks).index(name) if name in tracks else len(tracks)
        tracks.setdefault(name, unit)
        parts.append((number, np.array(sampled, np.int64), np.array(found)))
    counters = empty(COUNTER_COLUMNS, sum(len(times) for _, times, _ in parts))
    if parts:
        counters["track"] = np.concatenate([np.full(len(times), number, np.int16) for number, times, _ in parts])
        counters["time_ns"] = np.concatenate([times for _, times, _ in parts])
        counters["value"] = np.concatenate([values for _, _, values in parts])
        order = np.argsort(counters["time_ns"], kind="stable")
        counters = {name: column[order] for name, column in counters.items()}
    return counters, tuple(Track(name, unit) for name, unit in tracks.items())


def _allocations(rows: Rows, slices: Slices) -> list[tuple[str, Array, Array]]:
    """Allocated bytes over time, by process, kind and number of the device: name, times, values."""
    events = np.flatnonzero(rows.memory)
    if not len(events):
        return []
    events = events[np.argsort(rows["ts_ns"][events], kind="stable")]  # an allocator is asked by several threads
    owner = np.stack([rows.process[events], rows["device_type"][events], rows["device_id"][events]])
    keys, group = np.unique(owner, axis=1, return_inverse=True)
    groups = keys.T.tolist()
    alike = Counter((process, kind) for process, kind, _ in groups)
    processes = len({process for process, _, _ in groups})
    of_group = np.split(events[np.argsort(group.ravel(), kind="stable")], np.cumsum(np.bincount(group.ravel()))[:-1])
    slices.miss(f"allocations of more than {_MOST_TRACKS} devices and processes", sum(map(len, of_group[_MOST_TRACKS:])))
    found = []
    for (process, kind, number), mine in zip(groups[:_MOST_TRACKS], of_group[:_MOST_TRACKS], strict=True):
        several = alike[process, kind] > 1
        name = ALLOCATED if kind == 0 else DEVICE_ALLOCATED
        name += f" of {'GPU' if kind in _GPU_TYPES else 'device'} {number}" if kind != 0 and several else ""
        name += f" of allocator {number}" if kind == 0 and several else ""
        name += f" of process {rows.processes[process]}" if processes > 1 else ""
        total = rows["total_allocated"][mine]
        told = total >= 0
        if not told.any():  # until torch 1.10 each event told its own change alone
            total, told = np.cumsum(rows["allocated"][mine]), np.ones(len(mine), bool)
            slices.miss(f"samples of {name} that are changes since the trace began, as it does not say the sum", len(mine))
        found.append((name, rows["ts_ns"][mine][told], total[told].astype(float)))
    return found


def _add_counter(event: Mapping[str, Any], title: str, samples: _Samples, origin: int, slices: Slices) -> None:
    at_ns = time_ns(event, origin)
    values = event.get("args")
    if at_ns is None or not isinstance(values, dict):
        slices.miss("counters without a usable time or value")
        return
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)) or not _fits(value):
            slices.miss("counters without a usable time or value")
            continue
        known = key in _UNITS
        name = title if known else f"{title} {key}".strip()
        if name not in samples and len(samples) >= _MOST_TRACKS:
            slices.miss(f"more than {_MOST_TRACKS} differently named counters")
            continue
        _, times, found = samples.setdefault(name, (key if known else "count", [], []))
        times.append(at_ns)
        found.append(float(value))


def _fits(value: float | Decimal) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def instants_of(slices: Slices, origin: int) -> tuple[Instant, ...]:
    """What happened at one time."""
    found: list[Instant] = []
    for event in slices.others:
        if event["ph"] != "C":
            at_ns = time_ns(event, origin)
            if at_ns is None or len(found) >= _MOST_INSTANTS:
                slices.miss("instants without a usable time, or too many")
            else:
                found.append(Instant(str(event.get("cat") or "trace"), max(0, at_ns), str(event.get("name", ""))))
    return tuple(found)
