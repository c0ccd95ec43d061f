"""Energy of a run: joules over the time that was measured, per token and per kind of moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.analysis.select import SET_ASIDE, tagged
from core.analysis.token_intervals import tokens_given
from core.models.base import generates
from core.records.run import Run
from profilers.trace import KINDS, Array


@dataclass(frozen=True)
class Energy:
    """Joules of the measured moments, with what led up to them (sampling, tokenisation); pauses and warm-up are not in it.

    ``joules_per_token`` counts the tokens of all sequences of the batch; None where there are none (encoders).
    ``per_kind``: by kind of moment. ``per_track``: by device (``package_energy``, ``dram_energy``, ``gpu_energy``).
    ``source`` and ``period_s`` say who counted and how often it was read.
    """

    joules: float
    joules_per_token: float | None
    per_kind: dict[str, float]
    per_track: dict[str, float]
    source: str
    period_s: float | None


def energy(run: Run) -> Energy | None:
    """The run's energy, or None where no counter was read twice or no moment was measured.

    Counters are read ten times a second, so a moment's own share is interpolated between the samples around it: good for sums
    over many moments, not for one of them.
    """
    moments = run.trace.moments
    counted = ~tagged(moments, SET_ASIDE)
    if not counted.any():
        return None
    per_track: dict[str, float] = {}
    of_moment = np.zeros(len(counted))
    for number, track in enumerate(run.trace.tracks):
        mine = run.trace.counters["track"] == number
        if track.unit != "joule" or mine.sum() < 2:
            continue
        used = _used(run, run.trace.counters["time_ns"][mine], run.trace.counters["value"][mine])
        per_track[track.name] = float(used[counted].sum())
        of_moment += used
    if not per_track:
        return None
    joules = float(of_moment[counted].sum())
    tokens = int(tokens_given(moments)[counted].sum()) * run.config.workload.batch
    if run.facts.model is not None and not generates(run.facts.model.task):
        tokens = 0
    kinds = {kind: counted & (moments["kind"] == number) for number, kind in enumerate(KINDS)}
    facts = run.facts.instruments.get("energy", {})
    return Energy(
        joules,
        joules / tokens if tokens else None,
        {kind: float(of_moment[where].sum()) for kind, where in kinds.items() if where.any()},
        per_track,
        str(facts.get("source", "")),
        facts.get("period_s"),
    )


def _used(run: Run, time_ns: Array, joules: Array) -> Array:
    """Joules of every moment: from the end of the one before (or its request's start) to its own end, without its pause."""
    moments, requests = run.trace.moments, run.trace.requests
    start, end = moments["start_ns"], moments["start_ns"] + moments["duration_ns"]
    before = requests["start_ns"][moments["request"]]
    same = np.flatnonzero(moments["request"][1:] == moments["request"][:-1]) + 1
    before[same] = end[same - 1]
    entered = np.maximum(before, start - np.maximum(0, moments["paused_ns"]))

    def at(when: Array) -> Array:
        return np.interp(when, time_ns, joules)

    return np.asarray(at(end) - at(start) + at(entered) - at(before))
