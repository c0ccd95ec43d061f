"""Whole runs of small models without a window, a session or a worker thread, for tests that look at what came out."""

from __future__ import annotations

from typing import Any

from core.clock.gate import Gate
from core.config import ModelConfig, RunConfig, WorkloadConfig
from core.execution.model_slot import ModelSlot
from core.execution.preparation import prepare, recording
from core.progress import Progress
from core.records.run import Run


def carried_out(model: ModelConfig, **workload: Any) -> Run:
    """One request without warm-up, unless the workload says otherwise."""
    asked = WorkloadConfig(**({"warmup": 0, "repeats": 1} | workload))
    config = RunConfig(model, workload=asked, profilers=())
    holder = ModelSlot()
    holder.load(model, "cpu", Progress())
    prepared = prepare(config, holder, Progress())
    made = recording(config, prepared, Gate(), Progress())
    made.carry_out(prepared)
    return made.run()
