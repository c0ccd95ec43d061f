"""What an importer is: it reads another profiler's file as a run of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from core.records.run import Run
from core.registry import Registry


class Importer(Protocol):
    """One format of traces."""

    id: str
    title: str
    suffixes: Sequence[str]  # of the files, with the dot, in lower case

    def read(self, path: Path) -> Run:
        """The trace at ``path`` as a run with the status "imported"; ``Refusal`` where it cannot be read."""
        ...


importers: Registry[Importer] = Registry("trace format", "core.imports")

COMMON = "kineto"
"""The format that a file of any other name is taken for: it is the common one, and its reader says what the file is not."""


def importer_of(path: Path) -> Importer | None:
    """The importer that the file's name asks for, by the longest suffix; None where no format has one like it."""
    name = path.name.lower()
    fitting = [(len(suffix), one) for one in importers for suffix in one.suffixes if name.endswith(suffix)]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def read_trace(path: Path) -> Run:
    """The trace at ``path`` as a run, read by the importer of its name.

    Raises:
        Refusal: the file is not there, or is no trace of that format.
    """
    return (importer_of(path) or importers.get(COMMON)).read(path)
