"""Faster, slower or can't tell: what an A/B test says about each side against its first one, honest however often it is asked.

How it decides. In each round every side answers one request; a clean round leaves d = log(side / baseline) for each metric,
or, where the sides took turns token by token, one for each stretch of its tokens (TPOT alone).
Under A/A the two are alike, so d is symmetric about 0 whatever the noise looks like: the interval is that of the signed ranks
(``signed_rank``), and a risk of 5 % per side is shared over the metrics and over looks fixed beforehand (``alpha_spending``).
Between two looks the word of the last one stands, while ratio and interval follow every round.

What it assumes. Taking turns (A B, B A, …) cancels a steady drift. Noise whose neighbours are alike makes successive d's alike
too, by an eighth at most: simulated with a correlation of 0.5 from request to request, A/A tests end in a false verdict on one
metric at its 2 % in 4.8 % of cases, without it in 2 to 2.7 % (``tests/core/analysis/test_verdict.py``, which simulates
stretches too, with noise that lasts from token to token). The A/A floor comes on top.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from core.analysis import metrics
from core.analysis.alpha_spending import alpha_spent, levels, looks
from core.analysis.layer_verdicts import LayerVerdict, layer_verdicts
from core.analysis.metrics import Judged
from core.analysis.samples import RequestTimes, request_times
from core.analysis.select import of_kind
from core.analysis.signed_rank import HodgesLehmann, hodges_lehmann
from core.analysis.stopping import clean_rounds
from core.analysis.word import Word
from core.messages.reason import Reason
from core.models.base import generates
from core.records.noise_floors import ASSUMED_FLOOR
from core.records.run import Run
from profilers.trace import Array

__all__ = ["LayerVerdict", "SideVerdict", "Verdict", "Word", "floors_of", "judge", "layer_verdicts"]

RISK = 0.05
"""The chance of any false verdict about one side, over all metrics and all looks."""

NEGLIGIBLE = 0.01
"""A difference that is known to be smaller than this, or than the floor, needs no more rounds."""

FUTILE = 0.05
"""An A/B test goes on as long as the chance to decide it within its cap is at least this."""

MOST_ROUNDS = 60
NO_FLOOR = Reason("analysis.no-floor", assumed_percent=100 * ASSUMED_FLOOR)
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Verdict:
    """One metric of one side. ``ratio`` is side over baseline of times, so below 1 is faster.

    ``low`` and ``high`` bound it, over the whole A/B test (not at one moment only); None: too few rounds so far. ``n`` pairs
    are in it: clean rounds, or stretches of their tokens. ``floor``: the relative difference that A/A tests show here, 0 where
    none is known. ``hopeless``: no difference worth the name, or none that could be told within the cap. ``why`` is a sentence
    or two.
    """

    metric: str
    word: Word
    ratio: float | None
    low: float | None
    high: float | None
    n: int
    floor: float
    decided: bool
    hopeless: bool
    why: Reason
    looked: bool = True  # False before the first look, when nothing is said yet

    def as_json(self) -> dict[str, Any]:
        """The fields, with ``why`` in words."""
        return {**asdict(self), "why": str(self.why)}


@dataclass(frozen=True)
class SideVerdict:
    """What is known of one side, by metric in the order of ``metrics.judged``. ``side`` is its place among the runs judged."""

    side: int
    metrics: Mapping[str, Verdict]

    @property
    def main(self) -> Verdict | None:
        """The metric that the run is about: TPOT, for encoders E2E."""
        return next(iter(self.metrics.values()), None)


def judge(
    runs: Sequence[Run], floors: Mapping[str, float], most_rounds: int = MOST_ROUNDS, parts: int = 1, *, ended: bool = False
) -> tuple[SideVerdict, ...]:
    """The verdicts on all sides but the first, which they are compared with. A few milliseconds at 60 rounds.

    Args:
        runs: one per side of one A/B test; the k-th measured requests of all make round k.
        floors: relative difference by metric that this machine shows in A/A tests; ``ASSUMED_FLOOR`` where none is known.
        most_rounds: the cap that the A/B test began with, which the looks are planned for: it must not change on the way.
        parts: in how many stretches of tokens each request's TPOT is compared; neither must that.
        ended: no round will follow, so what was measured since the last look is looked at too.
    """
    times = [request_times(run, parts) for run in runs]
    asked = _metrics(runs)
    share = RISK / sum(how.risk for how in asked.values())
    rounds = min(len(one.e2e_ns) for one in times)
    plan = {
        metric: _Plan(
            metric,
            most_rounds,
            share * how.risk,
            floors.get(metric, ASSUMED_FLOOR),
            metric in floors,
            ended or rounds >= most_rounds,
            parts if how.stretches else 1,
        )
        for metric, how in asked.items()
    }
    return tuple(
        SideVerdict(side, {metric: _verdict(differences(times[0], one, asked[metric]), plan[metric]) for metric in plan})
        for side, one in enumerate(times[1:], 1)
    )


def floors_of(runs: Sequence[Run]) -> dict[str, float]:
    """What an A/A test says this machine cannot tell apart, by metric, as a relative difference (0.008 is 0.8 %).

    It is the outermost bound of the 95 % interval of the ratio, of all sides: a difference that the A/B test cannot rule out
    though there is none. Metrics of fewer than six rounds are left out.
    """
    times = [request_times(run) for run in runs]
    floors = {}
    for metric, how in _metrics(runs).items():
        bounds = []
        for one in times[1:]:
            values = differences(times[0], one, how)
            found = hodges_lehmann(values, RISK) if len(values) else None
            if found is not None and found.low is not None and found.high is not None:
                bounds += [abs(found.low), abs(found.high)]
        if bounds:
            floors[metric] = math.expm1(max(bounds))
    return floors


def differences(baseline: RequestTimes, side: RequestTimes, how: Judged) -> Array:
    """log(side / baseline) of each pair (round, or stretch of it) that was measured clean on both sides, in their order."""
    a, b = (one.stretch_ns if how.stretches else how.of(one) for one in (baseline, side))
    rounds = min(len(a), len(b))
    a, b = a[:rounds], b[:rounds]
    both = (a > 0) & (b > 0)  # false for NaN
    return np.log(b[both] / a[both])


def _metrics(runs: Sequence[Run]) -> dict[str, Judged]:
    """What is judged of these runs; the first is what they are about."""
    first = runs[0]
    if (
        not generates(first.facts.model.task if first.facts.model is not None else None)
        or of_kind(first.trace.moments, "forward").any()
    ):
        there = {metrics.WHOLE}
    else:
        there = {metrics.FIRST, metrics.WHOLE} | ({metrics.LATER} if first.config.workload.new_tokens > 1 else set())
    return {one.id: one.judged for one in metrics.judged() if one.judged is not None and one.made_of in there}


@dataclass(frozen=True)
class _Plan:
    """How one metric is judged; ``alpha`` is its part of the risk."""

    metric: str
    most_rounds: int
    alpha: float
    floor: float
    floor_known: bool
    ended: bool
    parts: int = 1

    @property
    def told_floor(self) -> float:
        """As ``Verdict.floor``: what is only assumed is not told as if it had been measured."""
        return self.floor if self.floor_known else 0.0

    @property
    def most(self) -> int:
        """Pairs, if all can be used."""
        return self.parts * clean_rounds(self.most_rounds)

    def told(self, pairs: int) -> Reason:
        """So many pairs, in words."""
        return Reason("analysis.clean-rounds", n=pairs) if self.parts == 1 else Reason("analysis.stretches", n=pairs)

    @property
    def every_look(self) -> tuple[int, ...]:
        return looks(self.most, self.alpha)

    def passed(self, n: int) -> tuple[int, float] | None:
        """The last look so far and its level; None before the first. An ended test is looked at once more."""
        sizes = [size for size in self.every_look if size <= n]
        if self.ended and n < self.most and n > (sizes[-1] if sizes else 0):
            risks = [*(alpha_spent(size, self.most, self.alpha) for size in sizes), self.alpha]
            return n, levels((*sizes, n), tuple(risks))[-1]
        return (sizes[-1], self.level(sizes[-1])) if sizes else None

    def level(self, look: int) -> float:
        """The level at a planned look, which does not depend on later ones."""
        sizes = self.every_look
        return levels(sizes, tuple(alpha_spent(size, self.most, self.alpha) for size in sizes))[sizes.index(look)]


def _verdict(values: Array, plan: _Plan) -> Verdict:
    n = len(values)
    if n == 0:
        why = Reason("analysis.no-clean-round")
        return Verdict(plan.metric, Word.UNDECIDED, None, None, None, 0, plan.told_floor, False, False, why, looked=plan.ended)
    passed = plan.passed(n)
    shown = hodges_lehmann(values, passed[1] if passed else plan.level(plan.every_look[0]))
    word = Word.UNDECIDED
    hopeless, why = False, Reason("analysis.first-look", pairs=plan.told(plan.every_look[0]))
    if passed:
        look, level = passed
        looked = shown if look == n else hodges_lehmann(values[:look], level)
        word = _word(looked, plan.floor)
        hopeless, why = _outlook(word, looked, look, level, plan)
    if not plan.floor_known:
        why = Reason("analysis.with-assumed-floor", why=why, no_floor=NO_FLOOR)
    low, high = (None if bound is None else math.exp(bound) for bound in (shown.low, shown.high))
    decided = word != Word.UNDECIDED
    told = plan.told_floor
    looked_at = passed is not None or plan.ended
    return Verdict(plan.metric, word, math.exp(shown.estimate), low, high, n, told, decided, hopeless, why, looked_at)


def _word(looked: HodgesLehmann, floor: float) -> Word:
    if looked.low is None or looked.high is None:
        return Word.UNDECIDED
    reach = math.log1p(floor)
    if looked.high < -reach:
        return Word.FASTER
    return Word.SLOWER if looked.low > reach else Word.UNDECIDED


def _outlook(word: Word, looked: HodgesLehmann, look: int, level: float, plan: _Plan) -> tuple[bool, Reason]:
    """Whether more rounds are in vain, and a sentence about where the A/B test stands."""
    after = Reason("analysis.after", pairs=plan.told(look))
    if word == Word.FASTER:
        return False, Reason("analysis.interval-below", floor_percent=100 * plan.floor, after=after)
    if word == Word.SLOWER:
        return False, Reason("analysis.interval-above", floor_percent=100 * plan.floor, after=after)
    if looked.low is None or looked.high is None:
        return False, Reason("analysis.too-few", pairs=plan.told(look))
    outermost = max(abs(looked.low), abs(looked.high))
    if outermost <= math.log1p(max(plan.floor, NEGLIGIBLE)):
        return True, Reason("analysis.no-difference", most_percent=100 * math.expm1(outermost), after=after)
    if plan.ended or look >= plan.most:
        return True, Reason("analysis.cannot-be-told", after=after)
    chance = _chance(looked, look, level, plan)
    if chance < FUTILE:
        return True, Reason("analysis.hardly-told", n=plan.most_rounds, chance_percent=100 * chance, after=after)
    following = next(size for size in plan.every_look if size > look)
    return False, Reason("analysis.not-told-yet", after=after, next_look=following)


def _chance(looked: HodgesLehmann, look: int, level: float, plan: _Plan) -> float:
    """The chance that the last planned look decides, as far as this one can say.

    Predictive power with nothing presumed: the final estimate lies about the present one with the variance that is still to be
    lost (D. J. Spiegelhalter, L. S. Freedman and P. R. Blackburn, Controlled Clinical Trials 7 (1986) 8-17).
    """
    assert looked.low is not None
    assert looked.high is not None
    error = max((looked.high - looked.low) / 2 / _NORMAL.inv_cdf(1 - level / 2), 1e-12)
    final = error * math.sqrt(look / plan.most)
    needed = math.log1p(plan.floor) + _NORMAL.inv_cdf(1 - plan.level(plan.most) / 2) * final
    still = error * math.sqrt(1 - look / plan.most)
    return 1 - _NORMAL.cdf((needed - looked.estimate) / still) + _NORMAL.cdf((-needed - looked.estimate) / still)
