"""Where the middle of paired differences lies, and how surely: Hodges and Lehmann's estimate with Wilcoxon's interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from profilers.trace import Array

EXACT_UP_TO = 120
"""Beyond this many differences the normal approximation stands for the exact distribution (they differ by less than 0.1 %)."""


@dataclass(frozen=True)
class HodgesLehmann:
    """The estimate, and bounds at the level that was asked for; None: so few values cannot bound it at that level."""

    estimate: float
    low: float | None
    high: float | None


def hodges_lehmann(differences: Array, level: float) -> HodgesLehmann:
    """The pseudo-median of the differences: the median of all means of two of them (J. L. Hodges and E. L. Lehmann, 1963).

    The interval holds the true one with probability 1 - ``level`` for any distribution that is symmetric about it, however
    heavy its tails; one wild value moves the result by no more than any other value on its side would.
    """
    n = len(differences)
    upper = np.triu_indices(n)
    means = np.sort((differences[upper[0]] + differences[upper[1]]) / 2)
    reach = signed_rank_cutoff(n, level)
    if reach == 0:
        return HodgesLehmann(float(np.median(means)), None, None)
    return HodgesLehmann(float(np.median(means)), float(means[reach - 1]), float(means[-reach]))


@lru_cache(maxsize=2048)
def signed_rank_cutoff(n: int, level: float) -> int:
    """How many of the smallest (and of the largest) means of two are cut off: the most with ``2 P(W < cut) <= level``.

    W is Wilcoxon's sum of signed ranks of ``n`` values. 0: not even the outermost means bound the middle at that level.
    """
    if n <= EXACT_UP_TO:
        below = 2 * np.cumsum(_distribution(n))
        return int(np.searchsorted(below, level * (1 + 1e-12), side="right"))
    mean, deviation = n * (n + 1) / 4, math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    return max(0, int(mean + NormalDist().inv_cdf(level / 2) * deviation))


@lru_cache(maxsize=256)
def _distribution(n: int) -> Array:
    """P(W = w) for w from 0 to n (n + 1) / 2: each rank counts or not, by a fair coin."""
    chance = np.ones(1)
    for rank in range(1, n + 1):
        longer = np.zeros(len(chance) + rank)
        longer[: len(chance)] = chance
        longer[rank:] += chance
        chance = longer / 2
    return chance
