"""Which layers of an A/B test's sides got faster or slower, from its traced rounds, though so many are asked at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.analysis import metrics
from core.analysis.layers import per_moment
from core.analysis.select import SET_ASIDE, of_kind, tagged
from core.analysis.student import t_reach, t_risk
from core.analysis.word import Word
from core.records.noise_floors import ASSUMED_FLOOR
from core.records.run import Run
from profilers.trace import KINDS, PART_OF, Array, Tag

FALSE_SHARE = 0.05
"""Of the layers called faster or slower this share is expected to be called so falsely."""

LEAST_ROUNDS = 3


@dataclass(frozen=True)
class LayerVerdict:
    """One layer in one kind of moment. ``ratio`` is side over baseline of its time with all it calls, below 1 is faster.

    ``low`` and ``high`` bound it with the number of layers in mind; None: fewer than three traced rounds. ``a_ns`` and ``b_ns``
    are the medians over ``n`` rounds of baseline and side.
    """

    side: int
    path: str
    stage: str
    kind: str
    ratio: float
    low: float | None
    high: float | None
    word: Word
    a_ns: float
    b_ns: float
    n: int


@dataclass(frozen=True)
class _Times:
    """Time of one layer and kind in each measured request's traced moments: a median per request, NaN without one."""

    stage: str
    per_round_ns: Array


def layer_verdicts(runs: Sequence[Run], floors: Mapping[str, float] | None = None) -> list[LayerVerdict]:
    """Every layer that both a side and the first one have, in model order, of the traced rounds of one A/B test.

    A round gives one log ratio per layer, of medians over its moments, so that a mean and Student's t apply although rounds are
    few. All layers of a side are asked at once: the rule of Y. Benjamini and Y. Hochberg (J. R. Statist. Soc. B 57 (1995)
    289-300) keeps the false ones among those told apart at 5 %, and the intervals are at the level that it arrives at, so that
    a layer is told apart exactly when its interval says so. That holds for asking once: ask when the A/B test has ended, and
    take what is shown before as provisional.

    Args:
        runs: one per side.
        floors: as for ``judge``; layers of decode moments take that of TPOT, of prefill that of TTFT.
    """
    times = [_layer_times(run) for run in runs]
    found = []
    for side, of_side in enumerate(times[1:], 1):
        found += _side(side, times[0], of_side, floors or {})
    return found


Place = tuple[str, str]


def _side(
    side: int, first: dict[Place, _Times], second: dict[Place, _Times], floors: Mapping[str, float]
) -> list[LayerVerdict]:
    paired = {place: _paired(first[place].per_round_ns, second[place].per_round_ns) for place in first if place in second}
    paired = {place: both for place, both in paired.items() if both.size}
    if not paired:
        return []
    logs = [np.log(b / a) for a, b in paired.values()]
    rounds = np.array([len(values) for values in logs])
    mean = np.array([values.mean() for values in logs])
    error = np.array([values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0.0 for values in logs])
    metric = {one.made_of: one.id for one in metrics.judged()[::-1]}  # the first that verdicts are given on, of each part
    floor = np.array([math.log1p(floors.get(metric[PART_OF[kind]], ASSUMED_FLOOR)) for _, kind in paired])
    reach = _reach(mean, np.maximum(error, 1e-9), rounds, floor)
    found = []
    for row, ((path, kind), (a, b)) in enumerate(paired.items()):
        low = high = None
        word = Word.UNDECIDED
        if rounds[row] >= LEAST_ROUNDS:
            low, high = mean[row] - reach[row], mean[row] + reach[row]
            word = Word.FASTER if high < -floor[row] else Word.SLOWER if low > floor[row] else word
            low, high = math.exp(max(low, -700)), math.exp(min(high, 700))
        ratio, medians = math.exp(mean[row]), (float(np.median(a)), float(np.median(b)))
        stage = first[path, kind].stage
        found.append(LayerVerdict(side, path, stage, kind, ratio, low, high, word, *medians, int(rounds[row])))
    return found


def _paired(a: Array, b: Array) -> Array:
    """The rounds in which both were measured: [2, rounds]."""
    rounds = min(len(a), len(b))
    both = np.stack([a[:rounds], b[:rounds]])
    return both[:, (both > 0).all(axis=0)]  # false for NaN


def _reach(mean: Array, error: Array, rounds: Array, floor: Array) -> Array:
    """Half the width of each interval, at the level that Benjamini and Hochberg's rule arrives at."""
    risk = np.ones(len(mean))
    sizes = [int(size) for size in np.unique(rounds) if size >= LEAST_ROUNDS]
    for size in sizes:
        mine = rounds == size
        risk[mine] = t_risk(np.maximum(np.abs(mean[mine]) - floor[mine], 0) / error[mine], size - 1)
    steps = FALSE_SHARE * np.arange(1, len(risk) + 1) / len(risk)
    passing = np.flatnonzero(np.sort(risk) <= steps)
    level = float(steps[passing[-1] if len(passing) else 0])
    reach = np.full(len(mean), np.inf)
    for size in sizes:
        mine = rounds == size
        reach[mine] = t_reach(level, size - 1) * error[mine]
    return reach


def _layer_times(run: Run) -> dict[Place, _Times]:
    """By path and kind, what each measured request says of a layer."""
    trace = run.trace
    requests = np.flatnonzero(~tagged(trace.requests, Tag.WARMUP | Tag.PROFILED))
    moments = trace.moments
    usable = tagged(moments, Tag.TRACED) & ~tagged(moments, SET_ASIDE | Tag.CLEAN)
    calm = usable & ~tagged(moments, Tag.PERTURBED | Tag.SETTLING)
    identity = np.arange(len(trace.layers))
    found = {}
    for kind in KINDS:
        where = usable & of_kind(moments, kind)
        if not where.any():
            continue
        # a request with no calm moment of the kind (a single prefill, say) is taken as it is
        where &= calm | ~np.isin(moments["request"], moments["request"][calm & where])
        (sums,) = per_moment(trace, where, identity, len(identity), "duration_ns")
        medians = np.full((len(identity), len(requests)), np.nan)
        of_request = moments["request"][where]
        for place, request in enumerate(requests):
            columns = of_request == request
            if columns.any():
                medians[:, place] = np.median(sums[:, columns], axis=1)
        for row in np.flatnonzero((medians > 0).any(axis=1)):
            layer = trace.layers[row]
            found[layer.path, kind] = _Times(layer.stage, medians[row])
    return found
