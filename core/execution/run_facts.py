"""What is known of a run besides its columns: at its beginning, and what its columns tell at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from core.analysis.select import of_kind, tagged
from core.analysis.stopping import expected_requests
from core.config import RunConfig
from core.execution.model_slot import PreparedModel
from core.execution.tasks.chat import given
from core.model_parts.weights import held_bytes
from core.prediction.ceilings import known_ceilings
from core.prediction.work import layer_products
from core.records.run import RunFacts
from core.session.environment import environment
from core.targets.base import TargetFacts
from profilers.host_memory import PeakMemory, resident_bytes
from profilers.trace import KINDS, Array, Tag, Trace


def first_facts(config: RunConfig, prepared: PreparedModel, target: TargetFacts, steps: int) -> RunFacts:
    """What is known before the first request; ``steps``: moments of one request."""
    return RunFacts(
        model=prepared.loaded.facts,
        target=target,
        threads=prepared.subject.execution.threads,
        passes=prepared.reports,
        environment=environment(),
        load_ns=prepared.loaded.load_ns,
        apply_ns=prepared.apply_ns,
        rss_before_bytes=prepared.loaded.rss_before_bytes,
        rss_loaded_bytes=resident_bytes(),
        weights_bytes=held_bytes(prepared.subject),
        given=given(prepared.loaded, config.workload),
        layer_products=layer_products(prepared.subject.model),
        ceilings=known_ceilings() if target.id == "cpu" else None,
        planned_moments=expected_requests(config.workload.warmup, config.workload.repeats) * steps,
    )


def resident_peak(trace: Trace, kernel: PeakMemory) -> int | None:
    """Peak resident memory so far, in bytes: the kernel's own mark, or the largest sample."""
    names = [track.name for track in trace.tracks]
    samples = trace.counters["value"][trace.counters["track"] == names.index("rss")] if "rss" in names else np.empty(0)
    return kernel.bytes(int(samples.max()) if len(samples) else None)


def phase_peaks(moments: Mapping[str, Array]) -> dict[str, int]:
    """Peak resident memory of each phase in bytes, from the moments' own peaks; empty where the system keeps none."""
    warm, apart = tagged(moments, Tag.WARMUP), tagged(moments, Tag.WARMUP | Tag.PROFILED)
    phases = {"warm-up": warm, **{kind: of_kind(moments, kind) & ~apart for kind in KINDS}}
    peaks = {name: moments["peak_bytes"][where] for name, where in phases.items()}
    return {name: int(found.max()) for name, found in peaks.items() if len(found) and np.max(found) > 0}


def cold_start_ns(facts: RunFacts, moments: Mapping[str, Array]) -> int | None:
    """Load, apply and first token; for a model that nothing had run on."""
    first = moments["latency_ns"][(moments["request"] == 0) & (moments["latency_ns"] >= 0)]
    return (facts.load_ns or 0) + (facts.apply_ns or 0) + int(first[0]) if len(first) else None


def merged(probes: Mapping[str, Any], readings: Mapping[str, Any]) -> dict[str, Any]:
    """What probes and sampled readings told, by instrument; some instruments are both."""
    merged: dict[str, Any] = {}
    for name in (*probes, *(name for name in readings if name not in probes)):
        ours, theirs = probes.get(name, {}), readings.get(name, {})
        merged[name] = {**ours, **theirs}
        missing = {**ours.get("missing", {}), **theirs.get("missing", {})}
        if missing:
            merged[name]["missing"] = missing
    return merged


def default_name(config: RunConfig, facts: RunFacts) -> str:
    """What a run is called until someone names it: its model and its passes."""
    passes = " + ".join(report.title for report in facts.passes) or config.model.dtype
    return f"{facts.model.name if facts.model else config.model.spec} · {passes}"
