"""What was not measured in a run, and why: nothing is missing from a summary without a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.analysis.counts import COUNTS
from core.analysis.imported import NOT_SAID
from core.analysis.select import kinds_present, of_kind, tagged
from core.pass_api.base import any_pass
from core.records.run import Run
from profilers.trace import Tag

Json = dict[str, Any]

_GENERATION = ("ttft_ns", "prefill_tokens_per_s", "itl_ns", "tpot_ns", "decode_tokens_per_s", "e2e_ns")
_FIRST = "no first token counts: each one was cold, warm-up or traced; give more repeats"
_UNCOUNTED = "no moment was counted from end to end by the same threads"
_LATER = "no token after the first counts: each one was warm-up or traced; give more new tokens or repeats"


def unavailable_json(
    run: Run, metrics: Mapping[str, Json], layers: Sequence[Json], energy: Mapping[str, Any] | None = None
) -> list[Json]:
    """The reasons that the run itself noted, then those that follow from what is missing."""
    reasons = {item.what: item.why for item in run.facts.unavailable}
    if run.imported:
        return [{"what": what, "why": why} for what, why in {**reasons, **_of_imported(run, metrics, layers)}.items()]
    if energy is None:
        reasons.setdefault("energy", _energy(run))
    for what, why in (*_metrics(run, metrics), *_layers(run, layers), *_counts(run), *_others(run)):
        reasons.setdefault(what, why)
    return [{"what": what, "why": why} for what, why in reasons.items()]


def _of_imported(run: Run, metrics: Mapping[str, Json], layers: Sequence[Json]) -> dict[str, str]:
    """What a trace of another profiler cannot tell: what was asked, and everything that only Tickscope measures."""
    missing = ["model", "target", "dtype", "workload", *(name for name in _GENERATION if metrics[name]["n"] == 0)]
    missing += [name for name in COUNTS if not (run.trace.moments[name] >= 0).any()]
    missing += ["energy", "noise", "kv_cache_bytes", "rss_peak_bytes", "device_peak_bytes", "observer_effect"]
    missing += [] if layers or run.trace.layers else ["layers"]
    return dict.fromkeys(missing, NOT_SAID)


def _metrics(run: Run, metrics: Mapping[str, Json]) -> list[tuple[str, str]]:
    kinds = kinds_present(run.trace.moments)
    missing = [name for name in _GENERATION if metrics[name]["n"] == 0]
    if not kinds:
        return [(name, f"no moment was measured (the run is {run.facts.status})") for name in missing]
    if "forward" in kinds:
        why = "an encoder gives no tokens one after another"
        return [(name, _FIRST if name == "e2e_ns" else why) for name in missing]
    found = []
    for name in missing:
        if name in ("itl_ns", "tpot_ns", "decode_tokens_per_s"):
            one = run.config.workload.new_tokens == 1
            found.append((name, "one new token has no gap to a next one" if one else _LATER))
        else:
            found.append((name, _FIRST))
    return found


def _layers(run: Run, layers: Sequence[Json]) -> list[tuple[str, str]]:
    if "layer_clock" not in run.config.profilers:
        return [("layers", "the layer clock was not switched on")]
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
            why = "no traced moment of this kind has layer times that count"
        elif kind == "decode" and any_pass(run.config.passes, lambda one: one.one_graph):
            why = "compiled decode ran as one graph, and no moment of it ran with the clock inside"
        elif kind == "draft":
            why = "the assistant is another model, whose layers are not timed"
        else:
            why = "no moment of this kind was traced; give more repeats"
        found.append((f"layers of {kind}", why))
    return found


def _counts(run: Run) -> list[tuple[str, str]]:
    """Counters of the processor that no moment has, with what the counter itself says of it."""
    moments = run.trace.moments
    missing = [name for name in COUNTS if not (moments[name] >= 0).any()]
    if "cycles" not in run.config.profilers:
        return [(name, "the processor counters were not switched on") for name in missing]
    told = run.facts.instruments.get("cycles", {}).get("missing", {})
    return [(name, told.get(name, _UNCOUNTED)) for name in missing]


def _energy(run: Run) -> str:
    if "energy" not in run.config.profilers:
        return "the energy counters were not switched on"
    told = run.facts.instruments.get("energy", {}).get("missing", {})
    return str(told.get("energy", "the energy counters gave too few values in the time that was measured"))


def _others(run: Run) -> list[tuple[str, str]]:
    found = []
    if "noise" not in run.config.profilers:
        found.append(("noise", "the noise instrument was not switched on; nobody watched what else the machine did"))
    if run.facts.device_peak_bytes is None and run.facts.target is not None and run.facts.target.id == "cpu":
        found.append(("device_peak_bytes", "the model ran on the CPU; see rss_peak_bytes"))
    if run.config.workload.prompt_tokens is not None:
        found.append(("tokenize", "the workload is a token count; nothing was tokenised"))
    if (run.trace.moments["kv_bytes"] < 0).all():
        found.append(("kv_cache_bytes", "the model keeps no cache that can be measured"))
    return found
