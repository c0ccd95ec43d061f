"""Remembers runs without passes, so that the gain of a later run of the same setup can be told."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from core.analysis.speed_quality import Setting, difference, forward_medians, gains, setting
from core.records.run import Run

MOST = 8


class Gains(NamedTuple):
    """How many times as fast each kind of moment was as without passes; {}: no such run is known.

    ``interleaved``: the two took turns in one A/B test, so that no drift of the machine lies between them.
    """

    by_kind: Mapping[str, float] = MappingProxyType({})
    interleaved: bool = False


class _Plain(NamedTuple):
    setting: Setting
    medians: Mapping[str, float]
    test: str  # id of the A/B test that it was a side of, "" for none


class Baselines:
    """The newest unoptimized run of each setup seen since the window opened."""

    def __init__(self) -> None:
        self._known: list[_Plain] = []

    def remember(self, run: Run) -> None:
        """Keep a finished run without passes; others are left out."""
        if run.config.passes or run.facts.status != "finished" or not len(run.trace.moments["kind"]):
            return
        one = _Plain(setting(run), forward_medians(run), _test(run))
        kept = [known for known in self._known if known.setting != one.setting]
        self._known = [*kept, one][-MOST:]

    def measured(self, run: Run) -> Gains:
        """What the run gained over the one without passes that took turns with it, else over the last one of its setup."""
        alike = setting(run)
        found = [one for one in reversed(self._known) if not difference(one.setting, alike)]
        if not found:
            return Gains()
        plain = next((one for one in found if one.test and one.test == _test(run)), found[0])
        return Gains(gains(forward_medians(run), plain.medians), bool(plain.test) and plain.test == _test(run))


def _test(run: Run) -> str:
    return "" if run.facts.trial is None else run.facts.trial.id
