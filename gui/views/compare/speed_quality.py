"""The page that lays all runs of the session out by speed and quality cost; they are read one by one beside the window."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QVBoxLayout, QWidget

from core.analysis.speed_quality import NO_QUALITY, Point, cost_of, placed, point
from core.error_text import first_line, said
from core.errors import Refusal
from core.records.run import UNREADABLE, Run
from gui.background import Answers
from gui.charts.speed_quality import SpeedQualityChart
from gui.plain import Label
from gui.theme import Palette
from gui.views.base import ViewContext
from gui.views.saved_runs import Head, Store

Key = tuple[int, str, str]
EXPLAINED = "The line is what is best for each cost. A click on a point shows its run in every view."


class SpeedQualityPage(QWidget):
    """Reads only while it is on show and nothing is being measured."""

    run_opened = Signal(object)  # Run

    def __init__(self, context: ViewContext, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._say = context.say
        self._opening, self._points_read = Answers(context.background), Answers(context.background)
        self.store: Store | None = None
        self.chart = SpeedQualityChart(self)
        self.chart.set_paint_meter(context.meter)
        self.axes = _muted(self)
        self.state_line = _muted(self)
        self._points: dict[Key, Point | None] = {}
        self._reading: Key | None = None
        self._live: Run | None = None
        self._told: Any = None
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(self.chart, 1)
        column.addWidget(self.axes)
        column.addWidget(self.state_line)
        self.chart.run_asked.connect(self.open_run)
        self.chart.show_points([])
        self.axes.setText(EXPLAINED)
        self.state_line.hide()

    def set_store(self, store: Store | None) -> None:
        """The runs of another session, or of the same one after it changed."""
        if store is not self.store:
            self._points.clear()
            self._told = None
            self._reading = None
            self._opening.drop()
            self._points_read.drop()
        self.store = store
        self.refresh()

    def show_run(self, run: Run | None) -> None:
        """The run on show: it gets the ring, and is what the others must be comparable with."""
        finished = run is not None and run.facts.status != "running"
        before, now = (None if one is None else _key(one, one.facts.status) for one in (self._live, run))
        changed = before != now
        self._live = run
        if changed and finished:
            self.refresh()
        if run is not None:
            self.chart.mark(run.id)

    def refresh(self) -> None:
        """Draw what is known, and read on."""
        if not self.isVisible():
            return
        if self._live is not None and self._live.facts.status != "running":
            key = _key(self._live, self._live.facts.status)
            if key not in self._points:
                self._points[key] = point(self._live)
        self._draw()
        self._read_next()

    def open_run(self, run_id: int) -> None:
        """Read a run in full and hand it out, unless it is on show already."""
        store = self.store
        if store is None or (self._live is not None and self._live.id == run_id):
            return

        def done(future: Future[Any]) -> None:
            error = future.exception()
            if error is None:
                self.chart.mark(run_id)
                self.run_opened.emit(future.result())
            else:
                self._say(said(error) if isinstance(error, Refusal) else f"The run could not be read: {first_line(error)}")

        self._opening.ask(lambda: store.read(run_id), done)

    def poll(self) -> None:
        """Tell how files that were being written turned out."""
        saved = self.chart.menu.poll()
        if saved is not None:
            self._say(*saved)

    def set_palette(self, palette: Palette) -> None:
        """Repaint in other colours."""
        self.chart.set_palette(palette)
        self._told = None
        self._draw()

    def _heads(self) -> list[Head]:
        try:
            return [] if self.store is None else list(self.store.runs())
        except Refusal as refusal:
            self._say(str(refusal))
            return []

    def _draw(self) -> None:
        known = {_key(head, head.status) for head in self._heads()} if self.store is not None else set(self._points)
        if self._live is not None:
            known.add(_key(self._live, self._live.facts.status))
        found = _unique(self._points[key] for key in sorted(known) if key in self._points)
        reference = self._live.id if self._live is not None else None
        now = (found, reference, len(self._unread()))
        if now == self._told:
            return
        self._told = now
        chosen = reference if any(one.run_id == reference and one.cost is not None for one in found) else None
        costs = [cost_of(head.facts.quality)[0] for head in self._unread() if head.config.passes]
        self.chart.show_points(placed(found, chosen), costs)
        across, up = self.chart.axis_titles
        self.axes.setText(f"Across: {across}. Up: {up}. {EXPLAINED}" if self.chart.drawn else EXPLAINED)
        waiting = len(self._unread())
        reading = f"reading {waiting} more run{'s' if waiting > 1 else ''}" if waiting else ""
        said = " · ".join(part for part in (reading, _said(self.chart.points)) if part)
        self.state_line.setText(said)
        self.state_line.setVisible(bool(said))

    def _unread(self) -> list[Head]:
        """Runs that may have a point and were not read yet, newest first."""
        unknown = (head for head in reversed(self._heads()) if _key(head, head.status) not in self._points)
        return [head for head in unknown if head.status not in ("running", "imported", "failed", UNREADABLE)]

    def _read_next(self) -> None:
        """One run at a time, newest first, and only while nothing is being measured."""
        store = self.store
        going = self._live is not None and self._live.facts.status == "running"
        if store is None or going or self._reading is not None or not self.isVisible():
            return
        head = next(iter(self._unread()), None)
        if head is None:
            return
        key = self._reading = _key(head, head.status)

        def done(future: Future[Any]) -> None:
            self._reading = None
            self._points[key] = None if future.exception() is not None else future.result()
            self._draw()
            self._read_next()

        self._points_read.ask(lambda: point(store.read(head.id)), done)

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        self.refresh()


def _key(run: Head | Run, status: str) -> Key:
    return run.id, run.created, status


def _unique(found: Iterable[Point | None]) -> list[Point]:
    """The live run may be in the file as well, under another status."""
    kept = {(one.run_id, one.created): one for one in found if one is not None}
    return list(kept.values())


def _said(points: list[Point]) -> str:
    """Why runs are pale or left out, most frequent first."""
    reasons: dict[str, int] = {}
    for one in points:
        if one.cost is None or one.apart:
            why = f"pale: {one.apart}" if one.cost is not None else f"left out: {NO_QUALITY}"
            reasons[why] = reasons.get(why, 0) + 1
    told = [f"{count} run{'s' if count > 1 else ''} {why}" for why, count in sorted(reasons.items(), key=lambda item: -item[1])]
    return " · ".join(told)


def _muted(parent: QWidget) -> Label:
    label = Label(parent)
    label.setProperty("role", "muted")
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    return label
