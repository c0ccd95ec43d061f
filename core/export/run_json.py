"""Exports runs as the JSON that ``tickscope show --json`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.analysis.summary import SCHEMA, summarize
from core.export.base import exporters
from core.export.files import write_whole
from core.json_text import strict
from core.messages.reason import Reason
from core.records.run import Run


@exporters.register
class RunJson:
    """One run is its JSON object; several are ``{"schema": …, "runs": […]}``."""

    id = "json"
    title = "Run as JSON"
    suffix = ".json"

    def check(self) -> Reason | None:
        return None

    def write(self, runs: Sequence[Run], path: Path) -> list[Path]:
        summaries = [summarize(run) for run in runs]
        content = summaries[0] if len(summaries) == 1 else {"schema": SCHEMA, "runs": summaries}
        text = strict(content, indent=1, ensure_ascii=False)
        write_whole(f"{text}\n".encode(), path)
        return [path]
