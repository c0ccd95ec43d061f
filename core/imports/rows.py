"""The slices of an imported trace in reading order, with what each of them is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.imports.decoding import time_ns
from core.imports.nesting import in_reading_order, parents
from core.imports.places import DROPPED, is_on_device, places_of
from core.imports.slices import MEMORY, Slices, Words
from profilers.trace import NOT_MEASURED, Array

STRAY_NS = 3600 * 10**9
"""Events so far from nearly all others have a wrong time: 0, or that of a device whose clock is another."""

_MOST_STRAY_SHARE = 0.4


@dataclass
class Rows:
    """The slices in reading order: their columns, which slice each lies in, and what each is."""

    columns: dict[str, Array]
    end: Array
    parent: Array
    place: Array  # index into PLACES, -1: no operator
    process: Array  # index into processes
    memory: Array  # whether it is an allocation
    names: tuple[str, ...]
    processes: tuple[int | str, ...]

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    @property
    def on_device(self) -> Array:
        """Which are kernels or copies."""
        return is_on_device(self.place)


def sorted_rows(slices: Slices) -> tuple[Rows, int]:
    """Everything in reading order with times from the first slice on. What has a wrong time is left out."""
    columns = slices.columns()
    place = places_of(slices, columns)
    kept = _in_time(slices, columns["ts_ns"], place)
    if kept is not None:
        columns, place = {name: column[kept] for name, column in columns.items()}, place[kept]
    columns["duration_ns"][place == DROPPED] = 0  # what is not shown has nothing in it
    order = in_reading_order(columns["lane"], columns["ts_ns"], columns["duration_ns"])
    for name, column in columns.items():
        columns[name] = column[order]  # one at a time: the old column is let go before the next is sorted
    place = place[order]
    counted = np.flatnonzero(place != DROPPED)
    origin = int(columns["ts_ns"][counted].min()) if len(counted) else _first_of_others(slices)
    columns["ts_ns"] -= origin
    end = columns["ts_ns"] + columns["duration_ns"]
    parent = parents(columns["lane"], columns["ts_ns"], end)
    flat = is_on_device(place)
    parent[flat] = -1  # kernels of one stream that overlap do not call each other
    slices.miss("kernels and copies that overlap others of their stream, each counted whole", _overlapping(columns, end, flat))
    processes = Words()
    of_lane = processes.numbers([pid for pid, _ in slices.lanes] or [0])
    memory = columns["category"] == slices.categories.get(MEMORY, -2)
    return (
        Rows(columns, end, parent, place, of_lane[columns["lane"]], memory, tuple(slices.names), tuple(processes)),
        origin,
    )


def _in_time(slices: Slices, times: Array, place: Array) -> Array | None:
    """Which slices lie together in time with nearly all others, None for all; of the other events likewise."""
    counted = times[place != DROPPED]
    if not len(counted) or int(counted.max()) - int(counted.min()) <= STRAY_NS:
        return None
    ordered = np.sort(counted)
    first = np.flatnonzero(np.append(True, np.diff(ordered) > STRAY_NS))
    sizes = np.diff(np.append(first, len(ordered)))
    most = int(sizes.argmax())
    if sizes[most] < (1 - _MOST_STRAY_SHARE) * len(ordered):
        return None
    begin, end = int(ordered[first[most]]), int(ordered[first[most] + sizes[most] - 1])
    kept: Array = (times >= begin - STRAY_NS) & (times <= end + STRAY_NS)
    others = [one for one in slices.others if begin - STRAY_NS <= (time_ns(one, 0) or 0) <= end + STRAY_NS]
    lost = int((~kept & (place != DROPPED)).sum()) + len(slices.others) - len(others)
    slices.miss("events more than an hour away from nearly all others, whose time cannot be right", lost)
    slices.others = others
    return kept


def _overlapping(columns: Mapping[str, Array], end: Array, flat: Array) -> int:
    """How many slices of streams begin before one of the same stream has ended, by more than the clock's rounding."""
    rows = np.flatnonzero(flat)
    if len(rows) < 2:
        return 0
    lane, start = columns["lane"][rows], columns["ts_ns"][rows]
    span = int(end[rows].max()) - int(start.min()) + 1
    if int(lane.max()) * span >= 2**62:
        return 0
    apart = lane.astype(np.int64) * span  # so that no end of one lane reaches into the next
    latest = np.maximum.accumulate(end[rows] + apart)
    return int((start[1:] + apart[1:] + 1000 < latest[:-1]).sum())


def _first_of_others(slices: Slices) -> int:
    return min((time for time in (time_ns(event, 0) for event in slices.others) if time is not None), default=0)


def where(names: Sequence[str], test: Callable[[str], object]) -> Array:
    """Of which numbers of names the test holds; index -1 is False."""
    return np.array([*(bool(test(name)) for name in names), False])


def empty(dtypes: Mapping[str, str], count: int) -> dict[str, Array]:
    """Columns in which nothing is measured yet."""
    return {name: np.full(count, NOT_MEASURED, dtype) for name, dtype in dtypes.items()}


def frozen(columns: dict[str, Array]) -> dict[str, Array]:
    """The same, no longer to be written to."""
    for column in columns.values():
        column.flags.writeable = False
    return columns
