"""What a run made of another profiler's trace tells of itself, and that it does not tell what was asked of the model."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from core.config import WorkloadConfig
from core.messages.reason import Reason
from core.records.run import Run
from profilers.trace import Tag

NOT_SAID = Reason("analysis.not-in-import")
"""Why a fact of the configuration or a measurement of Tickscope's own is missing."""

Json = dict[str, Any]


def workload_json() -> Json:
    """A workload of which nothing is known, with the keys of every other."""
    return dict.fromkeys((*(one.name for one in fields(WorkloadConfig)), "given"), None)


def steps_json(run: Run) -> list[Json]:
    """The steps of each process: how many, the median of their time, and the first one's where it was set apart (else null).

    ``process`` is its number in the trace where there are several, else 0.
    """
    moments = run.trace.moments
    names = dict(enumerate(run.facts.instruments.get("import", {}).get("processes", ())))
    found = []
    for process in np.unique(moments["request"]).tolist():
        mine = moments["request"] == process
        cold = mine & ((moments["tags"] & int(Tag.COLD)) != 0)
        counted = moments["duration_ns"][mine & ~cold]
        if not len(counted):
            continue
        found.append(
            {
                "process": names.get(process, process),
                "steps": int(mine.sum()),
                "first_ns": int(moments["duration_ns"][cold][0]) if cold.any() else None,
                "median_ns": round(float(np.median(counted))),
                "min_ns": int(counted.min()),
                "max_ns": int(counted.max()),
                "n": len(counted),
            }
        )
    return found
