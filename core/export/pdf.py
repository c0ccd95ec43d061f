"""Exports the charts of runs as PDF pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.export import figures
from core.export.base import exporters
from core.messages.reason import Reason
from core.records.run import Run


@exporters.register
class PdfCharts:
    """One file per chart, light theme."""

    id = "pdf"
    title = "Charts as PDF"
    suffix = ".pdf"

    def check(self) -> Reason | None:
        return figures.check()

    def write(self, runs: Sequence[Run], path: Path) -> list[Path]:
        return figures.write_all(runs, path, "pdf")
