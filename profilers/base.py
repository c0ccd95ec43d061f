"""What an instrument is, and the list of those there are."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, Protocol

from profilers.trace import Recorder


class Reading(Protocol):
    """A sampled instrument at work; made, used and closed on the sampler thread, which owns its handles."""

    def sample(self) -> None:
        """Append samples to the recorder."""
        ...

    def close(self) -> None:
        """Let go of all handles."""
        ...


class MomentProbe(Protocol):
    """Reads something at both ends of every moment. Called by the engine, on the worker thread."""

    def begin(self) -> None:
        """The clock is stopped and the moment about to start."""
        ...

    def end(self) -> None:
        """The forward pass has just ended, the clock still runs: at most a few microseconds, and nothing that allocates."""
        ...

    def facts(self) -> dict[str, Any]:
        """What people should know about the reading, ready for JSON: source, threads counted; ``missing`` maps a quantity that
        could not be read to the reason, as a sentence.
        """
        ...

    def columns(self) -> dict[str, float]:
        """The moment's columns (see ``MOMENT_COLUMNS``); the clock is stopped. What was not measured is left out."""
        ...

    def close(self) -> None:
        """Let go of all handles."""
        ...


class Instrument(Protocol):
    """One kind of observation.

    ``period_s`` is None for instruments that the sampler does not read: those that the engine drives itself (the layer clock)
    and those that read at moments' ends, which have ``open_probe() -> MomentProbe``. A reading may have ``facts()`` too.
    """

    id: str
    title: str
    summary: str
    period_s: float | None
    by_default: bool  # part of a run where nobody chose

    def check(self) -> str | None:
        """Why it cannot work on this machine, as one sentence, or None."""
        ...

    def open(self, recorder: Recorder) -> Reading:
        """Begin to observe (on the sampler thread)."""
        ...


def instruments() -> dict[str, Instrument]:
    """All instruments by id: every module of this package that has an ``INSTRUMENT``."""
    package = importlib.import_module("profilers")
    found: dict[str, Instrument] = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(package.__path__)):
        instrument = getattr(importlib.import_module(f"profilers.{name}"), "INSTRUMENT", None)
        if instrument is not None:
            assert instrument.id not in found, f"two instruments have the id {instrument.id!r}"
            found[instrument.id] = instrument
    return found
