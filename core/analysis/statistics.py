"""Medians with their uncertainty: spreads, and ratios of two sets of measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.analysis.intervals import Side, median_interval, pooled_median_interval, ratio_interval
from profilers.trace import Array

PERCENTILE_LEAST_N = {90: 64, 95: 130, 99: 662}
"""Below this many samples a percentile is not told (LoadGen's early-stopping bound at 99 % confidence; ``measures.md`` §1)."""

TAIL_RISK = 0.01
"""The chance that ``tail_bound`` is too low: one less LoadGen's confidence."""


@dataclass(frozen=True)
class Spread:
    """A set of measurements in the unit of its values. None: not measured, or too few samples to tell.

    ``low`` and ``high`` bound the true median with 95 % confidence, from the requests (see ``intervals``); None where too few
    requests were made for such an interval. ``least`` and ``most`` are the range of the requests' own medians, which says what
    was seen and nothing beyond it. ``n`` values of ``requests`` requests.
    """

    median: float | None = None
    low: float | None = None
    high: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    maximum: float | None = None
    minimum: float | None = None
    n: int = 0
    requests: int = 0
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Ratio:
    """A ratio of two medians with its 95 % interval; None: too few requests on either side for one."""

    ratio: float
    low: float | None = None
    high: float | None = None


def spread(values: Sequence[float] | Array, requests: Array | None = None, *, intervals: bool = True) -> Spread:
    """The spread of the values. Percentiles interpolate linearly.

    Args:
        values: measurements.
        requests: of each the request that it belongs to; None: each is of another one.
        intervals: False leaves ``low`` and ``high`` out.
    """
    given = np.asarray(values, dtype=np.float64)
    n = len(given)
    if n == 0:
        return Spread()
    ordered = np.sort(given)
    each = given if requests is None else medians_by(given, requests)
    bounds = _bounds(given, requests) if intervals else None
    percentiles = {q: float(np.percentile(ordered, q)) if n >= least else None for q, least in PERCENTILE_LEAST_N.items()}
    return Spread(
        median=float(np.median(ordered)),
        low=bounds[0] if bounds else None,
        high=bounds[1] if bounds else None,
        p90=percentiles[90],
        p95=percentiles[95],
        p99=percentiles[99],
        maximum=float(ordered[-1]),
        minimum=float(ordered[0]),
        n=n,
        requests=len(each),
        least=float(each.min()),
        most=float(each.max()),
    )


def medians_by(values: Array, group: Array) -> Array:
    """The median of each group's values, in the order of the groups' numbers."""
    order = np.lexsort((values, group))
    ordered, groups = np.asarray(values, np.float64)[order], np.asarray(group)[order]
    starts = np.flatnonzero(np.append(True, groups[1:] != groups[:-1])) if len(groups) else np.empty(0, np.int64)
    counts = np.diff(np.append(starts, len(groups)))
    return (ordered[starts + (counts - 1) // 2] + ordered[starts + counts // 2]) / 2


def _bounds(values: Array, requests: Array | None) -> tuple[float, float] | None:
    return median_interval(values) if requests is None else pooled_median_interval(values, requests)


def median_ratio(a: Spread, b: Spread) -> Ratio | None:
    """``median(a) / median(b)`` of two sets measured apart; None where either has nothing or b's median is 0."""
    if a.median is None or b.median is None or b.median <= 0:
        return None
    bounds = None
    if a.low is not None and a.high is not None and b.low is not None and b.high is not None:
        sides = Side(a.median, a.low, a.high, a.requests), Side(b.median, b.low, b.high, b.requests)
        bounds = ratio_interval(*sides)
    return Ratio(a.median / b.median, *(bounds or (None, None)))


def tail_bound(values: Sequence[float] | Array, p: float) -> float | None:
    """A value that the true p-quantile (0 to 1) exceeds in one of a hundred cases at most: LoadGen's early-stopping estimate.

    With q values, t is the largest number with ``I(p; q - t, t + 1) <= 0.01``, which is the chance that t or fewer of q lie
    beyond the true quantile; the t - 1 highest are dropped and the maximum of the rest is told. None: too few values.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    q = len(ordered)
    if q == 0 or not 0 < p < 1:
        return None
    beyond = np.arange(1, q + 1)
    odds = math.log(1 - p) - math.log(p)
    logs = np.concatenate([[q * math.log(p)], q * math.log(p) + np.cumsum(np.log((q - beyond + 1) / beyond) + odds)])
    t = int(np.searchsorted(np.cumsum(np.exp(logs)), TAIL_RISK, side="right")) - 1
    return float(ordered[q - t]) if t >= 1 else None
