"""Whether times change along a run: Mann and Kendall's test with Theil and Sen's slope, and steps from request to request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from core.analysis.intervals import LEAST_VALUES, median_interval
from core.analysis.samples import request_times
from core.messages.reason import Reason
from core.records.run import Run
from profilers.trace import Array

SIGNIFICANT = 0.01
"""A run is looked at once, but many runs are: one of a hundred steady ones may be called drifting."""

NOTICEABLE = 0.03
"""A drift of less than this over the whole run is not told, however surely it is one."""

MOST_VALUES = 400
"""Of a longer series as many blocks' medians are compared: all pairs of 400 are 80,000."""

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Trend:
    """The change from the first to the last value along the fitted line, as a share (0.2: a fifth slower), and its chance.

    ``risk``: how often values without a trend look as monotonous (two-sided).
    """

    change: float
    risk: float

    @property
    def told(self) -> bool:
        """Whether it is large and sure enough to be told."""
        return self.risk < SIGNIFICANT and abs(self.change) >= NOTICEABLE


def trend(values: Sequence[float] | Array) -> Trend | None:
    """The trend of values above 0 in their order; None for fewer than six.

    Sources: H. B. Mann, Econometrica 13 (1945) 245-259; P. K. Sen, J. Am. Stat. Assoc. 63 (1968) 1379-1389. Logarithms, so that
    the slope is a share.
    """
    given = np.asarray(values, np.float64)
    given = given[given > 0]
    if len(given) > MOST_VALUES:
        given = np.array([np.median(part) for part in np.array_split(given, MOST_VALUES)])
    n = len(given)
    if n < LEAST_VALUES:
        return None
    logs = np.log(given)
    first, second = np.triu_indices(n, 1)
    rises = np.sign(logs[second] - logs[first])
    s = float(rises.sum())
    ties = np.unique(logs, return_counts=True)[1]
    variance = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    z = 0.0 if variance <= 0 or s == 0 else (s - math.copysign(1, s)) / math.sqrt(variance)
    slope = float(np.median((logs[second] - logs[first]) / (second - first)))
    return Trend(math.expm1(slope * (n - 1)), 2 * _NORMAL.cdf(-abs(z)))


def drift(run: Run) -> Trend | None:
    """The trend of the measured requests of a run: of their TPOT, where there is none of E2E or TTFT. None: fewer than six."""
    if not len(run.trace.requests["tags"]):  # an imported trace
        return None
    times = request_times(run)
    known = [one[~np.isnan(one)] for one in (times.tpot_ns, times.e2e_ns, times.ttft_ns)]
    return next((trend(one) for one in known if len(one) >= LEAST_VALUES), None)


def sentence(found: Trend | None) -> Reason | None:
    """What people should know of a trend; None for none that is worth it."""
    if found is None or not found.told:
        return None
    percent = 100 * abs(found.change)
    if found.change > 0:
        return Reason("analysis.drift-slower", change_percent=percent)
    return Reason("analysis.drift-faster", change_percent=percent)


def still_falling(requests: Sequence[Array], within: float) -> bool:
    """Whether the last request is surely faster than the one before it, by more than ``within``.

    Args:
        requests: of each the times of its moments in order; moments of the same place are compared, so that a longer context
            later in each request is no trend. With too few moments, the last requests' totals must all fall.
        within: as a share of its time.
    """
    before, last = requests[-2], requests[-1]
    both = min(len(before), len(last))
    if both >= LEAST_VALUES:
        bounds = median_interval(np.log(last[:both] / before[:both]))
        return bounds is not None and bounds[1] < -math.log1p(within)
    totals = np.array([one.sum() for one in requests[-3:]])
    return bool((np.diff(totals) < 0).all() and totals[-1] * (1 + within) < totals[0])
