"""Sums of spans by moment, and the processor's counts by token, by layer and by cell, with what was not measured kept apart.

Counts are never scaled to clean time, as durations are: what tracing adds is its own, and small beside the counts of a block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from core.analysis.select import counted, of_kind
from core.analysis.token_intervals import before_token, gap_tags, tokens_given
from core.records.run import Run
from profilers.trace import Array, Trace

COUNTS = ("cycles", "instructions", "cache_misses", "cpu_ns")
"""Columns that moments and spans share, -1 where not measured."""


def per_moment(trace: Trace, chosen: Array, group: Array, groups: int, *columns: str) -> list[Array]:
    """Sums of span columns ("" counts the spans), each as a matrix [groups, chosen moments], in ns.

    ``group`` gives each layer's group; what is in none has the number ``groups`` and is cut off. Spans of moments that are not
    chosen, or that the snapshot does not hold yet, are left out.
    """
    index, position, width = spans_of(trace, chosen)
    cell = np.take(group * width, trace.spans["layer"][index])
    cell += position
    sums = []
    for column in columns:
        flat = np.bincount(cell, trace.spans[column][index] if column else None, minlength=groups * width)
        sums.append(flat[: groups * width].reshape(groups, width)[:, :-1])
    return sums


def spans_of(trace: Trace, chosen: Array) -> tuple[Array | slice, Array, int]:
    """Spans among which those of the chosen moments are, for each its moment's place among these, and one more than these.

    The place of spans of other moments is the last one, to be cut off. Spans are in the order of their moments: a live chart
    that looks at the newest few of 400,000 spans pays for these only; where most are wanted a slice is faster than picking.
    """
    moments = trace.spans["moment"]
    rows = np.flatnonzero(chosen).astype(moments.dtype)  # another type would have searchsorted copy the whole column
    first, last = np.searchsorted(moments, rows), np.searchsorted(moments, rows, side="right")
    lengths = last - first
    total = int(lengths.sum())
    if total and total * 3 > last[-1] - first[0]:
        place = np.full(len(chosen) + 1, len(rows), np.int64)
        place[rows] = np.arange(len(rows))
        index = slice(int(first[0]), int(last[-1]))
        return index, np.take(place, moments[index], mode="clip"), len(rows) + 1
    before = np.cumsum(lengths) - lengths
    picked = np.arange(total) + np.repeat(first - before, lengths)
    return picked, np.repeat(np.arange(len(rows)), lengths), len(rows) + 1


class PerToken(NamedTuple):
    """One value per moment or gap, and the request that it belongs to."""

    values: Array
    requests: Array


def per_token(run: Run) -> dict[str, PerToken]:
    """Counts of each clean decode moment over its new tokens: ``cycles_per_token``, ``instructions_per_token`` and
    ``cpu_ns_per_token``, empty where not measured.

    Where tokens are guessed: of each clean gap, drafts included, over the tokens that became visible.
    """
    moments = run.trace.moments
    if (moments["drafted"] >= 0).any():
        return _per_visible_token(run)
    chosen = counted(moments, of_kind(moments, "decode")) & (moments["tokens"] > 0)
    found = {}
    for name in ("cycles", "instructions", "cpu_ns"):
        rows = chosen & (moments[name] >= 0)
        found[f"{name}_per_token"] = PerToken(moments[name][rows] / moments["tokens"][rows], moments["request"][rows])
    return found


def _per_visible_token(run: Run) -> dict[str, PerToken]:
    moments = {**run.trace.moments, "tags": gap_tags(run.trace.moments)}
    chosen = counted(moments, of_kind(moments, "decode", "verify") & (moments["latency_ns"] >= 0))
    tokens = tokens_given(moments) * run.config.workload.batch
    found = {}
    for name in ("cycles", "instructions", "cpu_ns"):
        measured = moments[name] >= 0
        missing = before_token({**moments, "missing": (~measured).astype(np.int64)}, "missing") > 0
        whole = np.where(measured, moments[name], 0) + before_token(moments, name)
        rows = chosen & measured & ~missing
        found[f"{name}_per_token"] = PerToken(whole[rows] / tokens[rows], moments["request"][rows])
    return found


def per_cycle(instructions: float | None, cycles: float | None) -> float | None:
    """Instructions per cycle; None where either is missing."""
    return instructions / cycles if instructions is not None and cycles else None


def layer_counts(trace: Trace, chosen: Array, calls: Array) -> dict[str, Array]:
    """Counts of a median moment among the chosen ones: by quantity one value per layer, NaN where not counted.

    Args:
        trace: layers, moments and spans.
        chosen: mask of moments.
        calls: how often each of them called each layer, [layers, chosen moments].

    The model itself (row 0) has the counts of whole moments. A layer that some moments do not call costs its share, as in the
    table of times.
    """
    found = {name: np.full(len(trace.layers), np.nan) for name in COUNTS}
    spans = _counted_spans(trace, chosen)
    layers = np.flatnonzero(np.bincount(spans.spans["layer"], minlength=len(trace.layers)))
    group = np.full(len(trace.layers), len(layers), np.int64)
    group[layers] = np.arange(len(layers))
    called = calls[layers]
    often = (called > 0).mean(axis=1) if called.size else np.zeros(len(layers))
    sums = measured_sums(spans, chosen, group, called, COUNTS)
    for name, values in found.items():
        values[layers] = _medians(sums[name]) * often
        whole = trace.moments[name][chosen]
        if len(values) and (whole >= 0).any():
            values[0] = np.median(whole[whole >= 0])
    return found


def _counted_spans(trace: Trace, chosen: Array) -> Trace:
    """The trace with only those spans of the chosen moments that have at least one count: the blocks', a small part of all."""
    index, _, _ = spans_of(trace, chosen)  # also of moments between the chosen ones, which are cut off later
    measured = np.zeros(len(trace.spans["layer"][index]), bool)
    for name in COUNTS:
        measured |= trace.spans[name][index] >= 0
    rows = np.flatnonzero(measured) + index.start if isinstance(index, slice) else index[measured]
    return replace(trace, spans={name: trace.spans[name][rows] for name in ("moment", "layer", *COUNTS)})


def measured_sums(trace: Trace, chosen: Array, group: Array, calls: Array, names: Sequence[str]) -> dict[str, Array]:
    """Sums of counts by quantity, each as a matrix [groups, chosen moments]; NaN where not called, or a call was not counted.

    ``group`` gives each layer's group (their number: in none), ``calls`` how often the group was called, in the same shape.
    """
    (present,) = per_moment(trace, chosen, group, len(calls), "")
    called = (calls > 0) & (present == calls)  # spans without any count may have been left out of the trace
    found = {}
    for name in names:
        values = trace.spans[name]
        there = values >= 0
        if not there.any():
            found[name] = np.full(calls.shape, np.nan)
            continue
        if there.all():
            (sums,) = per_moment(trace, chosen, group, len(calls), name)
            found[name] = np.where(called, sums, np.nan)
            continue
        masked: Mapping[str, Array] = {**trace.spans, "counts": np.where(there, values, 0), "counted": there}
        sums, number = per_moment(replace(trace, spans=masked), chosen, group, len(calls), "counts", "counted")
        found[name] = np.where(called & (number == calls), sums, np.nan)
    return found


def _medians(matrix: Array) -> Array:
    """Median of each row without its NaNs; NaN where there is nothing else (``nanmedian`` warns of it, and is slow)."""
    missing = np.isnan(matrix)
    medians = np.full(len(matrix), np.nan)
    full = ~missing.any(axis=1)
    if full.any() and matrix.shape[1]:
        medians[full] = np.median(matrix[full], axis=1)
    for row in np.flatnonzero(~full & ~missing.all(axis=1)):
        medians[row] = np.median(matrix[row, ~missing[row]])
    return medians
