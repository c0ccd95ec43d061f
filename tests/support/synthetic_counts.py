"""Puts made-up processor counts and noise into a made-up run: every moment and every block counted, in known proportions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from core.models.outline import counted_rows
from core.records.run import Run

GIGAHERTZ = 3
"""Cycles per nanosecond of a thread; both threads of the run are always at work."""


def with_counts(run: Run, ipc: float = 2.0, misses: float = 0.01) -> Run:
    """The run with counts in all moments and in the spans of blocks, exactly proportional to their durations."""
    moments, spans = dict(run.trace.moments), dict(run.trace.spans)
    blocks = np.isin(spans["layer"], sorted(counted_rows(run.trace.layers)))
    for columns, where in ((moments, np.ones(len(moments["tags"]), bool)), (spans, blocks)):
        cpu_ns = 2 * columns["duration_ns"]
        counts = {"cpu_ns": cpu_ns, "cycles": GIGAHERTZ * cpu_ns}
        counts["instructions"] = (ipc * counts["cycles"]).astype(np.int64)
        counts["cache_misses"] = (misses * counts["cycles"]).astype(np.int64)
        columns.update({name: np.where(where, values, -1) for name, values in counts.items()})
    moments["counted_share"] = np.ones(len(moments["tags"]))
    return replace(run, trace=replace(run.trace, moments=moments, spans=spans))


def with_noise(run: Run, *, switches: int = 1, steal_ns: int = 0, others_ns: int = 0) -> Run:
    """The run with the same noise in each moment."""
    moments = dict(run.trace.moments)
    for name, value in (("switches", switches), ("steal_ns", steal_ns), ("others_ns", others_ns), ("stalled_ns", 0)):
        moments[name] = np.full(len(moments["tags"]), value, moments[name].dtype)
    return replace(run, trace=replace(run.trace, moments=moments))
