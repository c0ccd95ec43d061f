"""Checks that the columns of a run from a file hang together, so that nothing behind them has to doubt a number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from core.messages.reason import Reason
from profilers.trace import NOT_MEASURED, POINTERS, STAGES, Array, Layer, Trace

MOST = 1 << 60
"""36 years in ns: the sum of a few such amounts still fits its column."""

MOST_DRAFTED = 1 << 16
"""Tokens guessed for one forward pass; each place of a guess is told by itself."""


_POINTS_NOWHERE = {
    ("moments", "request"): Reason("session.moments-name-requests"),
    ("spans", "moment"): Reason("session.layer-calls-name-moments"),
    ("spans", "layer"): Reason("session.layer-calls-name-layers"),
    ("operators", "moment"): Reason("session.operators-name-moments"),
    ("operators", "layer"): Reason("session.operators-name-layers"),
    ("operators", "name"): Reason("session.operators-name-names"),
    ("operators", "shapes"): Reason("session.operators-name-shapes"),
    ("counters", "track"): Reason("session.counter-samples-name-tracks"),
}
"""What is said of each pointer that leads to no row."""


def fault(trace: Trace) -> Reason | None:
    """What is wrong with the columns, as a clause ("its layers hang in a circle"), or None."""
    return next(_faults(trace), None)


def _faults(trace: Trace) -> Iterator[Reason]:
    yield from _pointers(trace)
    if _beyond(trace.moments["kind"], 0, 127):
        yield Reason("session.moments-have-kinds")
    if _beyond(trace.operators["place"], 0, 127):
        yield Reason("session.operators-have-places")
    yield from _times(trace)
    if len(trace.moments["drafted"]) and trace.moments["drafted"].max() > MOST_DRAFTED:
        yield Reason("session.too-many-guesses")
    unknown = {layer.stage for layer in trace.layers} - set(STAGES)
    if unknown:
        yield Reason("session.unknown-stages", stages=", ".join(sorted(unknown))[:60])
    if not _is_forest(trace.layers):
        yield Reason("session.layers-in-a-circle")
    for one in trace.outputs:
        if any(token is None for token in one.token_ids) or any(value is None for value in one.values):
            yield Reason("session.outputs-have-holes")


def _pointers(trace: Trace) -> Iterator[Reason]:
    """Columns that name rows which are not there."""
    counts = {name: len(getattr(trace, name)) for name in ("layers", "names", "tracks")}
    counts |= {name: len(getattr(trace, name)["tags"]) for name in ("requests", "moments")}
    for one in POINTERS:
        if _beyond(getattr(trace, one.table)[one.column], one.least, counts[one.to]):
            yield _POINTS_NOWHERE[one.table, one.column]
    if _beyond(np.array([one.request for one in trace.outputs], "i8"), NOT_MEASURED, counts["requests"]):
        yield Reason("session.outputs-name-requests")


def _beyond(column: Array, least: int, count: int) -> bool:
    """Whether a value lies outside of ``least`` to ``count`` − 1."""
    return bool(len(column)) and bool(column.min() < least or column.max() >= count)


def _times(trace: Trace) -> Iterator[Reason]:
    """Amounts that would run over once they are added up."""
    for what, columns in (
        (Reason("session.requests"), trace.requests),
        (Reason("session.moments"), trace.moments),
        (Reason("session.layer-calls"), trace.spans),
        (Reason("session.operators"), trace.operators),
        (Reason("session.counter-samples"), trace.counters),
    ):
        for name, column in columns.items():
            if not len(column):
                continue
            if name == "value":
                if np.isinf(column).any():
                    yield Reason("session.without-bounds", what=what)
            elif not (column.min() >= (0 if name == "tags" else -MOST) and column.max() <= MOST):  # not: a NaN is neither
                yield Reason("session.cannot-be", what=what, column=name)
    if any(not -MOST <= instant.time_ns <= MOST for instant in trace.instants):
        yield Reason("session.instants-cannot-be")


def _is_forest(layers: Sequence[Layer]) -> bool:
    """Whether every layer leads up to one that hangs in none; found by leaps that double, so also in long chains."""
    above: Array = np.array([layer.parent for layer in layers] + [NOT_MEASURED], "i8")  # the last stands for "none"
    if (above < NOT_MEASURED).any() or (above >= len(layers)).any():
        return False
    leap = above
    for _ in range(max(1, len(layers)).bit_length()):
        leap = leap[leap]  # -1 is the last entry, which leads to itself
    return bool((leap == NOT_MEASURED).all())
