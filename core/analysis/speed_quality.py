"""Speed against quality: a point per run, which runs may stand in one picture, and which no other run beats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from core.analysis.quality_headline import BULK, DECODE, headline
from core.analysis.samples import samples
from core.analysis.select import counted, kinds_present, of_kind
from core.analysis.statistics import spread
from core.messages.reason import Reason
from core.models.base import TASKS
from core.pass_api.base import title_of_id
from core.records import conditions
from core.records.run import Quality, Run

COSTS: Mapping[str, tuple[str, str]] = {
    "kld": ("KLD to the unoptimized model", "nats"),
    "cosine": ("cosine distance to the unoptimized model", ""),
    "disagreement": ("answers that differ from the unoptimized model", "share"),
    "tokens": ("tokens that differ from the unoptimized model", "share"),
}
"""What a cost is by its kind, and its unit; 0 is equal to the unoptimized model in all of them."""

_SHOWN = ("finished", "cancelled", "interrupted")
NO_QUALITY = Reason("analysis.no-quality-cost")

_ANOTHER = {
    conditions.MODEL: Reason("analysis.another-model"),
    conditions.WORKLOAD: Reason("analysis.another-workload"),
    conditions.MACHINE: Reason("analysis.another-machine"),
    conditions.TARGET: Reason("analysis.another-target"),
    conditions.VERSIONS: Reason("analysis.other-versions"),
    conditions.THREADS: Reason("analysis.other-threads"),
}
"""Why two runs may not stand in one picture, by the group of conditions that differ, in this order."""

Setting = Mapping[str, Any]
"""What must be alike for two runs to stand in one picture, by the ids of conditions; without those that a pass sets."""


@dataclass(frozen=True)
class Point:
    """One run. ``speed`` is in ``speed_unit`` ("tok/s" decoded, or "inputs/s"), ``low`` and ``high`` its 95 % interval.

    ``cost`` is of ``cost_kind`` (one of ``COSTS``) with its standard error; 0 is no cost, None not measured. It is the worse of
    ``cost_bulk`` and ``cost_decode``; ``cost_path`` says which ("": there was one way only). ``apart`` says why the run may not
    be held against the others (None: it may): such runs, and those without a cost, are never on the front.
    """

    run_id: int
    name: str
    passes: tuple[str, ...]  # titles; none: the unoptimized model
    speed: float
    low: float | None
    high: float | None
    cost: float | None
    cost_error: float | None
    cost_kind: str
    on_front: bool = False
    speed_unit: str = "tok/s"
    apart: Reason | None = None
    model: str = ""  # for people
    created: str = ""
    task: str = ""
    measured_on: str = ""  # text and baseline of the cost
    setting: Setting = field(default_factory=dict)
    cost_path: str = ""
    cost_bulk: float | None = None
    cost_decode: float | None = None
    test: str = ""  # id of the A/B test in which it took turns; "": it was recorded apart

    @property
    def baseline(self) -> bool:
        """Whether this is the unoptimized model."""
        return not self.passes


def points(runs: Sequence[Run], reference: int | None = None) -> list[Point]:
    """A point for each run whose speed was measured, in the order of ``runs``; see ``placed`` for ``reference``."""
    return placed([found for run in runs if (found := point(run)) is not None], reference)


def point(run: Run) -> Point | None:
    """The run's speed and cost by itself; None where its speed was not measured, or while it is running."""
    facts, config = run.facts, run.config
    if facts.status not in _SHOWN:
        return None
    found, unit = samples(run), "tok/s"
    speeds = found.decode_tokens_per_s
    if not len(speeds):
        positive = found.e2e_ns[found.e2e_ns > 0]
        speeds, unit = 1e9 * config.workload.batch / positive, "inputs/s"
    measured = spread(speeds)  # one value per request
    if measured.median is None:
        return None
    passes = tuple(report.title for report in facts.passes) or tuple(title_of_id(choice.id) for choice in config.passes)
    cost = cost_of(facts.quality) if passes else Cost(0.0)
    quality = facts.quality
    return Point(
        run_id=run.id,
        name=run.name or f"run {run.id}",
        passes=passes,
        speed=measured.median,
        low=measured.low,
        high=measured.high,
        cost=cost.cost,
        cost_error=cost.error,
        cost_kind=cost.kind,
        cost_path=cost.path,
        cost_bulk=cost.bulk,
        cost_decode=cost.decode,
        speed_unit=unit,
        model=facts.model.name if facts.model else config.model.spec,
        created=run.created,
        task=facts.model.task if facts.model else "",
        measured_on=f"{quality.text}, against {quality.baseline}" if quality is not None and passes else "",
        setting=setting(run),
        test="" if facts.trial is None else facts.trial.id,
    )


def placed(found: Sequence[Point], reference: int | None = None) -> list[Point]:
    """The points with the one kind of cost that they share, those apart marked, and the Pareto front among the rest.

    Args:
        found: points of ``point``, in any order.
        reference: id of the run that the others must be comparable with; None (or unknown): the last one of the largest group
            that is comparable and has costs.
    """
    if not found:
        return []
    with_cost = [one for one in found if one.cost is not None and one.passes]
    chosen = next((one for one in found if one.run_id == reference), None) or _typical(with_cost or found)
    alike = [one for one in with_cost if not difference(chosen.setting, one.setting)]
    kinds = Counter(one.cost_kind for one in alike if one.cost_kind)
    kind = chosen.cost_kind or (kinds.most_common(1)[0][0] if kinds else _usual_kind(chosen.task))
    texts = [one.measured_on for one in alike if one.measured_on and one.cost_kind == kind]
    text = chosen.measured_on or (texts[-1] if texts else "")
    marked = [_marked(one, chosen, kind, text) for one in found]
    best = _front([one for one in marked if one.cost is not None and not one.apart])
    return [replace(one, on_front=one.run_id in best) for one in marked]


def behind_said(drawn: Sequence[Point]) -> str:
    """What a run that is behind another is called: whether the runs drawn took turns, which is what makes it sure."""
    tests = [one.test for one in drawn if not one.apart]
    together = Counter(test for test in tests if test)
    if len(together) == 1 and together.total() == len(tests) > 1:
        return "behind, in one A/B test"
    return "behind, not all interleaved" if any(count > 1 for count in together.values()) else "behind, not interleaved"


def setting(run: Run) -> Setting:
    """What the run's speed and cost depend on besides its passes."""
    config = run.config
    return {one.id: one.of(config, run.facts) for one in conditions.asked_by(conditions.POINT) if not one.free(config)}


def difference(a: Setting, b: Setting) -> Reason | None:
    """Why two settings are not one: "another model", or None."""
    asked = conditions.asked_by(conditions.POINT)
    groups = {one.group for one in asked if one.id in a and one.id in b and a[one.id] != b[one.id]}
    return next((_ANOTHER[group] for group in _ANOTHER if group in groups), None)


def gains(ours: Mapping[str, float], plain: Mapping[str, float]) -> dict[str, float]:
    """By kind of moment how many times as fast ``ours`` is as ``plain``, both of ``forward_medians``; without intervals."""
    return {kind: plain[kind] / ours[kind] for kind in ours if kind in plain and ours[kind] > 0}


def forward_medians(run: Run) -> dict[str, float]:
    """Median duration of a clean forward, ns, by kind of moment; kinds without one are left out."""
    moments = run.trace.moments
    found = {}
    for kind in kinds_present(moments):
        chosen = counted(moments, of_kind(moments, kind))
        if chosen.any():
            found[kind] = float(np.median(moments["duration_ns"][chosen]))
    return found


class Cost(NamedTuple):
    """A run's quality cost with its standard error: of which kind, on which path, and what it is on each of the two."""

    cost: float | None = None
    error: float | None = None
    kind: str = ""
    path: str = ""
    bulk: float | None = None
    decode: float | None = None


def cost_of(quality: Quality | None) -> Cost:
    """The headline of a quality cost. Equal tokens cost nothing, whatever kind the other runs have."""
    if quality is None:
        return Cost()
    found = headline(quality)
    if found is None:
        return Cost(0.0) if quality.lossless else Cost()
    return Cost(found.cost, found.figure.error, found.kind, found.path, found.costs.get(BULK), found.costs.get(DECODE))


def _typical(found: Sequence[Point]) -> Point:
    """The last of those that most others are comparable with."""
    alike = [sum(not difference(one.setting, other.setting) for other in found) for one in found]
    return next(one for one, count in zip(reversed(found), reversed(alike), strict=True) if count == max(alike))


def _usual_kind(task: str) -> str:
    if task not in TASKS or TASKS[task].generates:
        return "kld"
    return "cosine" if task == "embedding" else "disagreement"


def _marked(one: Point, chosen: Point, kind: str, text: str) -> Point:
    apart = difference(chosen.setting, one.setting)
    if not apart and one.cost_kind not in ("", kind):
        apart = Reason("analysis.quality-measured-otherwise")
    elif not apart and one.measured_on and text and one.measured_on != text and one.cost_kind:
        apart = Reason("analysis.quality-measured-on", measured_on=one.measured_on)
    elif not apart and one.speed_unit != chosen.speed_unit:
        apart = Reason("analysis.speed-in", unit=one.speed_unit)
    return replace(one, apart=apart, cost_kind=one.cost_kind or kind)


def _front(candidates: Sequence[Point]) -> set[int]:
    """Runs that no other beats: each is faster than all that cost as much or less, or its interval reaches theirs.

    These runs were recorded apart, so bars that overlap are no reason to call one of two the better.
    """
    best, kept = 0.0, set()
    clearly = 0.0  # slower than this is behind
    for one in sorted(candidates, key=lambda one: (one.cost or 0.0, -one.speed)):
        if one.speed > best or (one.high is not None and one.high >= clearly):
            kept.add(one.run_id)
        if one.speed > best:
            best, clearly = one.speed, one.speed if one.low is None else one.low
    return kept
