"""What the machine did meanwhile: one small chart per counter track, all over the same time."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from core.analysis import series
from core.session.run import Run
from core.units import DASH, number
from gui.charts.axis import nice_limit
from gui.charts.card import Chart
from gui.charts.plot import Plot, Values
from gui.theme import Palette

EXPECTED = (("cpu", "CPU"), ("frequency", "Clock"), ("switches", "Switches"))
COLUMNS = 4
LEFT_OUT = ("cpu_system", "sampler_late")  # in the data and the saved picture; the card has room for what people act on
MOST_POINTS = 160
MEANINGS = {
    "cpu": "Processor time of this process; 100 % is one core.",
    "frequency": "Clock of the processor, mean over the cores, as the system reports it.",
    "switches": "How often the system took the processor away from this process (involuntary context switches).",
}
REASON_WORDS = {"cpu": ("cpu", "utilization"), "frequency": ("frequency", "utilization"), "switches": ("switch", "utilization")}


class TrackCell(QWidget):
    """One track: its name and latest value above a line of what it was. Without samples: a dash and the reason."""

    def __init__(self, name: str, title: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.name = name
        self.title = QLabel(title, self)
        self.title.setProperty("role", "muted")
        self.title.setToolTip(MEANINGS.get(name, ""))
        self.value = QLabel(DASH, self)
        self.value.setProperty("role", "title")
        self.value.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.reason = QLabel(self)
        self.reason.setProperty("role", "muted")
        self.reason.setWordWrap(True)
        self.reason.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.plot = Plot(axis_width=34, gutter=4, parent=self)
        self.plot.setMinimumHeight(36)
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

    def show_series(self, data: series.TrackSeries, span_s: float, fresh: bool) -> None:
        """Draw the track over ``span_s`` seconds; ``fresh`` forgets the scale of the run before."""
        self._series = data
        self.plot.show()
        self.reason.hide()
        if self.title.text() != data.title:
            self.title.setText(data.title)
        self.curve.setData(*binned(data.time_s, data.value, peaks=data.unit == "/s"))
        highest = float(np.max(data.value))
        if fresh or highest > self._top:
            self._top = nice_limit(highest * 1.05)
        self.plot.fit(0.0, max(span_s, 1e-6), 0.0, self._top)
        text = reading(float(data.value[-1]), data.unit)
        if self.value.text() != text:
            self.value.setText(text)

    def show_reason(self, why: str) -> None:
        """No samples: say why."""
        self._series = None
        self.plot.hide()
        self.reason.show()
        if self.reason.text() != why or self.value.text() != DASH:
            self.reason.setText(why)
            self.value.setText(DASH)

    def _hover(self, x: float, _: float) -> None:
        data = self._series
        if data is None:
            return
        row = int(np.abs(data.time_s - x).argmin())
        value = float(data.value[row])
        self.plot.say(f"{reading(value, data.unit)} at {float(data.time_s[row]):.2f} s", float(data.time_s[row]), value)


class MachineChart(Chart):
    """Small multiples. Tracks that every run should have show a dash and the reason where they are missing."""

    figure_name = "machine"

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Machine", "utilizationChart", "Processor use, clock and context switches.", parent)
        self.cells: dict[str, TrackCell] = {}
        self._grid = QGridLayout(self.body)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(18)
        self._grid.setVerticalSpacing(6)
        self._series: list[series.TrackSeries] = []
        self._run_key: tuple[int, str] | None = None
        self._span = 0.0
        # Before the first run, since a pause for painting is too short to make widgets in.
        self._arrange(dict(EXPECTED))

    def draw(self, run: Run) -> str | None:
        found = {track.name: track for track in series.machine(run) if len(track.value)}
        self._series = list(found.values())
        tracks = {name: track for name, track in found.items() if name not in LEFT_OUT}
        titles = dict(EXPECTED) | {name: track.title for name, track in tracks.items()}
        self._arrange(titles)
        key = (run.id, run.created)
        fresh = key != self._run_key
        if fresh:
            self._run_key, self._span = key, 0.0
        end = max((float(track.time_s[-1]) for track in self._series), default=0.0)
        if run.facts.status != "running":
            self._span = end
        elif end > self._span:
            self._span = nice_limit(end * 1.15)
        for name, cell in self.cells.items():
            track = tracks.get(name)
            if track is None:
                cell.show_reason(_reason(run, name))
            else:
                cell.show_series(track, self._span, fresh)
        late = found.get("sampler_late")
        lateness = f" · sampler {np.median(late.value):.1f} ms late" if late is not None else ""
        self.set_note(f"{math.floor(end * 10) / 10:.1f} s{lateness}" if self._series else "")
        return None

    def recolour(self, palette: Palette) -> None:
        for order, cell in enumerate(self.cells.values()):
            cell.plot.set_palette(palette)
            cell.curve.setPen(pg.mkPen(palette.series[order % len(palette.series)], width=1.3))

    def _arrange(self, titles: Mapping[str, str]) -> None:
        """One cell per track, expected ones first; only when the set of tracks changes."""
        if list(titles) == list(self.cells):
            return
        for name in [name for name in self.cells if name not in titles]:
            cell = self.cells.pop(name)
            self.plots.remove(cell.plot)
            cell.setParent(None)
            cell.deleteLater()
        for name, title in titles.items():
            if name not in self.cells:
                self.cells[name] = TrackCell(name, title, self.body)
                self.adopt(self.cells[name].plot)
        self.cells = {name: self.cells[name] for name in titles}
        for order, cell in enumerate(self.cells.values()):
            self._grid.addWidget(cell, order // COLUMNS, order % COLUMNS)
        for column in range(COLUMNS):
            self._grid.setColumnStretch(column, 1 if column < len(self.cells) else 0)
        if self.palette_in_use is not None:
            self.recolour(self.palette_in_use)


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
    for item in run.facts.unavailable:
        if any(word in item.what.lower() for word in REASON_WORDS.get(name, (name,))):
            return item.why
    return "waiting for the first sample" if run.facts.status == "running" else "not recorded in this run"
