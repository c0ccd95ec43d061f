"""One run as every view sees it: what was asked, what is known about it, and its columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.config import RunConfig
from core.models.base import ModelFacts
from core.passes.base import PassReport
from core.targets.base import TargetFacts
from profilers.trace import Trace

STATUSES = ("running", "finished", "cancelled", "failed", "interrupted")


@dataclass(frozen=True)
class Unavailable:
    """Something that was not measured, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class RunFacts:
    """Everything about a run that is not a column. Replaced as a whole whenever something becomes known."""

    status: str = "running"
    error: str | None = None
    model: ModelFacts | None = None
    target: TargetFacts | None = None
    threads: int | None = None
    passes: tuple[PassReport, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    load_ns: int | None = None
    apply_ns: int | None = None
    compile_ns: int | None = None  # time spent compiling, never inside latency
    cold_start_ns: int | None = None  # load + apply + time to first token of the first, cold request
    rss_before_bytes: int | None = None  # before the model was loaded
    rss_loaded_bytes: int | None = None  # with the model and its passes, before the first request
    rss_peak_bytes: int | None = None
    weights_bytes: int | None = None
    device_peak_bytes: int | None = None
    paused_ns: int = 0
    planned_moments: int = 0
    unavailable: tuple[Unavailable, ...] = ()


@dataclass(frozen=True)
class Run:
    """A run, live or from a file. ``id`` is its number in its session (from 1); ``created`` is ISO 8601 UTC."""

    id: int
    name: str
    created: str
    config: RunConfig
    facts: RunFacts
    trace: Trace
    note: str = ""
