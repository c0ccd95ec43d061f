"""What the views need of a session file and of a saved run, so that neither knows how it is stored."""

from __future__ import annotations

from collections.abc import Sequence
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
    """The numbers a run is known by, which only reading the whole of it tells; None: not measured."""

    ttft_ns: float | None
    tpot_ns: float | None
    decode_tokens_per_s: float | None = None
    perturbed_share: float | None = None


def headline(run: Run) -> Headline:
    """Medians of clean moments (times in ns, tokens per second of the whole batch), and the share of disturbed moments."""
    from core.analysis.samples import samples
    from core.analysis.statistics import spread
    from core.analysis.summary import noise_json

    found = samples(run)
    wanted = (found.ttft_ns, found.tpot_ns, found.decode_tokens_per_s)
    ttft, tpot, speed = (spread(one, intervals=False).median for one in wanted)
    return Headline(ttft, tpot, speed, noise_json(run)["perturbed_share"])


def started(created: str) -> str:
    """ISO 8601 UTC as the local day and minute; as it is where it is not a date."""
    try:
        return datetime.fromisoformat(created).astimezone().strftime("%d %b %H:%M")
    except ValueError:
        return created
