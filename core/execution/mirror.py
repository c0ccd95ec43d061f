"""The mirror of a recording in another process: it has the same columns and facts, a moment later."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from core.config import RunConfig
from core.messages.reason import Reason
from core.records.deltas import Delta, put_into
from core.records.run import Group, Run, RunFacts
from profilers.trace import Recorder, Tag

PERTURBED_SHARE = 0.01
"""Of a moment that painting took; see ``execution.moments``."""


@dataclass
class Mirror:
    """See ``carriers.base.Recorded``. ``key`` is what the other process calls it."""

    key: int
    name: str
    created: str
    config: RunConfig
    facts: RunFacts
    group: Group | None = None
    role: int = 0
    number: int = 0
    recorder: Recorder = field(default_factory=Recorder)

    def run(self) -> Run:
        """The run as it stands here, with a fresh snapshot of its columns."""
        trace = self.recorder.snapshot()
        return Run(self.number, self.name, self.created, self.config, self.facts, trace, group=self.group, role=self.role)

    def take(self, delta: Delta, painted: list[tuple[int, int]]) -> list[int]:
        """Add what is new. ``painted`` is when the window painted meanwhile, in ns of ``perf_counter_ns``.

        Returns:
            The rows of moments that were going on then, which are tagged as perturbed here.
        """
        put_into(self.recorder, delta)
        if not painted:
            return []
        moments, first = self.recorder.moments.view(), delta.first.moments
        starts = moments["start_ns"][first:] + self.recorder.origin_ns
        durations = moments["duration_ns"][first:]
        taken = np.zeros(len(starts), np.int64)
        for begin, end in painted:
            taken += np.clip(np.minimum(starts + durations, end) - np.maximum(starts, begin), 0, None)
        rows = [first + int(row) for row in np.flatnonzero(taken > PERTURBED_SHARE * durations)]
        for row in rows:
            self.recorder.moments.set(row, tags=int(moments["tags"][row]) | Tag.PERTURBED)
        return rows

    def fail(self, why: Reason, status: str = "failed") -> None:
        """Its process is gone: no more will come."""
        if self.facts.status == "running":
            paused = int(self.recorder.moments.view()["paused_ns"].sum())
            self.facts = replace(self.facts, status=status, error=why, paused_ns=paused)
