"""The events of a trace that last, as columns, and the few others as they are."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from core.imports.decoding import INT_MAX, Arguments, Event, as_identity, as_number, as_they_are, event_from
from profilers.trace import NOT_MEASURED, Array

COLUMNS = {
    "ts_ns": "i8",
    "duration_ns": "i8",
    "category": "i4",
    "name": "i4",
    "lane": "i4",
    "shapes": "i4",
    "correlation": "i8",
    "stream": "i8",
    "bytes": "i8",
    "flops": "i8",
    "allocated": "i8",
    "total_allocated": "i8",
    "device_type": "i4",
    "details": "i4",
}
_MISSING = {"allocated": 0, "device_type": 0}


class Words(dict[Any, int]):
    """Numbers things in the order of their first appearance."""

    def __missing__(self, word: Any) -> int:
        number = self[word] = len(self)
        return number

    def numbers(self, words: Sequence[Any]) -> Array:
        """The number of each."""
        return np.fromiter(map(self.__getitem__, words), np.int32, len(words))


class Slices:
    """All events with a duration, and allocations, as columns of ``COLUMNS``; the few others as they are.

    ``left_out`` counts by reason what could not be used.
    """

    def __init__(self) -> None:
        self.names, self.categories, self.lanes = Words(), Words(), Words()
        self.shapes, self.details = Words(), Words()
        self.others: list[dict[str, Any]] = []
        self.left_out: dict[str, int] = {}
        self.events = 0
        self._count = 0
        self._parts: dict[str, list[tuple[int, Array]]] = {name: [] for name in COLUMNS}

    def columns(self) -> dict[str, Array]:
        """Everything so far as whole columns; the parts are given up."""
        found = {}
        for name, dtype in COLUMNS.items():
            column = found[name] = np.full(self._count, _MISSING.get(name, NOT_MEASURED), dtype)
            for first, part in self._parts.pop(name):
                column[first : first + len(part)] = part
        return found

    def miss(self, why: str, count: int = 1) -> None:
        """Note that events were left out."""
        if count:
            self.left_out[why] = self.left_out.get(why, 0) + count

    def add(self, events: list[Event], text: bytes | None = None) -> None:
        """Append decoded events; ``text`` is their JSON, for those that do not fit ``Event``."""
        self.events += len(events)
        slices = events
        phases = [event.ph for event in events]
        if phases.count("X") != len(events):
            slices = [event for event in events if event.ph == "X"]
            slices += [event for event in events if event.name == "[memory]" and event.ph == "i"]
            if text is not None:
                self._keep_others(events, text)
        if slices:
            self._add_slices(slices)

    def _add_slices(self, slices: list[Event]) -> None:
        # one pass in C for all fields: a list comprehension for each took twice as long
        starts, lengths, names, categories, pids, tids, arguments = zip(*map(_FIELDS, slices), strict=True)
        times, durations = np.array(starts), np.array(lengths)
        usable = np.abs(times) < INT_MAX / 1000
        if not usable.all():
            self.miss("events without a usable time", int((~usable).sum()))
            slices = [event for event, keep in zip(slices, usable.tolist(), strict=True) if keep]
            if slices:
                self._add_slices(slices)
            return
        with np.errstate(invalid="ignore"):
            short = ~((durations >= 0) & (durations < INT_MAX / 1000))
        if short.any():
            told = sum(event.ph == "X" for event, is_short in zip(slices, short.tolist(), strict=True) if is_short)
            self.miss("events without a usable duration, taken as 0", told)
            durations[short] = 0
        part = {
            "ts_ns": _nanoseconds(times),
            "duration_ns": _nanoseconds(durations),
            "name": self.names.numbers(names),
            "category": self.categories.numbers(
                categories if all(categories) else [cat or name for cat, name in zip(categories, names, strict=True)]
            ),
            "lane": self._lanes(pids, tids),
        }
        for name, column in part.items():
            self._parts[name].append((self._count, column))
        self._add_arguments(arguments)
        self._count += len(slices)

    def _lanes(self, pids: Sequence[int | str], tids: Sequence[int | str]) -> Array:
        if len(set(pids)) == 1 and len(set(tids)) == 1:  # most pieces are of one thread
            return np.full(len(pids), self.lanes[pids[0], tids[0]], np.int32)
        return self.lanes.numbers(list(zip(pids, tids, strict=True)))

    def _add_arguments(self, arguments: Sequence[Arguments | None]) -> None:
        """Columns from ``args``, of those events only that have something to tell (most of a plain trace have not)."""
        told = [(row, one) for row, one in enumerate(arguments) if one is not None and one != _NOTHING]
        if not told:
            return
        rows = np.array([row for row, _ in told])
        numbers = np.array([_NUMBERS(one) for _, one in told], np.int64)
        for column, key in enumerate(_NUMBER_NAMES):
            self._scatter(key, rows, numbers[:, column], len(arguments))
        dims = [bytes(one.input_dims) for _, one in told]
        shapes = [self.shapes[text] if text else NOT_MEASURED for text in dims]
        self._scatter("shapes", rows, np.array(shapes, np.int32), len(arguments))
        details = [self.details[one.type, one.stage] if one.stage else NOT_MEASURED for _, one in told]
        self._scatter("details", rows, np.array(details, np.int32), len(arguments))

    def _scatter(self, name: str, rows: Array, values: Array, count: int) -> None:
        missing = _MISSING.get(name, NOT_MEASURED)
        if (values == missing).all():
            return
        column = np.full(count, missing, COLUMNS[name])
        column[rows] = values
        self._parts[name].append((self._count, column))

    def pair(self) -> None:
        """Slices from events that say begin (``B``) and end (``E``) apart; one without the other is counted."""
        open_slices: dict[tuple[Any, Any], list[dict[str, Any]]] = {}
        found = []
        for one in self.others:
            lane = (as_identity(one.get("pid")), as_identity(one.get("tid")))
            if one.get("ph") == "B":
                open_slices.setdefault(lane, []).append(one)
            elif one.get("ph") == "E":
                began = open_slices.get(lane)
                if not began:
                    self.miss("ends without a begin")
                    continue
                first = began.pop()
                length = as_number(one.get("ts")) - as_number(first.get("ts"))
                found.append(event_from({**first, "ph": "X", "dur": length}))
        self.miss("begins without an end", sum(map(len, open_slices.values())))
        if found:
            already = self.events
            self.add(found)
            self.events = already

    def _keep_others(self, events: list[Event], text: bytes) -> None:
        """Counters, instants and pairs of begin and end are few and of any shape: decoded once more, as they are."""
        rare = ("C", "B", "E", "I")
        if any(event.ph in rare or (event.ph == "i" and event.name != "[memory]") for event in events):
            for one in as_they_are(text):
                phase = one.get("ph")
                if phase in rare or (phase == "i" and one.get("name") != "[memory]"):
                    self.others.append(one)


_FIELDS = attrgetter("ts", "dur", "name", "cat", "pid", "tid", "args")
_NOTHING = Arguments()
_NUMBER_NAMES = ("correlation", "stream", "bytes", "flops", "allocated", "total_allocated", "device_type")
_NUMBERS = attrgetter(*_NUMBER_NAMES)


def _nanoseconds(microseconds: Array) -> Array:
    """Whole nanoseconds. Split before scaling: at 4e12 µs (Kineto's) a product would be off by one every now and then."""
    whole = np.floor(microseconds)
    return whole.astype(np.int64) * 1000 + np.rint((microseconds - whole) * 1000).astype(np.int64)
