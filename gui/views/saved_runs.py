"""What the views need of a session file and of a saved run, so that neither knows how it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from core.records.run import Group, Run


class Head(Protocol):
    """What the list needs of a run (``core.session.store.RunHead``)."""

    id: int
    name: str
    created: str
    status: str
    note: str
    config: Any
    facts: Any
    consents: tuple[str, ...]
    group: Group | None
    role: int


class Store(Protocol):
    """What this view needs of ``core.session.store.SessionStore``."""

    read_only: bool

    def runs(self) -> Sequence[Any]: ...

    def read(self, run_id: int) -> Run: ...

    def rename(self, run_id: int, name: str) -> None: ...

    def annotate(self, run_id: int, note: str) -> None: ...

    def delete(self, run_id: int) -> Any: ...

    def restore(self, run: Run, head: Any = None) -> int: ...


class Headline(NamedTuple):
    """The numbers a run is known by, which only reading the whole of it tells: its listed metrics by id; None: not measured."""

    metrics: Mapping[str, float | None]
    perturbed_share: float | None = None


def headline(run: Run) -> Headline:
    """The numbers that stand for the run's listed metrics (medians of clean moments), and the share of disturbed moments."""
    from core.analysis import metrics
    from core.analysis.summary import noise_json

    measured = metrics.Measured(run)
    found = {one.id: one.value(measured) for one in metrics.METRICS if one.listed}
    return Headline(found, noise_json(run)["perturbed_share"])


def started(created: str) -> str:
    """ISO 8601 UTC as the local day and minute; as it is where it is not a date."""
    try:
        return datetime.fromisoformat(created).astimezone().strftime("%d %b %H:%M")
    except ValueError:
        return created
