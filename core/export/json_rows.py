"""Writes millions of alike JSON objects from columns: a table of bytes is filled column by column, and its gaps taken out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from profilers.trace import Array

_TABLE_BYTES = 2 << 20


@dataclass(frozen=True)
class Words:
    """One of ``words`` per row, by number; nothing where the number is -1. The words are JSON text already."""

    numbers: Array
    words: Sequence[bytes]


@dataclass(frozen=True)
class Whole:
    """A whole number per row behind ``before``; nothing at all where it is negative (not measured)."""

    values: Array
    before: bytes = b""


@dataclass(frozen=True)
class Micros:
    """Nanoseconds per row (at least 0) as microseconds with three decimals, exactly; whole microseconds with ``whole``."""

    values: Array
    whole: bool = False


Part = bytes | Words | Whole | Micros


def rows(parts: Sequence[Part], count: int) -> Iterator[bytes]:
    """The parts of each row put together, in chunks of some MB (0.5 s for a million rows of 160 bytes)."""
    tables = [_Table(part) for part in parts]
    width = sum(table.width for table in tables)
    step = max(1, _TABLE_BYTES // max(width, 1))
    for first in range(0, count, step):
        last = min(count, first + step)
        text = np.zeros((last - first, width), np.uint8)
        at = 0
        for table in tables:
            table.fill(text[:, at : at + table.width], first, last)
            at += table.width
        flat = text.ravel()
        yield flat[flat != 0].tobytes()


class _Table:
    """One part's columns of bytes; a zero byte is a gap."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._words: Array | None = None
        if isinstance(part, bytes):
            self.width = len(part)
            self._words = np.frombuffer(part, np.uint8)
        elif isinstance(part, Words):
            words = np.array([*part.words, b""], dtype=np.bytes_)  # -1 is the empty one at the end
            self.width = words.dtype.itemsize
            self._words = words.view(np.uint8).reshape(len(words), self.width)
        elif isinstance(part, Whole):
            self.width = len(part.before) + _digits(part.values)
        else:
            self.width = _digits(part.values // 1000) + (0 if part.whole else 4)

    def fill(self, text: Array, first: int, last: int) -> None:
        """Write the rows from ``first`` to ``last`` into ``text``, which is all zero."""
        part = self._part
        if isinstance(part, bytes):
            text[:] = self._words
        elif isinstance(part, Words):
            assert self._words is not None
            text[:] = self._words[part.numbers[first:last]]
        elif isinstance(part, Whole):
            values = part.values[first:last]
            text[:, : len(part.before)] = np.frombuffer(part.before, np.uint8)
            _write_digits(text[:, len(part.before) :], np.maximum(values, 0))
            text[values < 0] = 0
        else:
            self._fill_micros(text, part.values[first:last], part.whole)

    @staticmethod
    def _fill_micros(text: Array, values: Array, whole: bool) -> None:
        if whole:
            _write_digits(text, values // 1000)
            return
        _write_digits(text[:, :-4], values // 1000)
        text[:, -4] = ord(".")
        _write_digits(text[:, -3:], values % 1000, least=3)


def _digits(values: Array) -> int:
    return len(str(int(values.max()))) if len(values) and values.max() > 0 else 1


def _write_digits(text: Array, values: Array, least: int = 1) -> None:
    """Decimal digits, to the right, with gaps for leading zeros beyond ``least`` digits."""
    rest = values.astype(np.int32) if text.shape[1] < 10 else values.astype(np.int64)
    for place in range(text.shape[1] - 1, -1, -1):
        above = rest // 10
        digit = (rest - above * 10 + ord("0")).astype(np.uint8)
        if text.shape[1] - place > least:
            digit[rest == 0] = 0
        text[:, place] = digit
        rest = above
