"""Medians with their uncertainty: spreads, and ratios of two sets of measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from profilers.trace import Array

RESAMPLES = 2000
PERCENTILE_LEAST_N = {90: 64, 95: 130, 99: 662}
"""Below this many samples a percentile is not told (LoadGen's early-stopping bound at 99 % confidence; ``measures.md`` §1)."""

TAIL_RISK = 0.01
"""The chance that ``tail_bound`` is too low: one less LoadGen's confidence."""

_SEED = 20_261_121
_INTERVAL = (2.5, 97.5)


@dataclass(frozen=True)
class Spread:
    """A set of measurements in the unit of its values. None: not measured, or too few samples to tell.

    ``low`` and ``high`` bound the median: a bootstrap 95 % interval, from two samples on.
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


@dataclass(frozen=True)
class Ratio:
    """A ratio of two medians with its bootstrap 95 % interval."""

    ratio: float
    low: float
    high: float


def spread(values: Sequence[float] | Array, intervals: bool = True) -> Spread:
    """The spread of the values; ``intervals=False`` leaves ``low`` and ``high`` out. Percentiles interpolate linearly."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    if n == 0:
        return Spread()
    low = high = None
    if intervals and n > 1:
        low, high = (float(bound) for bound in np.percentile(resampled_medians(ordered), _INTERVAL))
    percentiles = {q: float(np.percentile(ordered, q)) if n >= least else None for q, least in PERCENTILE_LEAST_N.items()}
    return Spread(
        median=float(np.median(ordered)),
        low=low,
        high=high,
        p90=percentiles[90],
        p95=percentiles[95],
        p99=percentiles[99],
        maximum=float(ordered[-1]),
        minimum=float(ordered[0]),
        n=n,
    )


def median_ratio(a: Sequence[float] | Array, b: Sequence[float] | Array, intervals: bool = True) -> Ratio | None:
    """``median(a) / median(b)``; None where either side has fewer than two samples or b's median is 0.

    The two sides are resampled independently: clean and traced moments alternate, so drift hits both alike.
    Without ``intervals`` the bounds equal the ratio.
    """
    top, bottom = (np.sort(np.asarray(values, dtype=np.float64)) for values in (a, b))
    if len(top) < 2 or len(bottom) < 2 or np.median(bottom) <= 0:
        return None
    ratio = float(np.median(top) / np.median(bottom))
    if not intervals:
        return Ratio(ratio, ratio, ratio)
    below = resampled_medians(bottom, _SEED + 1)
    ratios = resampled_medians(top)[below > 0] / below[below > 0]
    low, high = np.percentile(ratios, _INTERVAL)
    return Ratio(ratio, float(low), float(high))


def percentile(values: Sequence[float] | Array, q: float, mode: Literal["linear", "MLPerf"] = "linear") -> float | None:
    """The q-th percentile (0 to 100): interpolated linearly as numpy does, or MLPerf's ``sorted[floor(n q / 100)]``.

    None without values. MLPerf's is always a value that occurred, the largest at most.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    if n == 0:
        return None
    if mode == "linear":
        return float(np.percentile(ordered, q))
    return float(ordered[min(n - 1, math.floor(n * q / 100 + 1e-9))])  # 1e-9: 0.95 of 20 is 19, whatever binary fractions say


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


def t_risk(t: Array, freedom: int) -> Array:
    """P(|T| >= t) of Student's t with a whole number of degrees of freedom: M. Abramowitz and I. Stegun, 26.7.3 and 26.7.4."""
    angle = np.arctan(np.abs(t) / math.sqrt(freedom))
    cosine, odd = np.cos(angle), freedom % 2
    term = cosine.copy() if odd else np.ones_like(cosine)
    total = np.zeros_like(cosine)
    for power in range(1 if odd else 0, freedom - 1, 2):
        total += term
        term = term * cosine**2 * (power + 1) / (power + 2)
    within = (2 / math.pi) * (angle + np.sin(angle) * total) if odd else np.sin(angle) * total
    return np.asarray(np.clip(1 - within, 0.0, 1.0))


def t_reach(level: float, freedom: int) -> float:
    """The t with ``t_risk(t) == level``, at most 1e9."""
    low, high = 0.0, 1e9
    for _ in range(100):
        middle = math.sqrt(low * high) if low > 1e-3 else (low + high) / 2
        low, high = (middle, high) if t_risk(np.array([middle]), freedom)[0] > level else (low, middle)
    return high


def resampled_medians(ordered: Array, seed: int = _SEED, resamples: int = RESAMPLES) -> Array:
    """Medians of bootstrap resamples of sorted values, exact and without drawing the resamples.

    A resample's k-th smallest value is ``ordered[floor(n * U)]`` with U the k-th of n uniform numbers, which is
    Beta(k, n - k + 1); given it, the next one is the least of n - k uniforms above it. So 10,000 values cost as much
    as 10, and the result is that of ordinary resampling.
    """
    n = len(ordered)
    rng = np.random.default_rng(seed)
    middle = (n + 1) // 2
    lower = rng.beta(middle, n - middle + 1, resamples)
    medians = _at(ordered, lower)
    if n % 2 == 0:
        upper = lower + (1 - lower) * rng.beta(1, n - middle, resamples)
        medians = (medians + _at(ordered, upper)) / 2
    return medians


def _at(ordered: Array, quantile: Array) -> Array:
    n = len(ordered)
    return ordered[np.minimum((quantile * n).astype(np.int64), n - 1)]
