"""The list of passes with a switch on each: what is refused is greyed and says why; what ran says what it changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from PySide6.QtWidgets import QWidget

from core.passes.base import Pass, PassReport
from gui.setup.switch_list import SwitchList


class PassList(SwitchList):
    """One row per pass, in phase order."""

    def __init__(self, known: Iterable[Pass], parent: QWidget | None = None) -> None:
        super().__init__("passList", "Passes", parent)
        self._passes = {one.id: one for one in sorted(known, key=lambda one: (one.phase, one.title))}
        self._reports: dict[str, str] = {}
        for one in self._passes.values():
            self.add(one.id, one.title)
        self.describe()

    def show_reasons(self, reasons: Mapping[str, str | None]) -> None:
        """Grey out what is refused. A pass that is on stays reachable, so that it can be switched off."""
        self._reasons = {pass_id: reason for pass_id, reason in reasons.items() if reason}
        self.describe()

    def show_reports(self, reports: Iterable[PassReport]) -> None:
        """Say in each row what the pass changed in the run just made."""
        self._reports = {report.id: report.summary for report in reports}
        self.describe()

    def line(self, thing_id: str, on: bool) -> str:
        """What the pass changed if it ran, else what it is."""
        return (self._reports.get(thing_id) if on else None) or self._passes[thing_id].summary

    def forget(self, thing_id: str) -> None:
        """Its report is of a run in which it was switched otherwise."""
        self._reports.pop(thing_id, None)
