"""Checks that the columns of a run from a file hang together, so that nothing behind them has to doubt a number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from profilers.trace import NOT_MEASURED, STAGES, Array, Layer, Trace

MOST = 1 << 60
"""36 years in ns: the sum of a few such amounts still fits its column."""

MOST_DRAFTED = 1 << 16
"""Tokens guessed for one forward pass; each place of a guess is told by itself."""


def fault(trace: Trace) -> str | None:
    """What is wrong with the columns, as a clause ("its layers hang in a circle"), or None."""
    return next(_faults(trace), None)


def _faults(trace: Trace) -> Iterator[str]:
    requests, moments = len(trace.requests["tags"]), len(trace.moments["tags"])
    layers, names = len(trace.layers), len(trace.names)
    for what, column, count, least in (
        ("moments name requests", trace.moments["request"], requests, NOT_MEASURED),
        ("moments have kinds", trace.moments["kind"], 127, 0),
        ("layer calls name moments", trace.spans["moment"], moments, 0),
        ("layer calls name layers", trace.spans["layer"], layers, 0),
        ("operators name moments", trace.operators["moment"], moments, NOT_MEASURED),
        ("operators name layers", trace.operators["layer"], layers, NOT_MEASURED),
        ("operators name names", trace.operators["name"], names, 0),
        ("operators name shapes", trace.operators["shapes"], names, NOT_MEASURED),
        ("operators have places", trace.operators["place"], 127, 0),
        ("counter samples name tracks", trace.counters["track"], len(trace.tracks), 0),
        ("outputs name requests", np.array([one.request for one in trace.outputs], "i8"), requests, NOT_MEASURED),
    ):
        if len(column) and (column.min() < least or column.max() >= count):
            yield f"its {what} that are not there"
    yield from _times(trace)
    if len(trace.moments["drafted"]) and trace.moments["drafted"].max() > MOST_DRAFTED:
        yield "its moments guess more tokens than can be"
    unknown = {layer.stage for layer in trace.layers} - set(STAGES)
    if unknown:
        yield f"its layers have stages that there are not ({', '.join(sorted(unknown))[:60]})"
    if not _is_forest(trace.layers):
        yield "its layers hang in a circle, or in layers that are not there"
    for one in trace.outputs:
        if any(token is None for token in one.token_ids) or any(value is None for value in one.values):
            yield "its outputs have holes"


def _times(trace: Trace) -> Iterator[str]:
    """Amounts that would run over once they are added up."""
    for what, columns in (
        ("requests", trace.requests),
        ("moments", trace.moments),
        ("layer calls", trace.spans),
        ("operators", trace.operators),
        ("counter samples", trace.counters),
    ):
        for name, column in columns.items():
            if not len(column):
                continue
            if name == "value":
                if np.isinf(column).any():
                    yield f"its {what} are without bounds"
            elif not (column.min() >= (0 if name == "tags" else -MOST) and column.max() <= MOST):  # not: a NaN is neither
                yield f"its {what} have a {name} that cannot be"
    if any(not -MOST <= instant.time_ns <= MOST for instant in trace.instants):
        yield "its instants have a time that cannot be"


def _is_forest(layers: Sequence[Layer]) -> bool:
    """Whether every layer leads up to one that hangs in none; found by leaps that double, so also in long chains."""
    above: Array = np.array([layer.parent for layer in layers] + [NOT_MEASURED], "i8")  # the last stands for "none"
    if (above < NOT_MEASURED).any() or (above >= len(layers)).any():
        return False
    leap = above
    for _ in range(max(1, len(layers)).bit_length()):
        leap = leap[leap]  # -1 is the last entry, which leads to itself
    return bool((leap == NOT_MEASURED).all())
