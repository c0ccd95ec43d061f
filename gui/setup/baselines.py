"""Remembers runs without passes, so that the gain of a later run of the same setup can be told."""

from __future__ import annotations

from core.analysis.speed_quality import Setting, difference, forward_medians, gains, setting
from core.records.run import Run

MOST = 8


class Baselines:
    """The newest unoptimized run of each setup seen since the window opened."""

    def __init__(self) -> None:
        self._known: list[tuple[Setting, dict[str, float]]] = []

    def remember(self, run: Run) -> None:
        """Keep a finished run without passes; others are left out."""
        if run.config.passes or run.facts.status != "finished" or not len(run.trace.moments["kind"]):
            return
        alike = setting(run)
        kept = [(known, medians) for known, medians in self._known if known != alike]
        self._known = [*kept, (alike, forward_medians(run))][-MOST:]

    def measured(self, run: Run) -> dict[str, float]:
        """How many times as fast each kind of moment was as without passes; {} where no such run is known."""
        alike = setting(run)
        plain = next((medians for known, medians in reversed(self._known) if not difference(known, alike)), None)
        return {} if plain is None else gains(forward_medians(run), plain)
