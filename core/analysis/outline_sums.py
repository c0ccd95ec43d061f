"""Sums of spans by outline row and moment, continued from one snapshot of a growing run to the next.

Spans are only ever appended, and those of a closed moment never change: a live picture needs to add up the new ones alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.models.outline import Piece, outline
from core.records.run import Run
from profilers.trace import Array

COUNTED = ("cycles", "instructions", "cpu_ns")
"""Columns of spans that may be -1, not measured."""


class OutlineSums:
    """Keeps what was added up of one run. ``of(run)`` again with a later snapshot of it costs what came since."""

    def __init__(self, max_rows: int = 64, counts: Sequence[str] = ()) -> None:
        self.pieces: tuple[Piece, ...] = ()
        self.calls = np.zeros((0, 0))
        self.total_ns = np.zeros((0, 0))
        self.has: set[str] = set()  # columns of ``COUNTED`` that were measured anywhere
        self._max_rows = max_rows
        self._counts = tuple(counts)
        self._sums: dict[str, Array] = {}
        self._numbers: dict[str, Array] = {}
        self._done = 0  # spans that are in the sums,
        self._last: tuple[int, ...] = ()  # the newest of them,
        self._key: object = None  # and of which run

    def covers(self, counts: Sequence[str]) -> bool:
        """Whether these counts are added up too."""
        return set(counts) <= set(self._counts)

    def of(self, run: Run) -> OutlineSums:
        """Bring the sums up to this snapshot: matrices [pieces, moments of the snapshot]. Returns itself."""
        trace = run.trace
        key = (run.id, run.created, trace.layers)
        if key != self._key or not self._continues(run):
            self._begin(run, key)
        spans, moments = trace.spans, len(trace.moments["tags"])
        self._widen(moments)
        done = int(np.searchsorted(spans["moment"], moments))  # spans of a moment that the snapshot does not hold yet wait
        if done > self._done:
            self._add(run, slice(self._done, done))
        self._done, self._last = done, _row(run, done - 1)
        return self

    def counted(self, name: str) -> Array:
        """Sums of a count; NaN where a piece was not called, or one of its calls was not counted."""
        sums, numbers = self._sums[name], self._numbers[name]
        return np.where((self.calls > 0) & (numbers == self.calls), sums, np.nan)

    def _continues(self, run: Run) -> bool:
        """Whether what was added up are the first spans of this snapshot."""
        known, moments = len(run.trace.spans["moment"]), len(run.trace.moments["tags"])
        return known >= self._done and moments >= self.calls.shape[1] and _row(run, self._done - 1) == self._last

    def _begin(self, run: Run, key: object) -> None:
        self._key, self._done, self.has = key, 0, set()
        self.pieces = outline(run.trace.layers, self._max_rows)
        self._group = np.full(len(run.trace.layers), len(self.pieces), np.int64)
        for number, piece in enumerate(self.pieces):
            self._group[list(piece.rows)] = number
        self.calls, self.total_ns = (np.zeros((len(self.pieces), 0)) for _ in range(2))
        self._sums = {name: np.zeros((len(self.pieces), 0)) for name in self._counts}
        self._numbers = {name: np.zeros((len(self.pieces), 0)) for name in self._counts}

    def _widen(self, moments: int) -> None:
        more = ((0, 0), (0, moments - self.calls.shape[1]))
        if not more[1][1]:
            return
        self.calls, self.total_ns = np.pad(self.calls, more), np.pad(self.total_ns, more)
        for kept in (self._sums, self._numbers):
            kept.update({name: np.pad(matrix, more) for name, matrix in kept.items()})

    def _add(self, run: Run, new: slice) -> None:
        spans = run.trace.spans
        first, last = int(spans["moment"][new.start]), int(spans["moment"][new.stop - 1])
        width, pieces = last - first + 1, len(self.pieces)
        cell = self._group[spans["layer"][new]] * width + (spans["moment"][new] - first)

        def summed(weights: Array | None) -> Array:
            flat = np.bincount(cell, weights, minlength=(pieces + 1) * width)
            return flat[: pieces * width].reshape(pieces, width)

        where = (slice(None), slice(first, last + 1))
        self.calls[where] += summed(None)
        self.total_ns[where] += summed(spans["duration_ns"][new])
        for name in COUNTED:
            measured = spans[name][new] >= 0
            if not measured.any():
                continue
            self.has.add(name)
            if name in self._counts:
                self._sums[name][where] += summed(np.where(measured, spans[name][new], 0))
                self._numbers[name][where] += summed(measured)


def _row(run: Run, number: int) -> tuple[int, ...]:
    """What tells one span from another; () before the first."""
    if number < 0:
        return ()
    return tuple(int(run.trace.spans[name][number]) for name in ("moment", "layer", "start_ns", "duration_ns"))
