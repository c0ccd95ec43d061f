"""From the slices of an imported trace to the columns of a run: moments, layers, operators, counters and instants."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.imports import modules
from core.imports.events import Slices
from core.imports.nesting import in_reading_order, nearest, parents, self_times
from profilers.trace import (
    COUNTER_COLUMNS,
    KINDS,
    MOMENT_COLUMNS,
    NOT_MEASURED,
    OPERATOR_COLUMNS,
    PLACES,
    REQUEST_COLUMNS,
    SPAN_COLUMNS,
    Array,
    Instant,
    Layer,
    Tag,
    Trace,
    Track,
)

_STEP = re.compile(r"ProfilerStep#(\d+)")
_REGIONS = {"user_annotation"}
_NOT_SHOWN = {"Trace", "gpu_user_annotation"}
_MEMORY = "[memory]"
_MOST_REGIONS = 5000
"""More differently named regions than this are numbered iterations or the like, not layers."""

_MOST_INSTANTS = 100_000


@dataclass(frozen=True)
class Content:
    """A run's columns, and the time of its first event as the trace counts."""

    trace: Trace
    origin_ns: int


@dataclass
class _Rows:
    """The slices in reading order: their columns, which slice each lies in, and what each is."""

    columns: dict[str, Array]
    end: Array
    parent: Array
    place: Array  # index into PLACES, -1: no operator
    names: tuple[str, ...]

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]


def read_content(slices: Slices, *, ours: bool) -> Content:
    """Build the columns; ``slices`` is used up. ``ours``: Tickscope wrote the trace, and its last step only closes it."""
    slices.pair()
    rows, origin = _sorted(slices)
    memory = rows["category"] == slices.categories.get("cpu_instant_event", -2)
    memory &= rows["name"] == slices.names.get(_MEMORY, -2)
    moments, edges = _moments(rows, origin, ours=ours)
    moment = _moment_of(rows, edges)
    layers, layer, spans = _layers(rows, slices, moment)
    own = self_times(rows["ts_ns"], rows.end, rows.parent)
    _follow_launches(rows, moment, layer)
    operators, names = _operators(rows, slices, moment, layer, own, memory)
    if len(spans["moment"]):
        moments["tags"][:] = int(Tag.TRACED)
    counters, tracks = _counters(rows, memory, slices, origin)
    trace = Trace(
        layers=layers,
        requests=_requests(moments),
        moments=_frozen(moments),
        spans=_frozen(spans),
        counters=_frozen(counters),
        operators=_frozen(operators),
        names=names,
        tracks=tracks,
        instants=_instants(slices, origin),
    )
    return Content(trace, origin)


def _sorted(slices: Slices) -> tuple[_Rows, int]:
    """Everything in reading order with times from the first slice on."""
    columns = slices.columns()
    order = in_reading_order(columns["lane"], columns["ts_ns"], columns["duration_ns"])
    for name, column in columns.items():
        columns[name] = column[order]  # one at a time: the old column is let go before the next is sorted
    names = tuple(slices.names)
    place = _places(slices)[columns["category"]]
    counted = np.flatnonzero(place != _DROPPED)
    origin = int(columns["ts_ns"][counted].min()) if len(counted) else _first_of_others(slices)
    columns["ts_ns"] -= origin
    end = columns["ts_ns"] + columns["duration_ns"]
    return _Rows(columns, end, parents(columns["lane"], columns["ts_ns"], end), place, names), origin


_DROPPED, _REGION = -2, -1


def _places(slices: Slices) -> Array:
    """Where each category ran, as an index into ``PLACES``; regions -1, what is not shown -2."""
    found = []
    for category in slices.categories:
        if category in _NOT_SHOWN or category in ("cpu_instant_event", _MEMORY):
            found.append(_DROPPED)
        elif category in _REGIONS:
            found.append(_REGION)
        elif category == "kernel":
            found.append(PLACES.index("kernel"))
        elif category.startswith("gpu_mem"):
            found.append(PLACES.index("copy"))
        elif category.endswith(("_runtime", "_driver", "_sync")) or category == "overhead":
            found.append(PLACES.index("runtime"))
        elif category == "python_function":
            found.append(PLACES.index("python"))
        else:
            found.append(PLACES.index("cpu"))
    return np.array([*found, _DROPPED])


def _where(names: Sequence[str], test: Any) -> Array:
    return np.array([*(bool(test(name)) for name in names), False])


def _moments(rows: _Rows, origin: int, *, ours: bool) -> tuple[dict[str, Array], tuple[Array, Array]]:
    """One moment per step of the lane that has most of them, else one for all; also their starts and ends."""
    is_step = _where(rows.names, _STEP.fullmatch)[rows["name"]] & (rows.place == _REGION)
    steps = np.flatnonzero(is_step)
    if len(steps):
        lanes, counts = np.unique(rows["lane"][steps], return_counts=True)
        steps = steps[rows["lane"][steps] == lanes[counts.argmax()]]
        steps = steps[:-1] if ours else steps
        starts, ends = rows["ts_ns"][steps], rows.end[steps]
        ends = np.minimum(ends, np.append(starts[1:], ends[-1:]))
        kinds, numbers = _kinds(rows, steps)
    else:
        told = np.flatnonzero(rows.place != _DROPPED)
        starts, ends = np.zeros(min(1, len(told)), np.int64), rows.end[told].max(initial=0, keepdims=True)[: min(1, len(told))]
        kinds, numbers = [KINDS.index("forward")] * len(starts), [0] * len(starts)
    moments = _empty(MOMENT_COLUMNS, len(starts))
    moments["request"][:] = 0
    moments["kind"][:] = kinds
    moments["step"][:] = numbers
    moments["tags"][:] = 0
    moments["start_ns"][:] = starts
    moments["duration_ns"][:] = ends - starts
    moments["paused_ns"][:] = 0
    return moments, (starts, ends)


def _kinds(rows: _Rows, steps: Array) -> tuple[list[int], list[int]]:
    """Kind and number of each step; Tickscope's own traces say the kind in the slice right in the step."""
    kinds, numbers = [], []
    for position, step in enumerate(steps.tolist()):
        following = step + 1
        inside = following < len(rows.parent) and rows.parent[following] == step
        kind, _, number = rows.names[rows["name"][following]].rpartition(" ") if inside else ("", "", "")
        known = kind in KINDS and number.isdigit()
        kinds.append(KINDS.index(kind if known else "forward"))
        numbers.append(int(number) if known else position)
    return kinds, numbers


def _moment_of(rows: _Rows, edges: tuple[Array, Array]) -> Array:
    """The moment in which each slice begins, -1 for none."""
    starts, ends = edges
    if not len(starts):
        return np.full(len(rows.end), NOT_MEASURED, np.int32)
    found = np.searchsorted(starts, rows["ts_ns"], side="right") - 1
    inside = (found >= 0) & (rows["ts_ns"] < np.maximum(ends, starts + 1)[found])
    return np.where(inside, found, NOT_MEASURED).astype(np.int32)


def _layers(rows: _Rows, slices: Slices, moment: Array) -> tuple[tuple[Layer, ...], Array, dict[str, Array]]:
    """The layers, the innermost layer around each slice, and the layers' spans in moments."""
    is_module = _where(rows.names, lambda name: name.startswith(modules.MODULE))[rows["name"]] & (
        rows.place == PLACES.index("python")
    )
    named = rows["details"] >= 0
    region = (rows.place == _REGION) & ~_where(rows.names, _STEP.fullmatch)[rows["name"]]
    marked = named & region if named.any() else is_module | region
    if len(np.unique(rows["name"][marked & region])) > _MOST_REGIONS:
        slices.miss("differently named regions, which are no layers", int((marked & region & ~named).sum()))
        marked = named | is_module
    calls = np.flatnonzero(marked)
    if not len(calls):
        return (), np.full(len(marked), NOT_MEASURED, np.int32), _empty(SPAN_COLUMNS, 0)
    inner = nearest(marked, rows.parent)
    position = np.full(len(marked) + 1, NOT_MEASURED, np.int64)
    position[calls] = np.arange(len(calls))
    outer = np.where(rows.parent[calls] >= 0, inner[rows.parent[calls]], -1)
    above = np.where(outer >= 0, position[outer], -1)
    details: list[tuple[str, str] | None] = [None] * len(rows.names)
    texts = tuple(slices.details)
    codes, first = np.unique(rows["name"][calls], return_index=True)
    for code, call in zip(codes.tolist(), first.tolist(), strict=True):
        number = int(rows["details"][calls[call]])
        details[code] = texts[number] if number >= 0 else None
    layers, row_of_call = modules.build(rows["name"][calls], above, rows.names, details)
    layer = np.full(len(marked) + 1, NOT_MEASURED, np.int32)
    layer[calls] = row_of_call
    around = np.where(inner >= 0, layer[inner], NOT_MEASURED)
    start, end = rows["ts_ns"][calls], rows.end[calls]
    kept = np.flatnonzero(moment[calls] >= 0)
    slices.miss("layer calls outside of all steps", len(calls) - len(kept))
    kept = kept[np.lexsort((start[kept], moment[calls][kept]))]
    spans = _empty(SPAN_COLUMNS, len(kept))
    spans["moment"][:] = moment[calls][kept]
    spans["layer"][:] = row_of_call[kept]
    spans["start_ns"][:] = start[kept]
    spans["duration_ns"][:] = (end - start)[kept]
    spans["self_ns"][:] = self_times(start, end, above)[kept]
    return layers, around, spans


def _follow_launches(rows: _Rows, moment: Array, layer: Array) -> None:
    """Kernels and copies run later than they were launched: they belong to the moment and layer of their launch."""
    joined = rows["correlation"] > 0
    device = np.flatnonzero(joined & ((rows.place == PLACES.index("kernel")) | (rows.place == PLACES.index("copy"))))
    launches = np.flatnonzero(joined & (rows.place == PLACES.index("runtime")))
    if not len(device) or not len(launches):
        return
    launches = launches[np.argsort(rows["correlation"][launches], kind="stable")]
    keys = rows["correlation"][launches]
    at = np.minimum(np.searchsorted(keys, rows["correlation"][device]), len(keys) - 1)
    same = keys[at] == rows["correlation"][device]
    moment[device[same]] = moment[launches[at[same]]]
    layer[device[same]] = layer[launches[at[same]]]


def _operators(
    rows: _Rows, slices: Slices, moment: Array, layer: Array, own: Array, memory: Array
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Every operator in reading order of its lane, and the texts that they point to."""
    texts = slices.names  # shapes go behind the names
    shape_numbers = np.array([*(texts[_shape_text(shape)] for shape in slices.shapes), NOT_MEASURED], np.int64)
    chosen = np.flatnonzero(rows.place >= 0)
    found = {name: np.full(0, NOT_MEASURED, dtype) for name, dtype in OPERATOR_COLUMNS.items()}
    found["moment"] = moment[chosen]
    found["layer"] = layer[chosen]
    found["name"] = rows["name"][chosen]
    found["shapes"] = shape_numbers[rows["shapes"][chosen]].astype(np.int32)
    found["place"] = rows.place[chosen].astype(np.int8)
    found["lane"] = _lanes(slices)[rows["lane"][chosen]]
    found["start_ns"] = rows["ts_ns"][chosen]
    found["duration_ns"] = rows["duration_ns"][chosen]
    found["self_ns"] = own[chosen]
    for name in ("flops", "bytes", "correlation"):
        found[name] = rows[name][chosen]
    found["allocated_bytes"] = _allocated(rows, memory)[chosen]
    return found, tuple(texts)


def _shape_text(shape: bytes) -> str:
    return shape.decode("utf-8", "replace")


def _lanes(slices: Slices) -> Array:
    """The thread or stream number of each lane, or a made-up one where that is no number."""
    found: list[int] = []
    for number, (_, tid) in enumerate(slices.lanes):
        whole = isinstance(tid, int) and 0 <= tid < 2**31
        found.append(tid if whole else number + 1)
    return np.array([*found, 0], np.int32)


def _allocated(rows: _Rows, memory: Array) -> Array:
    """Net memory that each slice itself took, at least 0; -1 everywhere in a trace without allocations."""
    events = np.flatnonzero(memory & (rows.parent >= 0))
    if not len(events):
        return np.full(len(memory), NOT_MEASURED, np.int64)
    net = np.bincount(rows.parent[events], weights=rows["allocated"][events], minlength=len(memory))
    return np.maximum(net, 0).astype(np.int64)


def _counters(rows: _Rows, memory: Array, slices: Slices, origin: int) -> tuple[dict[str, Array], tuple[Track, ...]]:
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
    counters = _empty(COUNTER_COLUMNS, sum(len(times) for _, times, _ in parts))
    if parts:
        counters["track"] = np.concatenate([np.full(len(times), number, np.int16) for number, times, _ in parts])
        counters["time_ns"] = np.concatenate([times for _, times, _ in parts])
        counters["value"] = np.concatenate([values for _, _, values in parts])
        order = np.argsort(counters["time_ns"], kind="stable")
        counters = {name: column[order] for name, column in counters.items()}
    return counters, tuple(Track(name, unit) for name, unit in tracks.items())


_UNITS = {"bytes", "percent", "hertz", "ns", "per_second", "watt", "joule", "celsius", "count"}
_MOST_TRACKS = 1000


def _add_counter(
    event: Mapping[str, Any], samples: dict[str, tuple[str, list[int], list[float]]], origin: int, slices: Slices
) -> None:
    time_ns = _time_ns(event, origin)
    values = event.get("args")
    if time_ns is None or not isinstance(values, dict):
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
        times.append(time_ns)
        found.append(float(value))


def _instants(slices: Slices, origin: int) -> tuple[Instant, ...]:
    found: list[Instant] = []
    for event in slices.others:
        if event.get("ph") in ("i", "I"):
            time_ns = _time_ns(event, origin)
            if time_ns is None or len(found) >= _MOST_INSTANTS:
                slices.miss("instants without a usable time, or too many")
            else:
                found.append(Instant(str(event.get("cat") or "trace"), max(0, time_ns), str(event.get("name", ""))))
    return tuple(found)


def _time_ns(event: Mapping[str, Any], origin: int) -> int | None:
    stamp = event.get("ts")
    if isinstance(stamp, bool) or not isinstance(stamp, (int, float)) or not abs(stamp) < 9e15:
        return None
    whole = math.floor(stamp)
    return whole * 1000 + round((stamp - whole) * 1000) - origin


def _first_of_others(slices: Slices) -> int:
    return min((time for time in (_time_ns(event, 0) for event in slices.others) if time is not None), default=0)


def _requests(moments: Mapping[str, Array]) -> dict[str, Array]:
    """All moments belong to one request."""
    found = _empty(REQUEST_COLUMNS, min(1, len(moments["kind"])))
    if len(moments["kind"]):
        found["tags"][0] = moments["tags"][0]
        found["start_ns"][0] = moments["start_ns"][0]
        found["end_ns"][0] = (moments["start_ns"] + moments["duration_ns"]).max()
        found["input_tokens"][0] = found["output_tokens"][0] = 0
    return _frozen(found)


def _empty(dtypes: Mapping[str, str], count: int) -> dict[str, Array]:
    return {name: np.full(count, NOT_MEASURED, dtype) for name, dtype in dtypes.items()}


def _frozen(columns: dict[str, Array]) -> dict[str, Array]:
    for column in columns.values():
        column.flags.writeable = False
    return columns
