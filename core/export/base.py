"""What an exporter is: it writes runs into files of one format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from core.messages.reason import Reason
from core.records.run import Run
from core.registry import Registry


class Exporter(Protocol):
    """One file format."""

    id: str
    title: str
    suffix: str  # of the files, with the dot

    def check(self) -> Reason | None:
        """Why it cannot be used here, as a short clause, or None."""
        ...

    def write(self, runs: Sequence[Run], path: Path) -> list[Path]:
        """Write ``runs`` (at least one) and return the files made; ``Refusal`` if ``path`` cannot be written.

        A format that makes several files takes ``path`` as a folder if it is one or has no suffix, else as a pattern:
        ``out.png`` gives ``out-latency.png``, ``out-memory.png`` and so on.
        """
        ...


@runtime_checkable
class WarningExporter(Protocol):
    """A format whose files may be too large for the programs that read them."""

    def warning(self, path: Path) -> Reason | None:
        """What to know before a written file is opened elsewhere, as a sentence, or None."""
        ...


exporters: Registry[Exporter] = Registry("format", "core.export")
