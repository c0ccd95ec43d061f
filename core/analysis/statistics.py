"""Medians with their uncertainty: spreads, and ratios of two sets of measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profilers.trace import Array

RESAMPLES = 2000
PERCENTILE_LEAST_N = {90: 64, 95: 130, 99: 662}
"""Below this many samples a percentile is not told (LoadGen's early-stopping bound at 99 % confidence; ``measures.md`` §1)."""

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
