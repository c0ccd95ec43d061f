"""What the views need of a session file and of a saved run, so that neither knows how it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from core.session.run import Run


class Head(Protocol):
    """What the list needs of a run (``core.session.store.RunHead``)."""

    id: int
    name: str
    created: str
    status: str
    note: str
    config: Any
    facts: Any


class Store(Protocol):
    """What this view needs of ``core.session.store.SessionStore``."""

    read_only: bool

    def runs(self) -> Sequence[Any]: ...

    def read(self, run_id: int) -> Run: ...

    def rename(self, run_id: int, name: str) -> None: ...

    def annotate(self, run_id: int, note: str) -> None: ...

    def delete(self, run_id: int) -> None: ...


class Headline(NamedTuple):
    """The two numbers a run is known by."""

    ttft_ns: float | None
    tpot_ns: float | None


def headline(run: Run) -> Headline:
    """TTFT and TPOT of a run, medians of clean moments in ns."""
    from core.analysis.samples import samples
    from core.analysis.statistics import spread

    found = samples(run)
    return Headline(spread(found.ttft_ns, intervals=False).median, spread(found.tpot_ns, intervals=False).median)


def started(created: str) -> str:
    """ISO 8601 UTC as the local day and minute; as it is where it is not a date."""
    try:
        return datetime.fromisoformat(created).astimezone().strftime("%d %b %H:%M")
    except ValueError:
        return created
