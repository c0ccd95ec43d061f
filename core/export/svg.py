"""Exports the charts of runs as SVG pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.export import figures
from core.export.base import exporters
from core.messages.reason import Reason
from core.records.run import Run


@exporters.register
class SvgCharts:
    """One file per chart, light theme."""

    id = "svg"
    title = "Charts as SVG"
    suffix = ".svg"

    def check(self) -> Reason | None:
        return figures.check()

    def write(self, runs: Sequence[Run], path: Path) -> list[Path]:
        return figures.write_all(runs, path, "svg")
