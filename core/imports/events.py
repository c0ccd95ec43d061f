"""Decodes the events of a Chrome trace into columns: fast where they are as they should be, one by one where they are not."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from core.imports.text import TraceText
from profilers.trace import NOT_MEASURED, Array

MOST_REST = 4 << 20
"""An event whose end is not found in so many bytes is damaged."""

_INT_MAX = 2**63 - 1


class Arguments(msgspec.Struct, gc=False):
    """What an event's ``args`` may hold that has a column here; the rest is not read."""

    correlation: int = NOT_MEASURED
    stream: int = NOT_MEASURED
    bytes: int = NOT_MEASURED
    flops: int = NOT_MEASURED
    input_dims: msgspec.Raw = msgspec.field(name="Input Dims", default=msgspec.Raw())  # "or None" would admit null alone
    allocated: int = msgspec.field(name="Bytes", default=0)
    total_allocated: int = msgspec.field(name="Total Allocated", default=NOT_MEASURED)
    device_type: int = msgspec.field(name="Device Type", default=0)
    stage: str = ""
    type: str = ""


class Event(msgspec.Struct, gc=False):
    """One event; a missing time is NaN."""

    ph: str = "X"
    cat: str = ""
    name: str = ""
    pid: int | str = 0
    tid: int | str = 0
    ts: float = math.nan
    dur: float = math.nan
    args: Arguments | None = None


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
        usable = np.abs(times) < _INT_MAX / 1000
        if not usable.all():
            self.miss("events without a usable time", int((~usable).sum()))
            slices = [event for event, keep in zip(slices, usable.tolist(), strict=True) if keep]
            if slices:
                self._add_slices(slices)
            return
        with np.errstate(invalid="ignore"):
            short = ~((durations >= 0) & (durations < _INT_MAX / 1000))
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
            lane = (_identity(one.get("pid")), _identity(one.get("tid")))
            if one.get("ph") == "B":
                open_slices.setdefault(lane, []).append(one)
            elif one.get("ph") == "E":
                began = open_slices.get(lane)
                if not began:
                    self.miss("ends without a begin")
                    continue
                first = began.pop()
                length = _number(one.get("ts")) - _number(first.get("ts"))
                found.append(_event({**first, "ph": "X", "dur": length}))
        self.miss("begins without an end", sum(map(len, open_slices.values())))
        if found:
            already = self.events
            self.add(found)
            self.events = already

    def _keep_others(self, events: list[Event], text: bytes) -> None:
        """Counters, instants and pairs of begin and end are few and of any shape: decoded once more, as they are."""
        rare = ("C", "B", "E", "I")
        if any(event.ph in rare or (event.ph == "i" and event.name != "[memory]") for event in events):
            for one in _as_they_are(text):
                phase = one.get("ph")
                if phase in rare or (phase == "i" and one.get("name") != "[memory]"):
                    self.others.append(one)


def read_events(text: TraceText) -> Slices:
    """All events of a trace. What is damaged is passed over and counted; a file that ends early gives what is whole.

    Raises:
        Refusal: from ``text``.
    """
    slices = Slices()
    decoder = msgspec.json.Decoder(list[Event])
    least = None
    while True:
        piece = text.take(least) if least else text.take()
        least = None
        if not piece.strip():
            if text.at_end():
                break
            continue
        whole = b"[%b]" % piece
        try:
            slices.add(decoder.decode(whole), piece)
            continue
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            pass  # something in it is damaged or unusual: below it is taken event by event, and what is lost is counted
        rest, closed = _one_by_one(piece, slices, last=text.at_end())
        if closed:
            return slices
        if rest:
            text.give_back(rest)
            least = 2 * len(rest) + 4096
    if text.problem is None and (text.header or slices.events):
        text.problem = "the list of events is not closed"
    return slices


_FIELDS = attrgetter("ts", "dur", "name", "cat", "pid", "tid", "args")
_NOTHING = Arguments()
_NUMBER_NAMES = ("correlation", "stream", "bytes", "flops", "allocated", "total_allocated", "device_type")
_NUMBERS = attrgetter(*_NUMBER_NAMES)
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}]|"', re.DOTALL)
_NEXT = re.compile(rb"\}\s*,\s*(?=\{)")
_GAP = re.compile(rb"[\s,]*")
_LENIENT = json.JSONDecoder(strict=False)


def _nanoseconds(microseconds: Array) -> Array:
    """Whole nanoseconds. Split before scaling: at 4e12 µs (Kineto's) a product would be off by one every now and then."""
    whole = np.floor(microseconds)
    return whole.astype(np.int64) * 1000 + np.rint((microseconds - whole) * 1000).astype(np.int64)


def _as_they_are(text: bytes) -> Iterable[dict[str, Any]]:
    try:
        found = msgspec.json.decode(b"[%b]" % text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        found = _LENIENT.decode(f"[{text.decode('utf-8', 'replace')}]")  # each was decoded so before
    return [one for one in found if isinstance(one, dict)]


def _one_by_one(piece: bytes, slices: Slices, *, last: bool) -> tuple[bytes, bool]:
    """Take the events of a piece that does not decode as a whole; returns what is left of it, and whether the list ended."""
    at = 0
    found: list[tuple[Event, bytes]] = []
    closed = False
    rest = b""
    while True:
        at = _GAP.match(piece, at).end()  # type: ignore[union-attr]
        if at >= len(piece):
            break
        if piece[at : at + 1] == b"]":
            closed = True
            break
        end = _end_of_object(piece, at)
        if end is None:
            if not last and len(piece) - at < MOST_REST:
                rest = piece[at:]
                break
            beyond = _NEXT.search(piece, at + 1)
            slices.miss("events that are cut off")
            if beyond is None:
                break
            at = beyond.end()
            continue
        event = _lenient(piece[at:end])
        if event is None:
            slices.miss("damaged events")
        else:
            found.append((event, piece[at:end]))
        at = end
    slices.add([event for event, _ in found], b",".join(text for _, text in found))
    return rest, closed


def _end_of_object(text: bytes, at: int) -> int | None:
    """Where the object (or stray value) that begins at ``at`` ends; None if it does not."""
    if text[at : at + 1] != b"{":
        following = re.compile(rb"[,\]{]").search(text, at + 1)
        return following.start() if following else len(text)
    depth = 0
    for token in _TOKEN.finditer(text, at):
        mark = token[0]
        if mark == b"{":
            depth += 1
        elif mark == b"}":
            depth -= 1
            if depth == 0:
                return token.end()
        elif mark == b'"':
            return None
    return None


def _lenient(text: bytes) -> Event | None:
    """An event as far as it can be understood: NaN, control characters and values of wrong types are passed over."""
    try:
        found = _LENIENT.decode(text.decode("utf-8", "replace"))
    except (json.JSONDecodeError, RecursionError):
        return None
    return _event(found) if isinstance(found, dict) and "ph" in found else None


def _event(found: dict[str, Any]) -> Event:
    arguments = found.get("args")
    arguments = arguments if isinstance(arguments, dict) else {}
    dims = arguments.get("Input Dims")
    return Event(
        ph=str(found["ph"]),
        cat=_text(found.get("cat")),
        name=_text(found.get("name")),
        pid=_identity(found.get("pid")),
        tid=_identity(found.get("tid")),
        ts=_number(found.get("ts")),
        dur=_number(found.get("dur")),
        args=Arguments(
            correlation=_whole(arguments.get("correlation"), NOT_MEASURED),
            stream=_whole(arguments.get("stream"), NOT_MEASURED),
            bytes=_whole(arguments.get("bytes"), NOT_MEASURED),
            flops=_whole(arguments.get("flops"), NOT_MEASURED),
            input_dims=msgspec.Raw() if dims is None else msgspec.Raw(json.dumps(dims).encode()),
            allocated=_whole(arguments.get("Bytes"), 0),
            total_allocated=_whole(arguments.get("Total Allocated"), NOT_MEASURED),
            device_type=_whole(arguments.get("Device Type"), 0),
            stage=_text(arguments.get("stage")),
            type=_text(arguments.get("type")),
        ),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _identity(value: Any) -> int | str:
    return value if isinstance(value, (int, str)) and not isinstance(value, bool) else str(value)


def _number(value: Any) -> float:
    if isinstance(value, str):  # some writers quote their numbers
        try:
            return float(value)
        except ValueError:
            return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _whole(value: Any, otherwise: int) -> int:
    number = _number(value)
    if not math.isfinite(number) or abs(number) > _INT_MAX / 2:
        return otherwise
    return int(value) if isinstance(value, int) else int(number)
