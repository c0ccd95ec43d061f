"""Decodes the events of a Chrome trace into columns: fast where they are as they should be, one by one where they are not."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import psutil

from core.errors import Refusal
from core.imports.decoding import Event, has_lone_backslashes, lenient, with_backslashes
from core.imports.slices import Slices
from core.imports.text import TraceText
from core.messages.reason import Reason

MOST_REST = 4 << 20
"""An event whose end is not found in so many bytes is damaged."""

MOST_LOST, SHORT_REST = 8 << 20, 16 << 10
"""After so many bytes looked through in vain for the ends of damaged events, an end has to be nearer."""

MOST_MEMORY_SHARE = 0.5
"""Of the memory that is free when the reading begins."""

MOST_LEVELS = 200
"""Objects in objects; deeper ones are no event, and no decoder takes them."""

_TOO_DEEP = -1
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}]|"', re.DOTALL)
_NEXT = re.compile(rb"\}\s*,\s*(?=\{)")
_GAP = re.compile(rb"[\s,]*")
_STRAY_END = re.compile(rb"[,\]{]")


def read_events(text: TraceText) -> Slices:
    """All events of a trace. What is damaged is passed over and counted; a file that ends early gives what is whole.

    Raises:
        Refusal: from ``text``, or there are more events than fit into memory.
    """
    reader = _Reader(text)
    while not text.at_end() and not reader.closed:
        reader.read_piece()
    if not reader.closed and text.problem is None and (text.header or reader.slices.events):
        text.problem = Reason("imports.list-not-closed")
    return reader.slices


class _Reader:
    """Takes one piece after another, and remembers what it learned about the file on the way."""

    def __init__(self, text: TraceText) -> None:
        self.slices = Slices()
        self.closed = False
        self._text = text
        self._decoder = msgspec.json.Decoder(list[Event])
        self._least: int | None = None
        self._lone_backslashes = False
        self._lost = 0
        self._most_bytes = MOST_MEMORY_SHARE * psutil.virtual_memory().available

    def read_piece(self) -> None:
        piece = self._text.take(self._least) if self._least else self._text.take()
        self._least = None
        if not piece.strip():
            return
        if b"\\" in piece:
            self._lone_backslashes = self._lone_backslashes or has_lone_backslashes(piece)
            piece = with_backslashes(piece) if self._lone_backslashes else piece
        if not self._decode(piece):
            self._decode_one_by_one(piece)
        if self.slices.needed_bytes > self._most_bytes:
            name, events = self._text.path.name, self.slices.events
            raise Refusal(Reason("imports.too-many-events", name=name, n=events, most_bytes=self._most_bytes))

    def _decode(self, piece: bytes) -> bool:
        try:
            events = self._decoder.decode(b"[%b]" % piece)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return False  # something in it is damaged or unusual: it is taken event by event, and what is lost is counted
        self.slices.add(events, piece)
        return True

    def _decode_one_by_one(self, piece: bytes) -> None:
        """Take the events of a piece that does not decode as a whole; what is left of it is given back."""
        at = 0
        found: list[dict[str, Any]] = []
        while True:
            at = _GAP.match(piece, at).end()  # type: ignore[union-attr]
            if at >= len(piece):
                break
            if piece[at : at + 1] == b"]":
                self.closed = True
                self._text.give_back(piece[at + 1 :])
                break
            rest = len(piece) - at
            most = MOST_REST if self._lost < MOST_LOST else SHORT_REST
            end = _end_of_object(piece, at, at + most)
            if end is None and not self._text.at_end() and rest < most:
                self._text.give_back(piece[at:])
                self._least = 2 * rest + 4096
                break
            end = None if end == _TOO_DEEP else end
            event = lenient(piece[at:end]) if end is not None else None
            if event is not None and end is not None:
                found.append(event)
                at = end
                continue
            self._lost += min(rest, most) if end is None else end - at
            following = self._after_damaged(piece, at, end)
            if following is None:
                break
            at = following
        self.slices.add_fields(found)

    def _after_damaged(self, piece: bytes, at: int, end: int | None) -> int | None:
        """Where to go on behind the damaged event at ``at``, which seems to end at ``end``; None: there is no more."""
        self.slices.miss("damaged events" if end is not None else "events that are cut off")
        # a quotation mark too few or too many leads past the true end
        beyond = _NEXT.search(piece, at + 1, len(piece) if end is None else end)
        return beyond.end() if beyond is not None else end


def _end_of_object(text: bytes, at: int, most: int) -> int | None:
    """Where the object (or stray value) that begins at ``at`` ends; None: not before ``most``, -1: it is too deep."""
    if text[at : at + 1] != b"{":
        following = _STRAY_END.search(text, at + 1)
        return following.start() if following else len(text)
    depth = 0
    for token in _TOKEN.finditer(text, at, most):
        mark = token[0]
        if mark == b"{":
            depth += 1
            if depth > MOST_LEVELS:
                return _TOO_DEEP
        elif mark == b"}":
            depth -= 1
            if depth == 0:
                return token.end()
        elif mark == b'"':
            return None
    return None
