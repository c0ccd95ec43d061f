"""Checks that the columns of a run from a file hang together, so that nothing behind them has to doubt a number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from core.messages.reason import Reason
from profilers.trace import NOT_MEASURED, STAGES, Array, Layer, Trace

MOST = 1 << 60
"""36 years in ns: the sum of a few such amounts still fits its column."""

MOST_DRAFTED = 1 << 16
"""Tokens guessed for one forward pass; each place of a guess is told by itself."""


def fault(trace: Trace) -> Reason | None:
    """What is wrong with the columns, as a clause ("its layers hang in a circle"), or None."""
    return next(_faults(trace), None)


def _faults(trace: Trace) -> Iterator[Reason]:
    requests, moments = len(trace.requests["tags"]), len(trace.moments["tags"])
    layers, names = len(trace.layers), len(trace.names)
    of_outputs = np.array([one.request for one in trace.outputs], "i8")
    for wrong, column, count, least in (
        (Reason("session.moments-name-requests"), trace.moments["request"], requests, NOT_MEASURED),
        (Reason("session.moments-have-kinds"), trace.moments["kind"], 127, 0),
        (Reason("session.layer-calls-name-moments"), trace.spans["moment"], moments, 0),
        (Reason("session.layer-calls-name-layers"), trace.spans["layer"], layers, 0),
        (Reason("session.operators-name-moments"), trace.operators["moment"], moments, NOT_MEASURED),
        (Reason("session.operators-name-layers"), trace.operators["layer"], layers, NOT_MEASURED),
        (Reason("session.operators-name-names"), trace.operators["name"], names, 0),
        (Reason("session.operators-name-shapes"), trace.operators["shapes"], names, NOT_MEASURED),
        (Reason("session.operators-have-places"), trace.operators["place"], 127, 0),
        (Reason("session.counter-samples-name-tracks"), trace.counters["track"], len(trace.tracks), 0),
        (
            Reason("session.outputs-name-requests"),
            of_outputs,
            requests,
            NOT_MEASURED,
        ),
    ):
        if len(column) and (column.min() < least or column.max() >= count):
            yield wrong
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
