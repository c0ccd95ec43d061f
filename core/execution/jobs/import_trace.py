"""The job that reads another profiler's trace into a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from core.execution.jobs.base import Job, JobContext
from core.messages.reason import Reason
from core.records.run import Run


class ImportTrace(Job):
    """Reads another profiler's trace and hands it to ``keep``, which keeps it as a whole, with an id, or not at all."""

    kind = "import"

    def __init__(self, path: Path, keep: Callable[[Run], Run]) -> None:
        self._path = path
        self._keep = keep

    def carry_out(self, context: JobContext) -> None:
        from core.imports.base import read_trace

        context.stage("loading")
        context.progress.report(Reason("execution.reading", name=self._path.name), None)
        with context.progress.interruptible:
            run = read_trace(self._path)
        run = self._keep(run)
        context.ended("finished", Reason("execution.imported", name=run.name), run.id)
