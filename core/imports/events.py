"""Decodes the events of a Chrome trace into columns: fast where they are as they should be, one by one where they are not."""

from __future__ import annotations

import re

import msgspec

from core.imports.decoding import Event, lenient
from core.imports.slices import Slices
from core.imports.text import TraceText

MOST_REST = 4 << 20
"""An event whose end is not found in so many bytes is damaged."""

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}]|"', re.DOTALL)
_NEXT = re.compile(rb"\}\s*,\s*(?=\{)")
_GAP = re.compile(rb"[\s,]*")


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
        event = lenient(piece[at:end])
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
