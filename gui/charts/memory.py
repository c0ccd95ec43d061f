"""Memory of the process over time, stacked by what it is used for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QResizeEvent
from PySide6.QtWidgets import QVBoxLayout, QWidget

from core import units
from core.analysis import series
from core.presentation.ticks import nice_limit
from core.records.run import Run
from gui.charts.card import Chart
from gui.charts.plot import Plot
from gui.plain import plain_tip
from gui.theme import Palette
from profilers.trace import KINDS as MOMENT_KINDS

TITLES = {
    "other": "other",
    "framework": "framework",
    "weights": "weights",
    "kv_cache": "KV cache",
    "activations": "activations",
}
KINDS = tuple(TITLES)  # from the bottom up
PHASES = {"load": "loading", "warmup": "warm-up"} | {kind: kind.replace("_", " ") for kind in MOMENT_KINDS}
MOST_POINTS = 600
WIDE = 470
MIB = 1 << 20


class MemoryChart(Chart):
    """Areas from "other" at the bottom to activations on top, named at their right end."""

    figure_name = "memory"

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Memory", "memoryChart", "What holds the memory shows here as it is taken.", parent)
        self.plot = self.adopt(Plot("s", "MiB", gutter=120, axis_width=64, parent=self.body))
        layout = QVBoxLayout(self.body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.plot)
        self.series: series.MemorySeries | None = None
        self.areas = {kind: pg.PlotCurveItem(fillLevel=0.0, skipFiniteCheck=True) for kind in KINDS}
        for order, item in enumerate(self.areas.values()):
            item.setZValue(len(KINDS) - order)  # each area reaches down to zero; the lower ones cover it
            self.plot.addItem(item, ignoreBounds=True)
        self.lines = [pg.PlotDataItem(stepMode="right", skipFiniteCheck=True) for _ in KINDS]  # of an imported trace
        for item in self.lines:
            item.hide()
            self.plot.addItem(item, ignoreBounds=True)
        self.peak_line = pg.InfiniteLine(angle=0)
        self.peak_line.setZValue(15)
        self.peak_line.hide()
        self.plot.addItem(self.peak_line, ignoreBounds=True)
        self.peaks: dict[str, int] = {}  # bytes by phase
        self._cursor = pg.InfiniteLine(angle=90)
        self._cursor.setZValue(20)
        self._cursor.hide()
        self.plot.addItem(self._cursor, ignoreBounds=True)
        self._run_key: tuple[int, str] | None = None
        self._top = 0.0
        self._span = 0.0
        self._time = np.empty(0)
        self._stacked: dict[str, Any] = {}
        self.plot.pointer_moved.connect(self._hover)
        self.plot.pointer_left.connect(self._unhover)

    def draw(self, run: Run) -> str | None:
        data = series.memory(run)
        for item in self.lines:
            item.setVisible(False)
        if not len(data.time_s):
            return self._draw_without_samples(run)
        key = (run.id, run.created)
        if key != self._run_key:
            self._run_key, self._top, self._span = key, 0.0, 0.0
            self.plot.user_ranged = False
        self.series = data
        rows = _thinned(len(data.time_s))
        self._time = np.asarray(data.time_s, np.float64)[rows]
        total = np.zeros(len(rows))
        self._stacked = {}
        for kind, item in self.areas.items():
            values = data.kinds.get(kind)
            item.setVisible(values is not None)
            if values is not None:
                total = total + np.nan_to_num(np.asarray(values, np.float64)[rows])
                self._stacked[kind] = total
                item.setData(self._time, total)
        self.peaks = {phase: int(peak) for phase, peak in run.facts.phase_peak_bytes.items() if peak}
        highest = max(float(total.max()), max(self.peaks.values(), default=0) / MIB)
        if highest > self._top:
            self._top = nice_limit(highest * 1.08)
        end = float(self._time[-1])
        if end > self._span:
            # Half again as long, so that the axis moves a handful of times in a run and not with each sample.
            self._span = nice_limit(end * 1.15) if run.facts.status == "running" else end
        elif run.facts.status != "running":
            self._span = end
        self.plot.fit(0.0, max(self._span, 1e-6), 0.0, self._top)
        self._label()
        self._say_peaks()
        return None

    def _draw_without_samples(self, run: Run) -> str | None:
        """Nobody watched the process: an imported trace may tell of its allocators; else the reason."""
        lines = series.allocated(run)
        if lines:
            self._draw_lines(run, lines[: len(self.lines)])
            return None
        if run.imported:
            return "The imported trace tells of no memory: record it with profile_memory=True."
        why = run.facts.why_missing("host_memory", "device_memory", "peak memory")
        return f"Memory was not measured: {why}." if why else "No memory sample has been taken yet."

    def _draw_lines(self, run: Run, lines: list[series.TrackSeries]) -> None:
        """Allocated bytes by device, which do not add up to a process's memory."""
        self.series, self.peaks, self._stacked, self._time = None, {}, {}, np.empty(0)
        for area in self.areas.values():
            area.setVisible(False)
        self.peak_line.hide()
        self._unhover()
        end = max(float(line.time_s[-1]) for line in lines)
        top = nice_limit(1.08 * max(float(line.value.max()) for line in lines) or 1.0)
        labels = []
        for item, line in zip(self.lines, lines, strict=False):
            item.setData(*_highest(np.asarray(line.time_s, np.float64), line.value))
            item.setVisible(True)
            text = f"{line.title} {units.size(float(line.value[-1]) * MIB)}"
            labels.append((text, item.opts["pen"].color().name(), float(line.time_s[-1]), float(line.value[-1])))
        self.plot.user_ranged = False
        self.plot.set_gutter(124)
        self.plot.fit(0.0, max(end, 1e-6), 0.0, top)
        self.plot.labels.show(labels)
        self._run_key = (run.id, run.created)
        self.set_note("allocated, as the trace tells", "allocated")
        self.note.setToolTip("Bytes that torch's allocators had given out, of each device by itself")

    def spoken(self) -> str:
        below, parts = 0.0, []
        for kind, stacked in self._stacked.items():
            parts.append(f"{TITLES[kind]} {units.size((float(stacked[-1]) - below) * MIB)}")
            below = float(stacked[-1])
        if self.peaks:
            parts.append(f"peak {units.size(max(self.peaks.values()))}")
        return f"In all {units.size(below * MIB)}: {', '.join(parts)}." if parts else ""

    def recolour(self, palette: Palette) -> None:
        for kind, item in self.areas.items():
            colour = QColor(palette.memory[kind])
            item.setPen(pg.mkPen(None))
            item.setBrush(pg.mkBrush(colour))
        for item, colour_name in zip(self.lines, reversed(palette.memory.values()), strict=True):
            item.setPen(pg.mkPen(QColor(colour_name), width=1.5))
        self._cursor.setPen(pg.mkPen(palette.text, width=1))
        self.peak_line.setPen(pg.mkPen(palette.muted, width=1, style=Qt.PenStyle.DashLine))
        self._say_peaks()

    def _say_peaks(self) -> None:
        """The highest peak as a line, that of each phase in the head line: lines for all would lie on each other."""
        self.peak_line.setVisible(bool(self.peaks))
        if not self.peaks:
            self.set_note("process, by kind")
            self.note.setToolTip("Resident memory of the process, by what it is used for")
            return
        self.peak_line.setPos(max(self.peaks.values()) / MIB)
        each = [f"{PHASES.get(phase, phase)} {peak / MIB:,.0f}".replace(",", " ") for phase, peak in self.peaks.items()]
        highest = max(self.peaks, key=lambda phase: self.peaks[phase])
        self.set_note(f"peaks in MiB: {' · '.join(each)}", f"highest in {PHASES.get(highest, highest)}", "peaks")
        self.note.setToolTip(plain_tip("Peak resident memory of each phase, MiB:\n" + "\n".join(each)))

    def _label(self) -> None:
        palette = self.palette_in_use
        wide = self.width() >= WIDE
        self.plot.set_gutter(124 if wide else 72)
        labels = []
        below = 0.0
        for kind, stacked in self._stacked.items():
            top = float(stacked[-1])
            if top - below > 0:
                text = f"{TITLES[kind]} {units.size((top - below) * MIB)}" if wide else TITLES[kind]
                colour = "#808080" if palette is None else palette.muted
                labels.append((text, colour, float(self._time[-1]), (below + top) / 2))
            below = top
        if self.peaks:
            peak = max(self.peaks.values())
            colour = "#808080" if palette is None else palette.text
            labels.append((f"peak {units.size(peak)}" if wide else "peak", colour, float(self._time[-1]), peak / MIB))
        self.plot.labels.show(labels)

    def _hover(self, x: float, _: float) -> None:
        if not len(self._time) or not 0 <= x <= self._time[-1]:
            self._unhover()
            return
        row = int(np.abs(self._time - x).argmin())
        parts, below = [], 0.0
        for kind, stacked in self._stacked.items():
            parts.append(f"{TITLES[kind]} {units.size((float(stacked[row]) - below) * MIB)}")
            below = float(stacked[row])
        self._cursor.setPos(float(self._time[row]))
        self._cursor.show()
        lines = [f"{self._time[row]:.2f} s · {units.size(below * MIB)} in all", *reversed(parts)]
        self.plot.say("\n".join(lines), float(self._time[row]), below)

    def _unhover(self) -> None:
        self._cursor.hide()
        self.plot.say("", 0, 0)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if len(self._time):
            self._label()


def _highest(time: Any, value: Any) -> tuple[Any, Any]:
    """At most ``MOST_POINTS`` samples, of each stretch the highest, so that no peak is lost."""
    if len(time) <= MOST_POINTS:
        return time, value
    starts = np.linspace(0, len(time), MOST_POINTS, endpoint=False).astype(np.int64)
    return time[starts], np.maximum.reduceat(value, starts)


def _thinned(count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Row numbers of at most ``MOST_POINTS`` samples, first and last among them: more than there are pixels is not seen."""
    if count <= MOST_POINTS:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, MOST_POINTS).astype(np.int64))
