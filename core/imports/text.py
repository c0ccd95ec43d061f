"""Reads a trace file piece by piece, unpacked where it is packed, and cuts it between events."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from core.errors import Refusal
from core.messages.reason import Reason

BLOCK = 1 << 20
PIECE = 1 << 16
"""Bytes handed out at a time: what is decoded from them stays in the processor's cache, which is twice as fast as 4 MB."""

MOST_HEADER = 64 << 20
MOST_EVENT = 64 << 20
MOST_UNPACKED = 4 << 30
MOST_RATIO, RATIO_FROM = 100, 64 << 20
"""A packed file may not grow beyond the first; nor more than 100-fold once it is past 64 MB (real traces: 10 to 40-fold)."""

_ARRAY = re.compile(rb'(?<!\\)"traceEvents"\s*:\s*\[')
_BETWEEN = re.compile(rb"\}\s*,\s*(?=\{)")
_LONGEST_GAP = 64  # bytes of space between two events; a wider one is only found later
_BOM = b"\xef\xbb\xbf"
_MAGIC = b"\x1f\x8b"


class TraceText:
    """The events' text of one trace file.

    ``header`` is what stands before the events (a whole JSON object but for its end; empty for a bare array). ``problem`` says
    why the file ended early, None if it did not; ``size`` counts the unpacked bytes so far.

    Raises:
        Refusal: there is no such file, it is not a trace, or it unpacks to more than is reasonable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.problem: Reason | None = None
        self.header = b""
        self._blocks = self._unpacked()
        self._buffer = b""
        self._at = 0
        self._between = b""
        self._ended = False
        self._find_events()

    def take(self, least: int = PIECE) -> bytes:
        """About ``least`` bytes of text, cut between two events where one is found; empty at the end of the file."""
        searched = least
        while True:
            cut = _BETWEEN.search(self._buffer, self._at + searched)
            if cut is not None:
                piece = self._buffer[self._at : cut.start() + 1]
                self._between = self._buffer[cut.start() + 1 : cut.end()]
                self._at = cut.end()
                return piece
            searched = max(searched, len(self._buffer) - self._at - _LONGEST_GAP)
            if not self._more():
                piece = self._buffer[self._at :]
                self._between = b""
                self._at = len(self._buffer)
                return piece

    def give_back(self, rest: bytes) -> None:
        """Put back the end of the last piece (it was cut inside an event)."""
        self._buffer = rest + self._between + self._buffer[self._at :]
        self._at = 0

    def after_events(self) -> bytes:
        """What stands behind the list of events, once that was found closed."""
        while len(self._buffer) - self._at <= MOST_HEADER and self._more():
            pass
        return self._buffer[self._at :]

    def at_end(self) -> bool:
        """Whether nothing more will come."""
        return self._ended and self._at >= len(self._buffer)

    def _more(self) -> bool:
        if len(self._buffer) - self._at > MOST_EVENT + MOST_HEADER:
            raise Refusal(Reason("imports.endless-event", name=self.path.name, most_mb=MOST_EVENT >> 20))
        block = next(self._blocks, b"")
        if not block:
            self._ended = True
            return False
        self._buffer = self._buffer[self._at :] + block
        self._at = 0
        return True

    def _find_events(self) -> None:
        name = self.path.name
        while len(self._buffer) < 64 and self._more():
            pass
        start = self._buffer.removeprefix(_BOM).lstrip()
        if not start:
            if self.problem is not None:
                raise Refusal(Reason("imports.empty-because", name=name, problem=self.problem))
            raise Refusal(Reason("imports.empty", name=name))
        self._buffer = start
        if start[:1] == b"[":
            self._at = 1
            return
        if start[:1] != b"{":
            raise Refusal(Reason("imports.not-a-trace", name=name))
        searched = 0
        while True:
            found = _ARRAY.search(self._buffer, max(0, searched - _LONGEST_GAP))
            searched = len(self._buffer)
            if found is not None:
                self.header = self._buffer[: found.start()]
                self._at = found.end()
                return
            if len(self._buffer) > MOST_HEADER or not self._more():
                raise Refusal(Reason("imports.no-trace-events", name=name))

    def _unpacked(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file:
                first = file.read(BLOCK)
                packed = first.startswith(_MAGIC)
                blocks = self._gunzip(_blocks_from(first, file)) if packed else _blocks_from(first, file)
                for block in blocks:
                    self.size += len(block)
                    yield block
        except FileNotFoundError as error:
            raise Refusal(Reason("imports.no-such-file", path=str(self.path))) from error
        except IsADirectoryError as error:
            raise Refusal(Reason("imports.is-a-folder", path=str(self.path))) from error
        except OSError as error:
            problem = error.strerror or str(error)
            raise Refusal(Reason("imports.cannot-be-read", path=str(self.path), problem=problem)) from error

    def _gunzip(self, packed: Iterator[bytes]) -> Iterator[bytes]:
        unpack = zlib.decompressobj(wbits=31)
        read = 0
        for block in packed:
            read += len(block)
            rest = block
            while rest:
                try:
                    text = unpack.decompress(rest, BLOCK)
                except zlib.error:
                    self.problem = Reason("imports.packed-damaged")
                    return
                self._check_growth(self.size + len(text), read)
                rest = unpack.unconsumed_tail
                if unpack.eof:  # several gzip members may follow one another
                    rest = unpack.unused_data
                    if not rest.startswith(_MAGIC):
                        yield text
                        return
                    unpack = zlib.decompressobj(wbits=31)
                if text:
                    yield text
        if not unpack.eof:
            tail = unpack.flush()
            if tail:
                yield tail
            self.problem = Reason("imports.packed-ends-early")

    def _check_growth(self, unpacked: int, read: int) -> None:
        if unpacked > MOST_UNPACKED or (unpacked > RATIO_FROM and unpacked > MOST_RATIO * read):
            unpacked_mb, packed_mb = unpacked >> 20, max(1, read >> 20)
            raise Refusal(Reason("imports.bomb", name=self.path.name, unpacked_mb=unpacked_mb, packed_mb=packed_mb))


def _blocks_from(first: bytes, file: BinaryIO) -> Iterator[bytes]:
    block = first
    while block:
        yield block
        block = file.read(BLOCK)
