"""The job that writes runs in another format, once nothing is measured any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from core.execution.jobs.base import Job, JobContext
from core.messages.reason import Reason
from core.records.run import Run


class ExportRuns(Job):
    """Writes a file, or several. The runs are in memory, so there is no asking for it over a link."""

    kind = "export"

    def __init__(self, runs: Sequence[Run], format_id: str, path: Path, wait: Callable[[], bool] = lambda: True) -> None:
        """``wait``: waits a moment and says whether nothing is measured any more, in other processes either."""
        self._runs = tuple(runs)
        self._format = format_id
        self._path = path
        self._wait = wait

    def carry_out(self, context: JobContext) -> None:
        from core.export.base import WarningExporter, exporters

        while not self._wait():
            context.progress.check()
        exporter = exporters.get(self._format)
        context.stage("loading")
        context.progress.report(Reason("execution.writing", name=self._path.name), None)
        with context.progress.interruptible:
            written = exporter.write(self._runs, self._path)
        for path in written:
            large = exporter.warning(path) if isinstance(exporter, WarningExporter) else None
            if large:
                context.warn(large)
        name = self._runs[0].name or Reason("execution.the-run")
        context.ended("finished", Reason("execution.exported", name=name, file=self._path.name))
