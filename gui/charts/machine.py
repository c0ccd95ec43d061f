"""What the machine did meanwhile: one small chart per counter track, all over the same time."""

from __future__ import annotations

import math

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QMenu, QToolButton, QVBoxLayout, QWidget

from core.analysis import series
from core.presentation.ticks import nice_limit
from core.records.run import Run
from core.units import DASH, number
from gui.charts.card import Chart
from gui.charts.plot import Plot, Values
from gui.plain import Label, plain_tip
from gui.theme import Palette

EXPECTED = (("cpu", "CPU"), ("frequency", "Clock"), ("switches", "Switches"))
LEFT_OUT = ("cpu_system", "sampler_late")  # in the data and the saved picture; the card has room for what people act on
CELL_WIDTH, CELL_HEIGHT = 112, 66  # the least in which a line with its two ticks can be read
SPACING = (18, 6)
MOST_POINTS = 160
MEANINGS = {
    "cpu": "Processor time of this process; 100 % is one core.",
    "frequency": "Clock of the processor, mean over the cores, as the system reports it.",
    "switches": "How often the system took the processor away from this process (involuntary context switches).",
    "steal": "Processor time that the hypervisor gave to other machines.",
    "others": "Processor time that other programs took; 100 % is one core.",
    "temperature": "Temperature of the processor, the hottest sensor that the system tells.",
    "throttled": "How often the processor slowed itself down because of heat or power.",
}
ABOUT = dict.fromkeys(("cpu", "frequency", "switches"), ("utilization",))
"""Instruments whose absence says why a track has no samples."""


class TrackCell(QWidget):
    """One track: its name and latest value above a line of what it was. Without samples: a dash and the reason."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.name = ""
        self._full_title = ""
        self.setMinimumSize(CELL_WIDTH - 20, CELL_HEIGHT - 12)  # explicit: else a long value would widen the whole window
        self.title = Label(self)
        self.title.setProperty("role", "muted")
        self.title.setMinimumWidth(20)
        self.value = Label(DASH, self)
        self.value.setProperty("role", "title")
        self.value.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.reason = Label(self)
        self.reason.setProperty("role", "muted")
        self.reason.setWordWrap(True)
        self.reason.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.plot = Plot(axis_width=34, gutter=4, parent=self)
        self.plot.setMinimumHeight(30)
        self.plot.left.only_ends = True
        self.curve = pg.PlotCurveItem(skipFiniteCheck=True)
        self.plot.addItem(self.curve, ignoreBounds=True)
        self._series: series.TrackSeries | None = None
        self._top = 0.0
        head = QHBoxLayout()
        head.setSpacing(6)
        head.addWidget(self.title)
        head.addWidget(self.value, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addLayout(head)
        layout.addWidget(self.plot, 1)
        layout.addWidget(self.reason, 1)
        self.plot.pointer_moved.connect(self._hover)
        self.plot.pointer_left.connect(lambda: self.plot.say("", 0, 0))
        self.show_reason("")

    def show_name(self, name: str, title: str) -> bool:
        """Which track this cell is for; returns whether it was another one before."""
        self._full_title = title
        self._fit_title()
        if name == self.name:
            return False
        self.name = name
        self.title.setToolTip(plain_tip(f"{title}: {MEANINGS[name]}" if name in MEANINGS else title))
        self._top = 0.0
        return True

    def show_series(self, data: series.TrackSeries, span_s: float, fresh: bool) -> None:
        """Draw the track over ``span_s`` seconds; ``fresh`` forgets the scale of the run before."""
        self._series = data
        self.plot.show()
        self.reason.hide()
        self.curve.setData(*binned(data.time_s, data.value, peaks=data.unit == "/s"))
        highest = float(np.max(data.value))
        if fresh or highest > self._top:
            self._top = nice_limit(highest * 1.05)
        self.plot.fit(0.0, max(span_s, 1e-6), 0.0, self._top)
        text = reading(float(data.value[-1]), data.unit)
        if self.value.text() != text:
            self.value.setText(text)
            self._fit_title()

    def show_reason(self, why: str) -> None:
        """No samples: say why."""
        self._series = None
        self.plot.hide()
        self.reason.show()
        if self.reason.text() != why or self.value.text() != DASH:
            self.reason.setText(why)
            self.value.setText(DASH)

    def _fit_title(self) -> None:
        """The title beside the value, with dots where both do not fit; the whole of it is in the tooltip."""
        room = max(20, self.width() - 6 - self.value.sizeHint().width())
        text = self.title.fontMetrics().elidedText(self._full_title, Qt.TextElideMode.ElideRight, room)
        if self.title.text() != text:
            self.title.setText(text)

    def _hover(self, x: float, _: float) -> None:
        data = self._series
        if data is None:
            return
        row = int(np.abs(data.time_s - x).argmin())
        value = float(data.value[row])
        self.plot.say(f"{reading(value, data.unit)} at {float(data.time_s[row]):.2f} s", float(data.time_s[row]), value)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit_title()


class MachineChart(Chart):
    """Small multiples, as many as fit; the button at the head tells how many there are and chooses among them.

    Tracks that every run should have show a dash and the reason where they are missing.
    """

    figure_name = "machine"

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Machine", "utilizationChart", "Processor use, clock and context switches.", parent)
        self.tracks_button = QToolButton(self)
        self.tracks_button.setObjectName("machineTracks")
        self.tracks_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.tracks_button.setAccessibleName("Tracks on show")
        self.tracks_button.setToolTip("Which tracks are shown; as many as fit")
        self.tracks_button.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        self.tracks_menu = QMenu(self.tracks_button)
        self.tracks_button.setMenu(self.tracks_menu)
        self.tracks_button.hide()
        self.head_buttons.append(self.tracks_button)
        self.head.insertWidget(self.head.indexOf(self.menu_button), self.tracks_button)
        self._cells: list[TrackCell] = []
        self._titles = dict(EXPECTED)
        self._found: dict[str, series.TrackSeries] = {}
        self._first: list[str] = []  # what the user asked to see, before all others
        self._hidden: set[str] = set()  # what the user does not want to see
        self._grid = QGridLayout(self.body)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(SPACING[0])
        self._grid.setVerticalSpacing(SPACING[1])
        self.body.setMinimumSize(CELL_WIDTH, 40)  # explicit: else the cells that fit now would keep the card from shrinking
        self._columns = 0
        self._run_key: tuple[int, str] | None = None
        self._span = 0.0

    @property
    def cells(self) -> dict[str, TrackCell]:
        """The tracks on show, with their cells."""
        return dict(zip(self.shown(), self._cells, strict=False))

    def shown(self) -> list[str]:
        """Names of the tracks on show, in order."""
        return self._wanted()[: len(self._cells)]

    def spoken(self) -> str:
        told = [f"{cell.title.text()} {cell.value.text()}" for cell in self.cells.values() if not cell.isHidden()]
        return "; ".join(told) + "." if told else ""

    def draw(self, run: Run) -> str | None:
        self._found = {track.name: track for track in series.machine(run) if len(track.value)}
        tracks = {name: track for name, track in self._found.items() if name not in LEFT_OUT}
        self._titles = dict(EXPECTED) | {name: track.title for name, track in tracks.items()}
        key = (run.id, run.created)
        fresh = key != self._run_key
        if fresh:
            self._run_key, self._span = key, 0.0
        end = max((float(track.time_s[-1]) for track in self._found.values()), default=0.0)
        if run.facts.status != "running":
            self._span = end
        elif end > self._span:
            self._span = nice_limit(end * 1.15)
        self._offer()
        names = self.shown()
        for name, cell in zip(names, self._cells, strict=False):
            self._fill(cell, name, run, fresh)
        for order, cell in enumerate(self._cells):
            cell.setVisible(order < len(names))
        late = self._found.get("sampler_late")
        lateness = f" · sampler {np.median(late.value):.1f} ms late" if late is not None else ""
        length = f"{math.floor(end * 10) / 10:.1f} s"
        self.set_note(*((f"{length}{lateness}", length) if self._found else ("",)))
        return None

    def show_track(self, name: str, wanted: bool) -> None:
        """Bring a track into view, in the last place if all are taken, or take it away."""
        if wanted:
            others = [other for other in self.shown() if other != name]
            self._hidden.discard(name)
            self._first = [*others[: max(0, len(self._cells) - 1)], name]
        else:
            self._hidden.add(name)
        if self.run is not None:
            self.show_run(self.run)

    def recolour(self, palette: Palette) -> None:
        for order, cell in enumerate(self._cells):
            cell.plot.set_palette(palette)
            cell.curve.setPen(pg.mkPen(palette.series[order % len(palette.series)], width=1.3))

    def _fill(self, cell: TrackCell, name: str, run: Run, fresh: bool) -> None:
        changed = cell.show_name(name, self._titles[name])
        track = self._found.get(name)
        if track is None:
            cell.show_reason(_reason(run, name))
        else:
            cell.show_series(track, self._span, fresh or changed)

    def _wanted(self) -> list[str]:
        """All tracks in the order in which they get a place."""
        first = [name for name in self._first if name in self._titles]
        rest = [name for name in self._titles if name not in first]
        return [name for name in [*first, *rest] if name not in self._hidden]

    def _offer(self) -> None:
        """The button appears only where something can be chosen."""
        shown = self.shown()
        self.tracks_button.setVisible(len(shown) < len(self._titles) or bool(self._hidden))
        self.tracks_button.setText(f"{len(shown)} of {len(self._titles)} ▾")
        entries = [(action.data(), action.isChecked()) for action in self.tracks_menu.actions()]
        if entries != [(name, name in shown) for name in self._titles]:
            self.tracks_menu.clear()
            for name, title in self._titles.items():
                action = self.tracks_menu.addAction(title)
                action.setData(name)
                action.setCheckable(True)
                action.setChecked(name in shown)
                action.triggered.connect(lambda on, chosen=name: self.show_track(chosen, on))

    def _arrange(self) -> None:
        """Make as many cells as there is room for. Now and not when a run begins: a pause is too short to make widgets in."""
        # Not always the body, which has no size while a sentence is shown in its place.
        room = self._stack.currentWidget() or self.body
        width, height = room.width() + SPACING[0], room.height() + SPACING[1]
        columns = min(6, max(2, width // (CELL_WIDTH + SPACING[0])))
        rows = min(3, max(1, height // (CELL_HEIGHT + SPACING[1])))
        if (columns, columns * rows) == (self._columns, len(self._cells)):
            return
        for cell in self._cells[columns * rows :]:
            self.plots.remove(cell.plot)
            cell.setParent(None)
            cell.deleteLater()
        del self._cells[columns * rows :]
        while len(self._cells) < columns * rows:
            cell = TrackCell(self.body)
            self._cells.append(cell)
            self.adopt(cell.plot)
        for order, cell in enumerate(self._cells):
            self._grid.addWidget(cell, order // columns, order % columns)
        for column in range(max(columns, self._columns)):
            self._grid.setColumnStretch(column, 1 if column < columns else 0)
        self._columns = columns
        if self.palette_in_use is not None:
            self.recolour(self.palette_in_use)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.box.activate()  # else the inside has its new size only later
        self._arrange()
        if self.run is not None:
            self.show_run(self.run)


def reading(value: float, unit: str) -> str:
    """A sample as text: whole percents and events, three digits of anything else."""
    return f"{value:.0f} {unit}" if unit in ("%", "/s") else f"{number(value)} {unit}"


def binned(time_s: Values, value: Values, peaks: bool) -> tuple[Values, Values]:
    """At most ``MOST_POINTS`` points, since a small line of more is a smear: means, or for rare events the ``peaks``."""
    if len(value) <= MOST_POINTS:
        return np.asarray(time_s, np.float64), np.asarray(value, np.float64)
    starts = np.linspace(0, len(value), MOST_POINTS, endpoint=False).astype(np.int64)
    if peaks:
        return time_s[starts], np.maximum.reduceat(value, starts)
    return time_s[starts], np.add.reduceat(value, starts) / np.diff(np.append(starts, len(value)))


def _reason(run: Run, name: str) -> str:
    """Why a track has no samples."""
    why = run.facts.why_missing(name, *ABOUT.get(name, ()))
    if why is not None:
        return str(why)
    if run.facts.status == "imported":
        return "imported trace"
    return "waiting for the first sample" if run.facts.status == "running" else "not recorded in this run"
