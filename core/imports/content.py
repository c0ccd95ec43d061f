"""From the slices of an imported trace to the columns of a run: moments, layers, operators, counters and instants."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from core.imports.calls import layers_of
from core.imports.counters import counters_of, instants_of
from core.imports.decoding import decoded
from core.imports.launches import follow_launches
from core.imports.nesting import parents, self_times
from core.imports.places import REGION
from core.imports.rows import Rows, frozen, sorted_rows
from core.imports.slices import Slices
from core.imports.steps import moment_of, moments_of, requests_of
from profilers.trace import NOT_MEASURED, OPERATOR_COLUMNS, Array, Tag, Trace


@dataclass(frozen=True)
class Content:
    """A run's columns, the time of its first event as the trace counts, and the processes that its requests stand for."""

    trace: Trace
    origin_ns: int
    processes: tuple[int | str, ...]  # whose steps each request holds; empty where one request holds everything


def read_content(slices: Slices, *, ours: bool) -> Content:
    """Build the columns; ``slices`` is used up. ``ours``: Tickscope wrote the trace, and its last step only closes it."""
    slices.pair()
    rows, origin = sorted_rows(slices)
    moments, steps = moments_of(rows, slices, ours=ours)
    moment = moment_of(rows, steps)
    layers, layer, spans = layers_of(rows, slices, moment)
    own = _own_times(rows)
    follow_launches(rows, steps, moment, layer, slices)
    operators, names = _operators(rows, slices, moment, layer, own)
    if len(spans["moment"]):
        moments["tags"] |= int(Tag.TRACED)
    counters, tracks = counters_of(rows, slices, origin)
    trace = Trace(
        layers=layers,
        requests=requests_of(moments),
        moments=frozen(moments),
        spans=frozen(spans),
        counters=frozen(counters),
        operators=frozen(operators),
        names=names,
        tracks=tracks,
        instants=instants_of(slices, origin),
    )
    processes = tuple(rows.processes[one] for one in steps) if len(steps) > 1 else ()
    return Content(trace, origin, processes)


def _own_times(rows: Rows) -> Array:
    """Each operator's time without the operators called inside.

    A region begins inside the Python call that opens it and outlasts that call. If it were taken as called there, functions
    around both would keep the whole of the region as their own time.
    """
    start, end, parent = rows["ts_ns"], rows.end, rows.parent
    own = self_times(start, end, parent)
    operators = np.flatnonzero(rows.place >= 0)
    above = rows.place[parent]  # of rows without a parent that of the last one, which does no harm
    if ((rows.place == REGION) & (parent >= 0) & (above >= 0)).any():
        inside = parents(rows["lane"][operators], start[operators], end[operators])
        inside[rows.on_device[operators]] = -1
        own[operators] = self_times(start[operators], end[operators], inside)
    return own


def _operators(rows: Rows, slices: Slices, moment: Array, layer: Array, own: Array) -> tuple[dict[str, Array], tuple[str, ...]]:
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
    found["allocated_bytes"] = _allocated(rows)[chosen]
    return found, tuple(texts)


def _shape_text(shape: bytes) -> str:
    """The shapes on one line, spaced as Kineto does, however the file spaces them: what is the same has to read the same."""
    try:
        return json.dumps(decoded(shape), default=float)
    except ValueError:
        return " ".join(shape.decode("utf-8", "replace").split())


_NUMBER = re.compile(r"\d{1,9}")
_APART = 10_000_000
"""What is added to a thread's or stream's number where another process or device has the same."""


def _lanes(slices: Slices) -> Array:
    """The thread or stream number of each lane, or a made-up one where that is no number or another lane has it."""
    found: list[int] = []
    taken: set[int] = set()
    times: Counter[int] = Counter()
    for number, (_, tid) in enumerate(slices.lanes):
        said = _NUMBER.search(tid) if isinstance(tid, str) else None  # "stream 7", "4711 (python)"
        free = tid if isinstance(tid, int) else int(said[0]) if said else number + 1
        free = free if 0 <= free < 2**31 else number + 1
        alike = free
        while free in taken:
            times[alike] += 1
            free = (alike + _APART * times[alike]) % 2**31
        taken.add(free)
        found.append(free)
    return np.array([*found, 0], np.int32)


def _allocated(rows: Rows) -> Array:
    """Net memory that each slice itself took, at least 0; -1 everywhere in a trace without allocations."""
    events = np.flatnonzero(rows.memory & (rows.parent >= 0))
    if not len(events):
        return np.full(len(rows.end), NOT_MEASURED, np.int64)
    net = np.bincount(rows.parent[events], weights=rows["allocated"][events], minlength=len(rows.end))
    return np.maximum(net, 0).astype(np.int64)
