"""The events of a trace that last, as columns, and the few others as they are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from core.imports.decoding import COARSE_US, MOST_US, Arguments, Event, Stamp, event_from, exact_ns, objects, stamps_ns
from core.imports.pairs import ASYNC_INSTANTS, PAIRED, slices_of
from profilers.trace import NOT_MEASURED, Array

COLUMNS = {
    "ts_ns": "i8",
    "duration_ns": "i8",
    "category": "i4",
    "name": "i4",
    "lane": "i4",
    "shapes": "i4",
    "correlation": "i8",
    "bytes": "i8",
    "flops": "i8",
    "allocated": "i8",
    "total_allocated": "i8",
    "device_type": "i4",
    "device_id": "i4",
    "details": "i4",
}
MEMORY = "[memory]"
"""The name of an instant that tells an allocation, and the category that it gets here."""

_MISSING = {"allocated": 0, "device_type": 0}
_KEPT = frozenset((*PAIRED, *ASYNC_INSTANTS, "C", "i", "I", "R"))
_PASSED_OVER = frozenset(
    ("X", "M", "s", "t", "f")
)  # metadata, and arrows between slices, which the columns tell by correlation
_ROW_BYTES, _OTHER_BYTES, _WORD_BYTES = 320, 900, 250
"""Memory that each takes until the run is built, measured with a million of each."""


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
        self.others: list[Mapping[str, Any]] = []
        self.left_out: dict[str, int] = {}
        self.events = 0
        self._count = 0
        self._parts: dict[str, list[tuple[int, Array]]] = {name: [] for name in COLUMNS}
        self._stamps = msgspec.json.Decoder(list[Stamp])

    @property
    def needed_bytes(self) -> int:
        """About how much memory the run will have needed that is made of what was read so far."""
        words = len(self.names) + len(self.shapes) + len(self.lanes)
        return _ROW_BYTES * self._count + _OTHER_BYTES * len(self.others) + _WORD_BYTES * words

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

    def add(self, events: list[Event], text: bytes) -> None:
        """Append decoded events; ``text`` is their JSON, for what ``Event`` does not hold."""
        self.events += len(events)
        slices = events
        phases = [event.ph for event in events]
        if phases.count("X") != len(events):
            slices = [event for event in events if _lasts(event.ph, event.name)]
            if not _PASSED_OVER.issuperset(phases):
                self._keep_others(events, text)
        if slices:
            self._add_slices(slices, None, text)

    def add_fields(self, found: list[dict[str, Any]]) -> None:
        """Append events that only could be decoded by themselves."""
        self.events += len(found)
        slices = []
        for one in found:
            if _lasts(one["ph"], one.get("name")):
                slices.append(one)
            else:
                self._keep_other(one)
        if slices:
            self._add_slices([event_from(one) for one in slices], [exact_ns(one.get("ts")) for one in slices])

    def pair(self) -> None:
        """Slices from events that say begin and end apart; one without the other is counted."""
        rest = [one for one in self.others if one["ph"] not in PAIRED]
        if len(rest) == len(self.others):
            return
        found = slices_of([one for one in self.others if one["ph"] in PAIRED], self.miss)
        self.others = rest
        if found:
            events = [event_from({**fields, "dur": length / 1000}) for fields, _, length in found]
            self._add_slices(events, [start for _, start, _ in found], lengths_ns=[length for _, _, length in found])

    def _add_slices(
        self,
        slices: list[Event],
        starts_ns: Sequence[int | None] | None,
        text: bytes = b"",
        lengths_ns: Sequence[int] | None = None,
    ) -> None:
        """Append slices; their times are exact in ``starts_ns``, or in ``text`` where a float may not be."""
        # one pass in C for all fields: a list comprehension for each took twice as long
        starts, lengths, names, categories, pids, tids, arguments = zip(*map(_FIELDS, slices), strict=True)
        times, durations = np.array(starts), np.array(lengths)
        usable = np.abs(times) < MOST_US
        if not usable.all():
            self.miss("events without a usable time", int((~usable).sum()))
            keep = np.flatnonzero(usable).tolist()
            if keep:
                exact = starts_ns if starts_ns is not None else self._exact(times, text)
                self._add_slices([slices[row] for row in keep], None if exact is None else [exact[row] for row in keep])
            return
        exact = starts_ns if starts_ns is not None else self._exact(times, text)
        part = {
            "ts_ns": _nanoseconds(times) if exact is None else np.array(exact, np.int64),
            "duration_ns": self._durations(slices, durations) if lengths_ns is None else np.array(lengths_ns, np.int64),
            "name": self.names.numbers(names),
            "category": self.categories.numbers(
                categories if MEMORY not in names else [MEMORY if _allocates(one) else one.cat for one in slices]
            ),
            "lane": self._lanes(pids, tids),
        }
        for name, column in part.items():
            self._parts[name].append((self._count, column))
        self._add_arguments(arguments, memory=MEMORY in names)
        self._count += len(slices)

    def _exact(self, times: Array, text: bytes) -> list[int] | None:
        """The times of a piece's slices in ns, from its text; None where floats are exact enough."""
        if not (times >= COARSE_US).any() or _FINE_STAMP.search(text) is None:
            return None
        phases = msgspec.json.decode(b"[%b]" % text, type=list[_Lasting])
        stamps = self._stamps.decode(b"[%b]" % text)
        kept = [bytes(stamp.ts) for one, stamp in zip(phases, stamps, strict=True) if _lasts(one.ph, one.name)]
        return stamps_ns([stamp or b"0" for stamp in kept])

    def _durations(self, slices: Sequence[Event], durations: Array) -> Array:
        with np.errstate(invalid="ignore"):
            short = ~((durations >= 0) & (durations < MOST_US))
        if short.any():
            told = sum(one.ph == "X" for one, is_short in zip(slices, short.tolist(), strict=True) if is_short)
            self.miss("events without a usable duration, taken as 0", told)
            durations[short] = 0
        return _nanoseconds(durations)

    def _lanes(self, pids: Sequence[int | str], tids: Sequence[int | str]) -> Array:
        if len(set(pids)) == 1 and len(set(tids)) == 1:  # most pieces are of one thread
            return np.full(len(pids), self.lanes[pids[0], tids[0]], np.int32)
        return self.lanes.numbers(list(zip(pids, tids, strict=True)))

    def _add_arguments(self, arguments: Sequence[Arguments | None], *, memory: bool) -> None:
        """Columns from ``args``, of those events only that have something to tell (most of a plain trace have not)."""
        told = [(row, one) for row, one in enumerate(arguments) if one is not None and one != _NOTHING]
        if not told:
            return
        rows = np.array([row for row, _ in told])
        numbers = _NUMBERS + _NUMBERS_OF_MEMORY if memory else _NUMBERS
        found = np.array(list(map(attrgetter(*numbers), (one for _, one in told))), np.int64)
        for column, key in enumerate(numbers):
            self._scatter(key, rows, found[:, column], len(arguments))
        dims = [bytes(one.input_dims) or bytes(one.old_input_dims) for _, one in told]
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

    def _keep_others(self, events: list[Event], text: bytes) -> None:
        """What does not last is little and of any shape: decoded once more, as it is."""
        if any(event.ph not in _PASSED_OVER and not _lasts(event.ph, event.name) for event in events):
            for one in objects(text):
                if not _lasts(one.get("ph", "X"), one.get("name")):
                    self._keep_other(one)

    def _keep_other(self, one: dict[str, Any]) -> None:
        phase = one["ph"]
        if isinstance(phase, str) and phase in _KEPT:
            self.others.append(one)
        elif phase not in ("M", "s", "t", "f"):
            self.miss("events of kinds that are not shown")


def _lasts(phase: object, name: object) -> bool:
    return phase == "X" or (phase == "i" and name == MEMORY)


def _allocates(event: Event) -> bool:
    """Whether it tells an allocation; torch's exporter in Python writes it as if it lasted until the end."""
    return event.name == MEMORY and (event.ph == "i" or event.cat == "cpu_instant_event")


class _Lasting(msgspec.Struct, gc=False):
    ph: str = "X"
    name: str = ""


_FIELDS = attrgetter("ts", "dur", "name", "cat", "pid", "tid", "args")
_FINE_STAMP = re.compile(rb'"ts"\s*:\s*\d{13,}\.\d')
_NOTHING = Arguments()
_NUMBERS = ("correlation", "bytes", "flops")
_NUMBERS_OF_MEMORY = ("allocated", "total_allocated", "device_type", "device_id")


def _nanoseconds(microseconds: Array) -> Array:
    """Whole nanoseconds. Split before scaling: at 4e12 µs (Kineto's) a product would be off by one every now and then."""
    whole = np.floor(microseconds)
    return whole.astype(np.int64) * 1000 + np.rint((microseconds - whole) * 1000).astype(np.int64)
