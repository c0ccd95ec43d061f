"""The link between the window's half and a worker's half in another process: frames over two pipes, never pickle.

A frame is its length (4 bytes), its kind (1 byte) and a payload. Rows are msgpack of raw columns, whose types both sides know
from ``profilers.trace``; everything else is JSON. The other side may be running a stranger's code: whatever it sends is held
against what may come, and a frame that makes no sense ends the link.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import IO, Any

import msgspec
import numpy as np

from core.records.deltas import Delta, Written
from profilers.trace import (
    COUNTER_COLUMNS,
    MOMENT_COLUMNS,
    OPERATOR_COLUMNS,
    REQUEST_COLUMNS,
    SPAN_COLUMNS,
    Instant,
    Layer,
    Output,
    Track,
)

MESSAGE, ROWS = 1, 2
MOST_BYTES = 512 * 2**20
"""Of one frame. A second of a large model's rows is about half a megabyte."""

_HEAD = struct.Struct(">IB")
_TABLES: Mapping[str, Mapping[str, str]] = {
    "requests": REQUEST_COLUMNS,
    "moments": MOMENT_COLUMNS,
    "spans": SPAN_COLUMNS,
    "operators": OPERATOR_COLUMNS,
    "counters": COUNTER_COLUMNS,
}


class LinkError(Exception):
    """The other side sent something that makes no sense; the message says what."""


class _Rows(msgspec.Struct, forbid_unknown_fields=True):
    """A ``Delta`` of the recording ``key`` on the wire."""

    key: int
    first: dict[str, int]
    columns: dict[str, dict[str, bytes]]
    layers: list[tuple[str, str, str, int]]
    names: list[str]
    tracks: list[tuple[str, str]]
    instants: list[tuple[str, int, str]]
    outputs: list[tuple[int, list[int], str | None, str, list[float]]]


class Link:
    """Both ends of it. ``send`` and ``send_rows`` are for any thread; ``receive`` is for one.

    Args:
        reading: where frames come from.
        writing: where they go.
    """

    def __init__(self, reading: IO[bytes], writing: IO[bytes]) -> None:
        self._reading = reading
        self._writing = writing
        self._lock = threading.Lock()

    def send(self, what: str, **values: Any) -> None:
        """Send a message. ``OSError`` where nobody listens any more."""
        self._write(MESSAGE, msgspec.json.encode({"what": what, **values}))

    def send_rows(self, key: int, delta: Delta) -> None:
        """Send what is new in the recording ``key``."""
        rows = _Rows(
            key,
            asdict(delta.first),
            {
                table: {name: np.ascontiguousarray(column).tobytes() for name, column in columns.items()}
                for table, columns in delta.columns.items()
                if len(next(iter(columns.values())))
            },
            [(one.path, one.type, one.stage, one.parent) for one in delta.layers],
            list(delta.names),
            [(one.name, one.unit) for one in delta.tracks],
            [(one.track, one.time_ns, one.label) for one in delta.instants],
            [
                (one.request, list(map(int, one.token_ids)), one.text, one.finish_reason, list(map(float, one.values)))
                for one in delta.outputs
            ],
        )
        self._write(ROWS, msgspec.msgpack.encode(rows))

    def receive(self) -> dict[str, Any] | tuple[int, Delta] | None:
        """Wait for the next frame: a message (a dict with ``what``), rows with their recording's key, or None at the end.

        Raises:
            LinkError: what came makes no sense.
        """
        head = self._read(_HEAD.size)
        if head is None:
            return None
        length, kind = _HEAD.unpack(head)
        if length > MOST_BYTES or kind not in (MESSAGE, ROWS):
            raise LinkError(f"a frame of kind {kind} and {length} bytes")
        payload = self._read(length)
        if payload is None:
            return None
        try:
            return _message(payload) if kind == MESSAGE else _rows(payload)
        except (msgspec.DecodeError, ValueError, TypeError) as error:
            raise LinkError(str(error)) from error

    def _write(self, kind: int, payload: bytes) -> None:
        if len(payload) > MOST_BYTES:
            raise LinkError(f"a frame of {len(payload)} bytes")
        left = memoryview(_HEAD.pack(len(payload), kind) + payload)
        with self._lock:
            while left:  # a pipe may take less than all
                left = left[self._writing.write(left) :]
            self._writing.flush()

    def _read(self, length: int) -> bytes | None:
        """So many bytes, or None where the stream ends before."""
        parts = []
        while length:
            part = self._reading.read(length)
            if not part:
                return None
            parts.append(part)
            length -= len(part)
        return b"".join(parts)


def _message(payload: bytes) -> dict[str, Any]:
    message = msgspec.json.decode(payload)
    if not isinstance(message, dict) or not isinstance(message.get("what"), str):
        raise ValueError("a message that says nothing")
    return message


def _rows(payload: bytes) -> tuple[int, Delta]:
    rows = msgspec.msgpack.decode(payload, type=_Rows)
    if not rows.first.keys() <= asdict(Written()).keys() or min(rows.first.values(), default=0) < 0:
        raise ValueError("rows of no place")
    columns = {}
    for table, given in rows.columns.items():
        types = _TABLES.get(table)
        if types is None or given.keys() != types.keys():
            raise ValueError(f"a table {table[:40]!r} with other columns")
        columns[table] = {name: np.frombuffer(given[name], dtype) for name, dtype in types.items()}
        if len({len(column) for column in columns[table].values()}) != 1:
            raise ValueError(f"columns of {table} that are not of one length")
    return rows.key, Delta(
        Written(**rows.first),
        columns,
        tuple(Layer(*one) for one in rows.layers),
        tuple(rows.names),
        tuple(Track(*one) for one in rows.tracks),
        tuple(Instant(*one) for one in rows.instants),
        tuple(Output(request, tuple(ids), text, reason, tuple(values)) for request, ids, text, reason, values in rows.outputs),
    )
