"""Intervals that hold the true median in 95 of 100 cases, from the few requests that a run has; None where none can.

What is independent of each other in a run is its requests; the moments within one are alike. So everything here counts
requests, and below the number from which an interval covers there is none: ranges are told instead. ``benchmarks/coverage.py``
prints how often each interval holds the truth, and ``tests/core/analysis/test_intervals.py`` keeps it between 93 and 97 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from core.analysis.student import t_reach
from profilers.trace import Array

RISK = 0.05
NAME = "95 %"
LEAST_VALUES = 6
"""The range of five values holds the median in 93.75 % of cases; that of six in 96.9 %, so from there on 95 % can be had."""

LEAST_REQUESTS = 10
"""Of pooled gaps: with fewer requests and the skewest noise tried, 85 to 92 % were covered instead of 95."""

_SHORTENED = 0.97
"""Of a ratio's distances: 40,000 simulated pairs of 6 to 60 requests then hold it in 94.4 to 96.3 %, without it to 96.7."""

_POOLED_RISK = 0.04
"""Asked of Student's t for pooled gaps: with 5 % the truth was held in 92.4 (skewest noise) to 95 % of cases."""

_MOST_CANDIDATES = 1024

Bounds = tuple[float, float]


def median_interval(values: Array, widened: float = 1.0) -> Bounds | None:
    """A 95 % interval of the median of independent values of any distribution; None for fewer than six.

    Two pairs of order statistics enclose 95 %, and the bounds lie between them: T. P. Hettmansperger and S. J. Sheather,
    Statistics & Probability Letters 4 (1986) 75-79.

    Args:
        values: one per request (or block), in any order.
        widened: factor on the distance of both bounds from the median, where neighbouring values are known to be alike.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    n = len(ordered)
    if n < LEAST_VALUES:
        return None
    place, part = _between(n)
    low = (1 - part) * ordered[place - 1] + part * ordered[place]
    high = (1 - part) * ordered[n - place] + part * ordered[n - place - 1]
    middle = float(np.median(ordered))
    return middle - widened * (middle - float(low)), middle + widened * (float(high) - middle)


@lru_cache(maxsize=512)
def _between(n: int) -> tuple[int, float]:
    """The order statistic (from 1) whose pair encloses at least 95 %, and how far the bound lies towards the next one."""
    k = np.arange(n // 2 + 1)
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in k]
    beyond = 2 * np.cumsum(np.exp(logs))  # the risk of the pair k + 1 … n - k
    place = int(np.searchsorted(beyond, RISK, side="right"))
    share = (RISK - beyond[place - 1]) / (beyond[place] - beyond[place - 1])
    return place, float((n - place) * share / (place + (n - 2 * place) * share))


def pooled_median_interval(values: Array, requests: Array) -> Bounds | None:
    """A 95 % interval of the median of values that are alike within a request; None for fewer than ten requests.

    A value m is inside where "the half of the values lie below m" is not refused by Student's t over the requests: each gives
    its number of values below m less that above (R. S. Woodruff, J. Am. Stat. Assoc. 47 (1952) 635-646, with clusters).

    Args:
        values: pooled over requests.
        requests: of each value the request's number.
    """
    numbers, group = np.unique(requests, return_inverse=True)
    n = len(numbers)
    if n < LEAST_REQUESTS:
        return None
    order = np.argsort(values, kind="stable")
    ordered, group = np.asarray(values, np.float64)[order], group[order]
    counts = np.bincount(group, minlength=n)
    at = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), _MOST_CANDIDATES)).round().astype(np.int64))
    below = np.empty((n, len(at)))
    for number in range(n):
        below[number] = np.searchsorted(np.flatnonzero(group == number), at, side="right")
    score = below - counts[:, None] / 2
    error = score.std(axis=0, ddof=1) / math.sqrt(n)
    inside = np.flatnonzero(np.abs(score.mean(axis=0)) <= t_reach(_POOLED_RISK, n - 1) * error)
    if not len(inside):  # all requests alike: the median itself is known as well as it can be
        middle = float(np.median(ordered))
        return middle, middle
    return float(ordered[at[inside[0]]]), float(ordered[at[min(inside[-1] + 1, len(at) - 1)]])


@dataclass(frozen=True)
class Side:
    """One median of a ratio with its interval, from so many requests."""

    median: float
    low: float
    high: float
    requests: int


def ratio_interval(top: Side, bottom: Side) -> Bounds | None:
    """A 95 % interval of a ratio of two medians that were measured independently; None where a bound is not above 0.

    The logarithms' distances to their bounds add up as squares (G. Y. Zou and A. Donner, Statistics in Medicine 27 (2008)
    1693-1702), each shortened first as Student's t gets shorter when two samples are there to learn the scatter from: without
    that the interval of two times ten requests held the ratio in 97.5 % of cases.
    """
    if min(top.low, bottom.low, top.median, bottom.median) <= 0:
        return None
    (a, below_a, above_a), (b, below_b, above_b) = _distances(top, bottom.requests), _distances(bottom, top.requests)
    middle = a - b
    return math.exp(middle - math.hypot(below_a, above_b)), math.exp(middle + math.hypot(above_a, below_b))


def _distances(side: Side, others: int) -> tuple[float, float, float]:
    """The logarithm of the median, and how far its interval reaches below and above it."""
    shorter = _SHORTENED * t_reach(RISK, side.requests + others - 2) / t_reach(RISK, side.requests - 1)
    middle = math.log(side.median)
    return middle, shorter * (middle - math.log(side.low)), shorter * (math.log(side.high) - middle)


def share_interval(count: int, tries: int) -> Bounds:
    """A 95 % interval of a share, or more, of any number of tries (C. J. Clopper and E. S. Pearson, Biometrika 26, 1934)."""
    low = 0.0 if count == 0 else _share_where(lambda share: _at_least(count, tries, share), RISK / 2)
    high = 1.0 if count == tries else 1 - _share_where(lambda share: _at_least(tries - count, tries, share), RISK / 2)
    return low, high


def _share_where(chance: Callable[[float], float], wanted: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if chance(middle) > wanted else (middle, high)
    return (low + high) / 2


def _at_least(count: int, tries: int, share: float) -> float:
    return sum(math.comb(tries, k) * share**k * (1 - share) ** (tries - k) for k in range(count, tries + 1))
