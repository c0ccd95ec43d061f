"""The parts of a run's JSON that are facts and not measurements: model, passes, target, requests, A/B test and outputs."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from typing import Any

from core.analysis import imported
from core.analysis.quality_headline import disagreements, headline
from core.records.run import Quality, Run
from profilers.trace import Tag

Json = dict[str, Any]


def model_json(run: Run) -> Json:
    """The model; only its spec where loading did not get far enough to tell more."""
    facts = run.facts.model
    return {
        "spec": facts.spec if facts else run.config.model.spec,
        "name": facts.name if facts else run.config.model.spec,
        "architecture": facts.architecture if facts else None,
        "task": facts.task if facts else None,
        "parameters": facts.parameters if facts else None,
        "active_parameters": facts.active_parameters if facts else None,
        "weight_bytes": facts.weight_bytes if facts else None,
        "layers": facts.layers if facts else None,
        "dtype": facts.dtype if facts else None if run.imported else run.config.model.dtype,
        "stored_as": facts.stored_as if facts else None,
        "context_length": facts.context_length if facts else None,
        "has_tokenizer": facts.has_tokenizer if facts else None,
        "keeps_cache": facts.keeps_cache if facts else None,
        "notes": list(map(str, facts.notes)) if facts else [],
    }


def passes_json(run: Run) -> list[Json]:
    """What each pass really did, in the order they were applied."""
    return [
        {
            "id": report.id,
            "title": report.title,
            "options": dict(report.options),
            "changed_modules": report.changed_modules,
            "summary": str(report.summary),
            "kernels": list(report.kernels),
            "weight_bytes_before": report.weight_bytes_before,
            "weight_bytes_after": report.weight_bytes_after,
            "apply_ns": report.apply_ns,
            "notes": list(map(str, report.notes)),
            "predicted": dict(report.predicted),
            "prediction": "" if report.prediction is None else str(report.prediction),
        }
        for report in run.facts.passes
    ]


def quality_json(run: Run) -> Json | None:
    """What the passes cost in quality against the model without them; None: not measured."""
    quality = run.facts.quality
    if quality is None:
        return None
    return {
        "text": quality.text,
        "positions": quality.positions,
        "baseline": quality.baseline,
        "figures": {name: asdict(one) for name, one in quality.figures.items()},
        "headline": _headline_json(quality),
        "second_text": quality.second_text or None,
        "second_positions": quality.second_positions,
        "texts_disagree": list(disagreements(quality)),
        "lossless": quality.lossless,
        "notes": [str(note) for note in quality.notes],
        "layer_sqnr_db": dict(quality.layer_sqnr_db),
        "took_ns": quality.took_ns,
    }


def _headline_json(quality: Quality) -> Json | None:
    """The figure that the run is told by: the worse of both ways of reading; ``path`` null where there is but one."""
    found = headline(quality)
    if found is None:
        return None
    return {"figure": found.name, "value": found.figure.value, "error": found.figure.error, "path": found.path or None}


def target_json(run: Run) -> Json:
    """Where it ran."""
    facts = run.facts.target
    return {
        "id": facts.id if facts else None if run.imported else run.config.target.id,
        "name": facts.name if facts else None,
        "threads": run.facts.threads,
        "executor": run.facts.executor,
        "memory_bytes": facts.memory_bytes if facts else None,
    }


def workload_json(run: Run) -> Json:
    """What was asked; in an imported trace nothing is known of it."""
    if run.imported:
        return imported.workload_json()
    return {**asdict(run.config.workload), "given": list(run.facts.given) or None}


def requests_json(run: Run) -> Json:
    """How many requests there were: measured ones, and beside them warm-up and those under the operator profiler.

    Null in an imported trace, which has steps and no requests.
    """
    tags = run.trace.requests["tags"]
    if run.imported:
        return {"measured": None, "warmup": None, "profiled": None}
    warmup = int(((tags & int(Tag.WARMUP)) != 0).sum())
    profiled = int(((tags & int(Tag.PROFILED)) != 0).sum())
    return {"measured": len(tags) - warmup - profiled, "warmup": warmup, "profiled": profiled}


def trial_json(run: Run) -> Json | None:
    """Which A/B test the run was a side of, or None."""
    trial = run.facts.trial
    if trial is None:
        return None
    return {
        "id": trial.id,
        "side": trial.side,
        "sides": trial.sides,
        "order": list(trial.order),
        "floors": dict(trial.floors),
        "same": trial.same,
        "most_rounds": trial.most_rounds,
        "parts": trial.parts,
    }


def outputs_json(run: Run) -> list[Json]:
    """What the measured requests produced: tokens and text, or an encoder's values."""
    tags = run.trace.requests["tags"]
    rows = []
    for output in run.trace.outputs:
        if output.request < len(tags) and tags[output.request] & int(Tag.WARMUP | Tag.PROFILED):
            continue
        row: Json = {"token_ids": list(output.token_ids), "text": output.text, "finish_reason": output.finish_reason}
        if output.values:
            row["values"] = [value if isfinite(value) else None for value in output.values]
        rows.append(row)
    return rows
