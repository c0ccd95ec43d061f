"""What was not measured in a run, and why: nothing is missing from a summary without a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.analysis import metrics as known
from core.analysis.counts import COUNTS
from core.analysis.imported import NOT_SAID
from core.analysis.select import kinds_present, of_kind, tagged
from core.messages.reason import Reason, of_text
from core.pass_api.base import any_pass
from core.records.run import Run, status_said
from profilers.trace import Tag

Json = dict[str, Any]

_FIRST = Reason("analysis.no-first-token-counts")
_LATER = Reason("analysis.no-later-token-counts")

Missing = tuple[str, Reason]


def unavailable_json(
    run: Run, metrics: Mapping[str, Json], layers: Sequence[Json], energy: Mapping[str, Any] | None = None
) -> list[Json]:
    """The reasons that the run itself noted, then those that follow from what is missing."""
    reasons = {item.what: item.why for item in run.facts.unavailable}
    if run.imported:
        return [{"what": what, "why": str(why)} for what, why in {**reasons, **_of_imported(run, metrics, layers)}.items()]
    if energy is None:
        reasons.setdefault("energy", _energy(run))
    for what, why in (*_metrics(run, metrics), *_layers(run, layers), *_counts(run), *_others(run)):
        reasons.setdefault(what, why)
    return [{"what": what, "why": str(why)} for what, why in reasons.items()]


def _of_imported(run: Run, metrics: Mapping[str, Json], layers: Sequence[Json]) -> dict[str, Reason]:
    """What a trace of another profiler cannot tell: what was asked, and everything that only Tickscope measures."""
    missing = ["model", "target", "dtype", "workload", *(one.id for one in _unmeasured(metrics))]
    missing += [name for name in COUNTS if not (run.trace.moments[name] >= 0).any()]
    missing += ["energy", "noise", "kv_cache_bytes", "rss_peak_bytes", "device_peak_bytes", "observer_effect"]
    missing += [] if layers or run.trace.layers else ["layers"]
    return dict.fromkeys(missing, NOT_SAID)


def _metrics(run: Run, metrics: Mapping[str, Json]) -> list[Missing]:
    kinds = kinds_present(run.trace.moments)
    missing = _unmeasured(metrics)
    if not kinds:
        why = Reason("analysis.no-moment-measured", status=status_said(run.facts.status))
        return [(one.id, why) for one in missing]
    if "forward" in kinds:
        why = Reason("analysis.encoder-gives-no-tokens")
        return [(one.id, _FIRST if one.made_of == known.WHOLE else why) for one in missing]
    later = Reason("analysis.one-new-token") if run.config.workload.new_tokens == 1 else _LATER
    return [(one.id, later if one.made_of == known.LATER else _FIRST) for one in missing]


def _unmeasured(metrics: Mapping[str, Json]) -> list[known.Metric]:
    """What a model that writes has, and this run has not."""
    of_tokens = (known.FIRST, known.LATER, known.WHOLE)
    return [one for one in known.METRICS if one.shown and one.made_of in of_tokens and metrics[one.id]["n"] == 0]


def _layers(run: Run, layers: Sequence[Json]) -> list[Missing]:
    if "layer_clock" not in run.config.profilers:
        return [("layers", Reason("analysis.layer-clock-off"))]
    measured = {row["kind"] for row in layers}
    found = []
    moments = run.trace.moments
    for kind in kinds_present(moments):
        if kind in measured:
            continue
        after = of_kind(moments, kind) & ~tagged(moments, Tag.WARMUP)
        if not after.any():
            continue
        if tagged(moments, Tag.TRACED)[after].any():
            why = Reason("analysis.no-layer-times-count")
        elif kind == "decode" and any_pass(run.config.passes, lambda one: one.one_graph):
            why = Reason("analysis.one-graph-without-clock")
        elif kind == "draft":
            why = Reason("analysis.assistant-not-timed")
        else:
            why = Reason("analysis.no-moment-traced")
        found.append((f"layers of {kind}", why))
    return found


def _counts(run: Run) -> list[Missing]:
    """Counters of the processor that no moment has, with what the counter itself says of it."""
    moments = run.trace.moments
    missing = [name for name in COUNTS if not (moments[name] >= 0).any()]
    if "cycles" not in run.config.profilers:
        return [(name, Reason("analysis.counters-off")) for name in missing]
    noted = run.facts.instruments.get("cycles", {}).get("missing", {})
    return [(name, of_text(str(noted[name])) if name in noted else Reason("analysis.uncounted")) for name in missing]


def _energy(run: Run) -> Reason:
    if "energy" not in run.config.profilers:
        return Reason("analysis.energy-off")
    noted = run.facts.instruments.get("energy", {}).get("missing", {})
    return of_text(str(noted["energy"])) if "energy" in noted else Reason("analysis.too-few-energy-values")


def _others(run: Run) -> list[Missing]:
    found = []
    if "noise" not in run.config.profilers:
        found.append(("noise", Reason("analysis.noise-off")))
    if run.facts.device_peak_bytes is None and run.facts.target is not None and run.facts.target.id == "cpu":
        found.append(("device_peak_bytes", Reason("analysis.ran-on-cpu")))
    if run.config.workload.prompt_tokens is not None:
        found.append(("tokenize", Reason("analysis.nothing-tokenised")))
    if (run.trace.moments["kv_bytes"] < 0).all():
        found.append(("kv_cache_bytes", Reason("analysis.no-cache")))
    return found
