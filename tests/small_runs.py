"""Whole runs of small models without a window, a session or a worker thread, for tests that look at what came out."""

from __future__ import annotations

from typing import Any

from core.config import ModelConfig, RunConfig, WorkloadConfig
from core.engine.gate import Gate
from core.engine.holder import Holder
from core.engine.preparation import prepare, recording
from core.progress import Progress
from core.session.run import Run


def carried_out(model: ModelConfig, **workload: Any) -> Run:
    """One request without warm-up, unless the workload says otherwise."""
    asked = WorkloadConfig(**({"warmup": 0, "repeats": 1} | workload))
    config = RunConfig(model, workload=asked, profilers=())
    holder = Holder()
    holder.load(model, "cpu", Progress())
    prepared = prepare(config, holder, Progress())
    made = recording(config, prepared, Gate(), Progress())
    made.carry_out(prepared)
    return made.run()
