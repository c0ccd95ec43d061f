"""What an instrument is, and the list of those there are."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Protocol

from profilers.trace import Recorder


class Reading(Protocol):
    """A sampled instrument at work; made, used and closed on the sampler thread, which owns its handles."""

    def sample(self) -> None:
        """Append samples to the recorder."""
        ...

    def close(self) -> None:
        """Let go of all handles."""
        ...


class Instrument(Protocol):
    """One kind of observation. ``period_s`` is None for instruments that the engine drives itself (the layer clock)."""

    id: str
    title: str
    summary: str
    period_s: float | None

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
