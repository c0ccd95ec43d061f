"""What watching costs: each traced moment against the clean ones beside it, so that a drift of the machine cancels out.

Ratio of medians over a whole run, as it was before, showed a machine that warmed up as an effect of -8 or +5 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from core.analysis.intervals import median_interval
from core.analysis.select import counted, kinds_present, of_kind
from core.analysis.statistics import medians_by
from core.records.run import Run
from profilers.trace import Array, Tag

SHARED = math.sqrt(4 / 3)
"""Where traced and clean ones alternate one by one, neighbouring comparisons share a clean one: t - (c + c')/2 is then alike to
the next by 1/6, and the scatter of their middle is 1 + 2/6 times that of independent ones.
"""


@dataclass(frozen=True)
class Effect:
    """A ratio of traced to clean time, and of how many comparisons.

    ``low`` and ``high`` bound it (95 %); None: too few comparisons, and then ``least`` and ``most`` say what was seen.
    """

    ratio: float
    low: float | None
    high: float | None
    n: int
    least: float
    most: float

    @property
    def proven(self) -> bool:
        """Whether the interval leaves "no effect" outside."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


def effects(run: Run, *, intervals: bool = True) -> dict[str, Effect]:
    """By kind of moment what tracing costs; kinds without a traced moment between two clean ones are left out."""
    moments = run.trace.moments
    found = {kind: effect(moments, of_kind(moments, kind), intervals) for kind in kinds_present(moments)}
    return {kind: one for kind, one in found.items() if one is not None}


def effect(moments: Mapping[str, Array], where: Array, intervals: bool = True) -> Effect | None:
    """What tracing costs among the moments in ``where`` (of one kind); None without a traced one between two clean ones."""
    clean, traced = counted(moments, where), counted(moments, where, Tag.TRACED)
    rows = np.flatnonzero((clean | traced) & (moments["duration_ns"] > 0))
    request, is_traced = moments["request"][rows], traced[rows]
    logs = np.log(moments["duration_ns"][rows])
    mixed = np.intersect1d(request[is_traced], request[~is_traced])
    asked = request[request >= 0]
    if len(mixed) or not len(asked):  # within requests, or no requests (an imported trace)
        inside = np.isin(request, mixed) if len(asked) else np.ones(len(rows), bool)
        request, is_traced, logs = request[inside], is_traced[inside], logs[inside]
    else:  # whole requests are clean or traced: each is one value
        is_traced = np.isin(np.unique(request), request[is_traced])
        logs, request = medians_by(logs, request), np.zeros(len(is_traced), np.int64)
    found, shared = _beside(logs, is_traced, request)
    if not len(found):
        return None
    bounds = median_interval(found, SHARED if shared else 1.0) if intervals else None
    low, high = (None, None) if bounds is None else (math.exp(bounds[0]), math.exp(bounds[1]))
    ratios = np.exp(found)
    return Effect(math.exp(float(np.median(found))), low, high, len(found), float(ratios.min()), float(ratios.max()))


def _beside(logs: Array, traced: Array, group: Array) -> tuple[Array, bool]:
    """Each run of traced values less the mean of the clean ones right before and after it, all of one group.

    Also whether most of them share a clean one with the next.
    """
    if not len(logs):
        return np.empty(0), False
    change = np.flatnonzero((traced[1:] != traced[:-1]) | (group[1:] != group[:-1])) + 1
    starts, ends = np.append(0, change), np.append(change, len(logs))
    means = np.add.reduceat(logs, starts) / (ends - starts)
    inner = np.arange(1, len(starts) - 1)
    of = group[starts]
    kept = inner[traced[starts[inner]] & (of[inner] == of[inner - 1]) & (of[inner] == of[inner + 1])]
    before, after = logs[ends[kept - 1] - 1], logs[starts[kept + 1]]
    single = (ends - starts)[kept + 1][:-1] == 1
    return means[kept] - (before + after) / 2, bool(len(single) and single.mean() > 0.5)
