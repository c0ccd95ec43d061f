"""A run as the JSON that ``run --json``, ``show --json`` and the export write; its keys and units are promises (``cli.md``)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from core.analysis import metrics
from core.analysis.counts import COUNTS
from core.analysis.drift import drift, sentence
from core.analysis.energy import energy
from core.analysis.facts import (
    model_json,
    outputs_json,
    passes_json,
    quality_json,
    requests_json,
    target_json,
    trial_json,
    workload_json,
)
from core.analysis.imported import steps_json
from core.analysis.intervals import NAME
from core.analysis.layer_rates import add_rates
from core.analysis.longest import longest_json
from core.analysis.metrics import Measured
from core.analysis.missing_data import unavailable_json
from core.analysis.observer import effects
from core.analysis.operators import slowdown
from core.analysis.select import all_disturbed, first_tokens, kinds_present, main_kind, of_kind, tagged, warming_up
from core.analysis.series import layer_rows, stages
from core.analysis.speculation import speculation
from core.analysis.statistics import Spread
from core.messages.reason import Reason
from core.records.run import Run
from profilers.trace import Tag

SCHEMA = 1
BUSY_CORE_SHARE = 0.25
"""Others may take this much of one core before the machine counts as too busy to measure."""

_COURSE = ("status", "error", "load_ns", "apply_ns", "compile_ns", "cold_start_ns")
"""Facts about how the run went that stand in its JSON under their own names."""

_NOT_MEASURED = Tag.WARMUP | Tag.PROFILED
Json = dict[str, Any]


def summarize(run: Run, intervals: bool = True, newest: int | None = None) -> Json:
    """Everything about a run, ready for ``json.dumps(..., allow_nan=False)``. ``intervals=False`` leaves bounds out.

    ``newest`` makes stages and layers of that many traced moments of each kind only: what a run that goes on has time for.

    ``provisional``: the run is still warming up, and its metrics are those of warm-up. ``disturbed`` of a metric: something
    disturbed every moment that it is made of, and there were none else.

    Times are ns, sizes bytes, rates tokens per second of the whole batch. Headline numbers come from clean moments
    (``select.counted``); layer and stage times are those of a median moment, scaled to clean time (``scaled_to``). Cycles and
    other counts of layers are those of a median traced moment, not scaled.
    """
    early = warming_up(run)
    spreads, joules, layers = headline_json(run, early, intervals), energy_json(run), layers_json(run, newest)
    return {
        "schema": SCHEMA,
        **_asked(run),
        **_course(run, provisional=early is not None),
        "metrics": spreads,
        "observer_effect": observer_effect(run, intervals),
        "noise": noise_json(run),
        "drift": drift_json(run),
        "memory": memory_json(Measured(run)),
        "phases": dict(run.facts.phase_peak_bytes),
        "energy": joules,
        "speculation": speculation_json(run),
        "quality": quality_json(run),
        "kernels": slowdown(run),
        "steps": steps_json(run) if run.imported else [],
        "operators": longest_json(run) if run.facts.status != "running" else [],
        "stages": stages_json(run, newest),
        "layers": layers,
        "moments": moments_json(run),
        "outputs": outputs_json(run),
        "unavailable": unavailable_json(run, spreads, layers, joules),
    }


def _asked(run: Run) -> Json:
    """Which run it is, and what was asked of which model, where."""
    return {
        "id": run.id,
        "name": run.name,
        "created": run.created,
        "note": run.note,
        "model": model_json(run),
        "passes": passes_json(run),
        "target": target_json(run),
        "workload": workload_json(run),
        "requests": requests_json(run),
        "profilers": list(run.config.profilers),
        "environment": dict(run.facts.environment),
    }


def _course(run: Run, *, provisional: bool) -> Json:
    """How the run went: its status, what it took to begin, and what ended it."""
    facts = run.facts
    return {
        **{name: getattr(facts, name) if name != "error" else _said(facts.error) for name in _COURSE},
        "warmup_done": _said(facts.warmup_done),
        "provisional": provisional,
        "stopped": _said(facts.stopped),
        "trial": trial_json(run),
        "instruments": dict(facts.instruments),
    }


def _said(reason: Reason | None) -> str | None:
    return None if reason is None else str(reason)


def disturbed_metrics(run: Run) -> list[str]:
    """Metrics for which every moment there is was disturbed."""
    moments = run.trace.moments
    first = first_tokens(moments)
    of_first = all_disturbed(moments, first)
    of_rest = all_disturbed(moments, ~first & of_kind(moments, main_kind(moments)))
    disturbed = {metrics.FIRST: of_first, metrics.LATER: of_rest, metrics.WHOLE: of_first or of_rest, metrics.INPUT: of_rest}
    return [one.id for one in metrics.METRICS if disturbed.get(one.made_of)]


def headline_json(run: Run, early: Run | None, intervals: bool = True) -> Json:
    """The metrics of the run, or of its warm-up (``early``) as long as there is nothing else, with what makes some doubtful."""
    spreads = metrics_json(Measured(early or run), intervals)
    if early is not None:
        spreads = {name: {**one, "provisional": True} for name, one in spreads.items()}
    for name in disturbed_metrics(early or run):
        spreads[name] = {**spreads[name], "disturbed": True}
    return spreads


def metrics_json(measured: Measured, intervals: bool = True) -> Json:
    """Every sampled metric as a spread; times and counts whole, rates as floats. What does not apply has null and ``n`` 0."""
    return {
        one.id: spread_json(one.spread(measured, intervals=intervals), whole=one.unit in ("ns", "count"))
        for one in metrics.of_table(metrics.LATENCY, metrics.PER_TOKEN)
    }


def spread_json(measured: Spread, *, whole: bool) -> Json:
    """A spread under the names of ``cli.md``.

    ``interval`` says what ``low`` and ``high`` are ("95 %"); null where too few ``requests`` were made for one, and then
    ``least`` and ``most``, the range of the requests' medians, stand in.
    """

    def cell(value: float | None) -> float | int | None:
        return None if value is None else (round(value) if whole else value)

    return {
        "median": cell(measured.median),
        "low": cell(measured.low),
        "high": cell(measured.high),
        "p90": cell(measured.p90),
        "p95": cell(measured.p95),
        "p99": cell(measured.p99),
        "min": cell(measured.minimum),
        "max": cell(measured.maximum),
        "n": measured.n,
        "requests": measured.requests,
        "interval": None if measured.low is None else NAME,
        "least": cell(measured.least),
        "most": cell(measured.most),
    }


def observer_effect(run: Run, intervals: bool = True) -> Json:
    """What watching costs: traced over clean time by kind (see ``observer``), the clock's pauses, and the perturbed share.

    A kind without a traced moment between two clean ones is None. ``perturbed_share`` is None without a measured moment.
    ``interval`` is null where there are too few comparisons (``n``) for one; ``least`` and ``most`` are their range.
    """
    moments = run.trace.moments
    effect: Json = {"decode": None, "prefill": None, **dict.fromkeys(kinds_present(moments))}
    for kind, found in effects(run, intervals=intervals).items():
        effect[kind] = {**asdict(found), "interval": None if found.low is None else NAME}
    effect["paused_ns"] = None if run.imported else int(moments["paused_ns"].sum())
    effect["perturbed_share"] = _perturbed_share(run)
    return effect


def _perturbed_share(run: Run) -> float | None:
    moments = run.trace.moments
    if run.imported:
        return None
    after = ~tagged(moments, _NOT_MEASURED)
    return float(tagged(moments, Tag.PERTURBED)[after].mean()) if after.any() else None


def drift_json(run: Run) -> Json | None:
    """How times changed from the first measured request to the last, as a share (``change``) and the chance that it is none.

    ``told`` is the sentence about it, "" where it is small or not sure. None: fewer than six requests.
    """
    found = drift(run)
    return None if found is None else {"change": found.change, "risk": found.risk, "told": _said(sentence(found)) or ""}


def noise_json(run: Run) -> Json:
    """What else the machine did during measured moments; None where it was not looked at.

    ``steal_share`` and ``others_share``: processor time that other virtual machines and other processes took, of all that the
    machine has. ``busy``: they took more than a quarter of one core, so that the times are doubtful.
    """
    moments = run.trace.moments
    after = ~tagged(moments, _NOT_MEASURED)

    def per_ns(column: str) -> float | None:
        rows = after & (moments[column] >= 0)
        time_ns = int(moments["duration_ns"][rows].sum())
        return float(moments[column][rows].sum()) / time_ns if time_ns > 0 else None

    switches, others, steal = per_ns("switches"), per_ns("others_ns"), per_ns("steal_ns")
    told = run.facts.instruments.get("noise", {}).get("processors")
    processors = told or run.facts.environment.get("cpu_cores_logical") or 1
    return {
        "perturbed_share": _perturbed_share(run),
        "switches_per_s": None if switches is None else switches * 1e9,
        "steal_share": None if steal is None else steal / processors,
        "others_share": None if others is None else others / processors,
        "busy": None if run.imported else (others or 0) + (steal or 0) > BUSY_CORE_SHARE,
        "competitors": list(run.facts.competitors),
    }


def energy_json(run: Run) -> Json | None:
    """Energy of the measured time, in joules, with its source; None where there was none to read."""
    found = energy(run)
    return None if found is None else asdict(found)


def speculation_json(run: Run) -> Json | None:
    """What guessing tokens brought; None where none are guessed. Shares from 0 to 1."""
    found = speculation(run)
    return None if found is None else {**asdict(found), "by_position": list(found.by_position)}


def stages_json(run: Run, newest: int | None = None) -> list[Json]:
    """Time by stage and kind; the shares of a kind add up to 1. Kinds without counted traced moments have no rows."""
    rows = []
    for kind in kinds_present(run.trace.moments):
        found = stages(run, kind, newest)
        if found.provisional:
            continue
        for stage, time_ms, share in zip(found.stages, found.time_ms, found.share, strict=True):
            time_ns = round(float(time_ms) * 1e6)
            rows.append({"stage": stage, "kind": kind, "time_ns": time_ns, "share": float(share), "scaled_to": found.scaled_to})
    return rows


def layers_json(run: Run, newest: int | None = None) -> list[Json]:
    """The layer table; ``calls``, ``total_ns`` and ``self_ns`` are per moment, ``share`` is own time over the moment's;
    ``core.analysis.layer_rates`` says what it adds.

    ``sqnr_db`` is the layer's signal-to-noise ratio against the model without passes; null: not measured, or equal bit for bit.
    """
    table = layer_rows(run, newest=newest)
    drift = run.facts.quality.layer_sqnr_db if run.facts.quality is not None else {}
    rows = [
        {
            "path": table.path[i],
            "type": table.type[i],
            "stage": table.stage[i],
            "kind": table.kind[i],
            "calls": int(table.calls[i]) if table.calls[i].is_integer() else table.calls[i],
            "total_ns": round(table.total_ns[i]),
            "self_ns": round(table.self_ns[i]),
            "share": table.share[i],
            "scaled_to": table.scaled_to[i],
            **{name: _whole(getattr(table, name)[i]) for name in COUNTS},
            "ipc": table.ipc[i],
            "sqnr_db": drift.get(table.path[i]),
        }
        for i in range(len(table))
    ]
    add_rates(run, rows)
    return rows


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def memory_json(measured: Measured) -> Json:
    """Peak sizes in bytes, and what the process took before the model was loaded and after."""
    facts = measured.run.facts
    before = {"rss_before_bytes": facts.rss_before_bytes, "rss_loaded_bytes": facts.rss_loaded_bytes}
    return {**{one.id: one.value(measured) for one in metrics.of_table(metrics.MEMORY)}, **before}


def moments_json(run: Run) -> Json:
    """How many moments of each kind were clean and traced (after warm-up), and how many of all were special."""
    moments = run.trace.moments
    warmup = tagged(moments, Tag.WARMUP)
    counts = {}
    for kind in dict.fromkeys(("prefill", "decode", *kinds_present(moments))):
        where = of_kind(moments, kind)
        counts[kind] = {
            "clean": int((where & tagged(moments, Tag.CLEAN) & ~warmup).sum()),
            "traced": int((where & tagged(moments, Tag.TRACED) & ~warmup).sum()),
            "warmup": int((where & warmup).sum()),
            "perturbed": int((where & tagged(moments, Tag.PERTURBED) & ~warmup).sum()),
            "settling": int((where & tagged(moments, Tag.SETTLING) & ~warmup).sum()),
            "profiled": int((where & tagged(moments, Tag.PROFILED)).sum()),
        }
    return counts
