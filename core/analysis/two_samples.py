"""Whether two samples differ by more than chance: of means, of shares, and of several figures at once."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np

from core.analysis.student import t_risk

Name = TypeVar("Name", bound=Hashable)

MOST_FREEDOM = 200
"""Degrees of freedom that are told apart: with more, Student's t is all but normal, and errs on the side of finding nothing."""


def welch_risk(apart: float, one: tuple[float, int], other: tuple[float, int], *, skewed: bool = False) -> float:
    """The chance that means of two equal populations lie so far apart: B. L. Welch, Biometrika 34 (1947) 28-35.

    The degrees of freedom are rounded down, which errs on the side of finding nothing.

    Args:
        apart: how far the two means lie apart.
        one: the standard error of the first mean, and of how many independent values it is (at least 2).
        other: the same of the second.
        skewed: single values lie far to one side, so that means of few scatter more than their errors say. Then the smaller
            sample's degrees of freedom are taken, which are the least that there can be.
    """
    squares = [error**2 for error, _ in (one, other)]
    if sum(squares) == 0:
        return 0.0 if apart else 1.0
    freedom = sum(squares) ** 2 / sum(square**2 / (n - 1) for square, (_, n) in zip(squares, (one, other), strict=True))
    if skewed:
        freedom = min(n for _, n in (one, other)) - 1
    whole = max(1, math.floor(min(freedom, MOST_FREEDOM) + 1e-9))
    return float(t_risk(np.array([apart / math.sqrt(sum(squares))]), whole)[0])


def fisher_risk(one: tuple[int, int], other: tuple[int, int]) -> float:
    """The chance that two equal shares come out as unlike as these, or more: R. A. Fisher's exact test, two-sided.

    Args:
        one: how many of how many.
        other: the same of the second sample.
    """
    (hits, n), (others, m) = one, other
    both = hits + others
    least, most = max(0, both - m), min(n, both)
    counts = np.arange(least, most, dtype=np.float64)  # how each chance follows from the one before it
    steps = np.log((n - counts) * (both - counts) / ((counts + 1) * (m - both + counts + 1)))
    logs = np.append(0.0, np.cumsum(steps))
    chances = np.exp(logs - logs.max())
    return float(chances[chances <= chances[hits - least] * (1 + 1e-9)].sum() / chances.sum())


def apart(risks: Mapping[Name, float], level: float) -> set[Name]:
    """Which of several comparisons differ, so that the chance of any false one is ``level``, however they depend on each other.

    S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    found: set[Name] = set()
    for tried, name in enumerate(sorted(risks, key=lambda one: risks[one])):
        if risks[name] > level / (len(risks) - tried):
            break
        found.add(name)
    return found
