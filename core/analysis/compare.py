"""Two runs side by side: headline numbers and layer tables with their differences, and what makes them hard to compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from core.analysis import metrics
from core.analysis.layers import LayerTable, layer_rows
from core.analysis.metrics import Measured
from core.analysis.statistics import median_ratio
from core.analysis.verdict import Verdict, judge
from core.messages.reason import Reason
from core.records import conditions
from core.records.conditions import Condition
from core.records.run import Run, status_said

Json = dict[str, Any]

_DIFFER: dict[str, Callable[[tuple[Reason, ...]], Reason]] = {
    conditions.WORKLOAD: lambda pairs: Reason("analysis.workloads-differ", differing=pairs),
    conditions.MACHINE: lambda pairs: Reason("analysis.machines-differ", differing=pairs),
    conditions.VERSIONS: lambda pairs: Reason("analysis.versions-differ", differing=pairs),
    conditions.TORCH: lambda pairs: Reason("analysis.torch-settings-differ", differing=pairs),
    conditions.VARIABLES: lambda pairs: Reason("analysis.variables-differ", differing=pairs),
}
"""What is said of conditions that differ, by their group, in this order; of target and threads, before them, the two values."""

NOT_INTERLEAVED = Reason("analysis.not-interleaved")


@dataclass(frozen=True)
class TileDifference:
    """One headline number of both runs: medians in ``unit`` ("ns", "tok/s" or "bytes"), and b over a.

    ``low`` and ``high`` bound the ratio (95 %); None where either side has too few requests for that, or for sizes.
    """

    name: str
    unit: str
    a: float | None
    b: float | None
    ratio: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class LayerDifference:
    """One layer's total time in a median moment of ``kind``, scaled to clean time, in both runs. None: not in that run."""

    path: str
    stage: str
    kind: str
    a_ns: float | None
    b_ns: float | None
    delta_ns: float | None
    ratio: float | None


@dataclass(frozen=True)
class Comparison:
    """Two runs, ``a`` the one to compare with. ``warnings`` are clauses without a full stop.

    ``verdicts`` has one entry per metric where both were sides of one A/B test; else it is empty and ``refused`` is a sentence
    that says why, and what differs besides (its fact ``differing``).
    """

    tiles: list[TileDifference]
    layers: list[LayerDifference]
    warnings: tuple[Reason, ...]
    verdicts: list[Verdict] = field(default_factory=list)
    refused: Reason | None = None

    @property
    def untold(self) -> tuple[Reason, ...]:
        """The warnings that ``refused`` does not give already."""
        told = self.refused.facts.get("differing") if self.refused is not None else None
        return tuple(one for one in self.warnings if not isinstance(told, tuple) or one not in told)

    def as_json(self) -> Json:
        """For ``compare --json``: the same fields, reasons in words."""
        return {
            "schema": 1,
            "tiles": [asdict(tile) for tile in self.tiles],
            "layers": [asdict(layer) for layer in self.layers],
            "warnings": [str(warning) for warning in self.warnings],
            "verdicts": [verdict.as_json() for verdict in self.verdicts],
            "refused": None if self.refused is None else str(self.refused),
        }


def compare(a: Run, b: Run) -> Comparison:
    """The differences of ``b`` from ``a``, with a verdict where they took turns in one A/B test."""
    verdicts: list[Verdict] = []
    refused = refusal(a, b)
    trial = b.facts.trial
    if refused is None and trial is not None:
        (side,) = judge((a, b), trial.floors, trial.most_rounds, trial.parts, ended=b.facts.status != "running")
        verdicts = list(side.metrics.values())
    return Comparison(_tiles(a, b), _layers(layer_rows(a), layer_rows(b)), warnings(a, b), verdicts, refused)


def same_trial(a: Run, b: Run) -> bool:
    """Whether the two took turns in one A/B test, as different sides of it."""
    ours, theirs = a.facts.trial, b.facts.trial
    return ours is not None and theirs is not None and ours.id == theirs.id and ours.side != theirs.side


def refusal(a: Run, b: Run) -> Reason | None:
    """Why the two get no verdict, as one sentence that names all that differs; None where they get one."""
    if same_trial(a, b):
        return None
    told = differing(a, b)
    return Reason("analysis.recorded-apart-besides", differing=told) if told else Reason("analysis.recorded-apart")


def _tiles(a: Run, b: Run) -> list[TileDifference]:
    left, right = Measured(a), Measured(b)
    tiles = []
    for metric in metrics.of_table(metrics.LATENCY):
        of_a, of_b = metric.spread(left), metric.spread(right)
        if not metric.shown or not (of_a.n or of_b.n):
            continue
        medians = of_a.median, of_b.median
        measured = median_ratio(of_b, of_a)
        told = (_ratio(*medians), None, None) if measured is None else (measured.ratio, measured.low, measured.high)
        tiles.append(TileDifference(metric.called, metric.unit, *medians, *told))
    for metric in metrics.of_table(metrics.MEMORY, metrics.START):
        values = metric.value(left), metric.value(right)
        if values != (None, None):
            tiles.append(TileDifference(metric.called, metric.unit, *values, _ratio(*values), None, None))
    return tiles


def _layers(a: LayerTable, b: LayerTable) -> list[LayerDifference]:
    """Rows of both, in the order of ``a``, then those that only ``b`` has."""
    ours, theirs = _by_place(a), _by_place(b)
    rows = []
    for place, (stage, a_ns) in ours.items():
        b_ns = theirs[place][1] if place in theirs else None
        delta = None if b_ns is None else b_ns - a_ns
        rows.append(LayerDifference(place[0], stage, place[1], a_ns, b_ns, delta, _ratio(a_ns, b_ns)))
    rows += [
        LayerDifference(path, stage, kind, None, b_ns, None, None)
        for (path, kind), (stage, b_ns) in theirs.items()
        if (path, kind) not in ours
    ]
    return rows


def _by_place(table: LayerTable) -> dict[tuple[str, str], tuple[str, float]]:
    columns = zip(table.path, table.kind, table.stage, table.total_ns, strict=True)
    return {(path, kind): (stage, total_ns) for path, kind, stage, total_ns in columns}


def _ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None or a == 0 else b / a


def warnings(a: Run, b: Run) -> tuple[Reason, ...]:
    """What stands in the way of reading a difference as the effect of one change."""
    found = [*_first_is_partial(a), *_second_is_partial(b)]
    if a.config.model.spec != b.config.model.spec and not (a.imported or b.imported):
        found.append(Reason("analysis.models-differ", first=a.config.model.spec, second=b.config.model.spec))
    found += differing(a, b)
    return tuple(found) if same_trial(a, b) else (*found, NOT_INTERLEAVED)


def differing(a: Run, b: Run) -> tuple[Reason, ...]:
    """What differs of the circumstances, as clauses: target, threads, workload, machine, versions, environment variables."""
    if a.imported or b.imported:
        return ()  # nothing is known that could differ
    found: dict[str, list[tuple[Condition, Any, Any]]] = {}
    for one in conditions.asked_by(conditions.VERDICT):
        values = one.of(a.config, a.facts), one.of(b.config, b.facts)
        if values[0] != values[1]:
            found.setdefault(one.group, []).append((one, *values))
    clauses = []
    if conditions.TARGET in found:
        clauses.append(Reason("analysis.targets-differ", first=_target(a), second=_target(b)))
    if conditions.THREADS in found:
        clauses.append(Reason("analysis.threads-differ", first=a.facts.threads, second=b.facts.threads))
    for group, say in _DIFFER.items():
        if pairs := tuple(pair for one, *values in found.get(group, ()) for pair in _pairs(one, *values)):
            clauses.append(say(pairs))
    return tuple(clauses)


def _pairs(one: Condition, a: Any, b: Any) -> tuple[Reason, ...]:
    """The values that differ, by their names; of a condition that is a mapping those within."""
    if one.group == conditions.VARIABLES:
        return _variables(a, b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return tuple(_two(name, a[name], b.get(name)) for name in a if a[name] != b.get(name))
    return (_two(one.name, a, b),)


def _two(name: str, a: Any, b: Any) -> Reason:
    return Reason("analysis.two-values", name=name.replace("_", " "), first=_known(a), second=_known(b))


def _variables(a: Mapping[str, str] | None, b: Mapping[str, str] | None) -> tuple[Reason, ...]:
    """Not known on one side (None) counts as no variable set."""
    ours, theirs = a or {}, b or {}
    names = [name for name in (*ours, *(name for name in theirs if name not in ours)) if ours.get(name) != theirs.get(name)]
    return tuple(
        Reason("analysis.two-values", name=name, first=_set(ours.get(name)), second=_set(theirs.get(name))) for name in names
    )


def _set(value: str | None) -> Reason | str:
    return Reason("analysis.not-set") if value is None else _short(value)


def _first_is_partial(run: Run) -> list[Reason]:
    if run.imported:
        return [Reason("analysis.first-imported")]
    return [] if run.facts.status == "finished" else [Reason("analysis.first-partial", status=status_said(run.facts.status))]


def _second_is_partial(run: Run) -> list[Reason]:
    if run.imported:
        return [Reason("analysis.second-imported")]
    return [] if run.facts.status == "finished" else [Reason("analysis.second-partial", status=status_said(run.facts.status))]


def _target(run: Run) -> str:
    facts = run.facts.target
    return f"{facts.title} {facts.name}".strip() if facts else run.config.target.id


def _known(value: Any) -> Reason | str:
    return Reason("analysis.not-known") if value is None else _short(str(value))


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"
