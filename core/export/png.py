"""Exports the charts of runs as PNG pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.export import figures
from core.export.base import exporters
from core.messages.reason import Reason
from core.records.run import Run


@exporters.register
class PngCharts:
    """One file per chart, light theme."""

    id = "png"
    title = "Charts as PNG"
    suffix = ".png"

    def check(self) -> Reason | None:
        return figures.check()

    def write(self, runs: Sequence[Run], path: Path) -> list[Path]:
        return figures.write_all(runs, path, "png")
