"""Where the time of a median moment goes: one labelled bar per stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PySide6.QtCore import QEvent, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QMouseEvent, QPainter
from PySide6.QtWidgets import QMenu, QToolButton, QVBoxLayout, QWidget

from core import units
from core.analysis import series
from core.records.run import Run
from gui.charts.card import Chart
from gui.charts.heat import hidden_layers, nothing_timed
from gui.charts.plot import Painted
from gui.plain import plain_tip
from gui.theme import Palette
from profilers.trace import KINDS

HINT = "Attention, MLP, norm, head: each stage's share of a moment."
LABEL_WIDTH = 76
VALUE_WIDTH = 128
MOST_ROW = 34.0


class Bars(Painted):
    """Horizontal bars, longest first, each with its name before it and its time and share after it."""

    hovered = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.rows: list[tuple[str, str, float, float]] = []  # stage, title, ms, share
        self.marked = ""  # the stage of the selected layer
        self.palette_in_use: Palette | None = None
        self.setMouseTracking(True)

    def show_rows(self, rows: list[tuple[str, str, float, float]]) -> None:
        if rows != self.rows:
            self.rows = rows
            self.update()

    def row_at(self, y: float) -> int:
        """The bar at this height, -1 for none."""
        row = int((y - 4) // self._row_height()) if self.rows else -1
        return row if 0 <= row < len(self.rows) else -1

    def draw(self, painter: QPainter) -> None:
        palette = self.palette_in_use
        if palette is None or not self.rows:
            return
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        height = self._row_height()
        thick = min(18.0, height * 0.56)
        longest = max(ms for _, _, ms, _ in self.rows) or 1.0
        room = max(20.0, self.width() - LABEL_WIDTH - VALUE_WIDTH - 16)
        left = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        for row, (stage, title, ms, share) in enumerate(self.rows):
            top = 4 + row * height
            line = QRectF(0, top, LABEL_WIDTH, height)
            painter.setPen(QColor(palette.accent if stage == self.marked else palette.text))
            painter.drawText(line, right, f"▸ {title}" if stage == self.marked else title)
            bar = QRectF(LABEL_WIDTH + 10, top + (height - thick) / 2, max(3.0, room * ms / longest), thick)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(palette.stages.get(stage, palette.muted)))
            painter.drawRoundedRect(bar, min(3.0, bar.width() / 2), 3)
            value = units.duration(ms * 1e6)
            at = QRectF(bar.right() + 8, top, VALUE_WIDTH, height)
            painter.setPen(QColor(palette.text))
            drawn = painter.boundingRect(at, left, value)
            painter.drawText(at, left, value)
            painter.setPen(QColor(palette.muted))
            painter.drawText(at.adjusted(drawn.width() + 7, 0, 0, 0), left, units.percent(share))

    def _row_height(self) -> float:
        return min(MOST_ROW, (self.height() - 8) / max(1, len(self.rows)))

    def sizeHint(self) -> QSize:
        return QSize(320, 160)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        self.hovered.emit(self.row_at(event.position().y()))

    def leaveEvent(self, event: QEvent) -> None:
        self.hovered.emit(-1)


class StageBars(Chart):
    """The stages of one kind of moment; the kind is chosen at the head's right."""

    figure_name = "stages"

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Where the time goes", "stageBars", HINT, parent)
        self.bars = Bars(self.body)
        self.painted.append(self.bars)
        self.let_focus(self.bars)
        layout = QVBoxLayout(self.body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.bars)
        self.series: series.StageSeries | None = None
        self.kind: str | None = None  # None: the kind that the run is about
        self.kind_button = QToolButton(self)
        self.kind_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.kind_button.setAccessibleName("Kind of moment")
        self.kind_button.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        self.kind_menu = QMenu(self.kind_button)
        self.kind_button.setMenu(self.kind_menu)
        self.kind_button.hide()
        self.head_buttons.append(self.kind_button)
        self.head.insertWidget(self.head.indexOf(self.menu_button), self.kind_button)
        self._kinds: tuple[str, ...] = ()
        self._selected = ""
        self._hovered = -1
        self.bars.hovered.connect(self._hover)

    @property
    def hover_text(self) -> str:
        rows = self.bars.rows
        if not 0 <= self._hovered < len(rows) or self.series is None:
            return ""
        _, title, ms, share = rows[self._hovered]
        kind = self.series.kind.replace("_", " ")
        return f"{title}: {units.duration(ms * 1e6)} of a median {kind} moment, {units.percent(share)}"

    def draw(self, run: Run) -> str | None:
        self._offer_kinds(run)
        kind = self.kind if self.kind in self._kinds else None
        running = run.facts.status == "running"
        data = series.stages(run, kind, series.NEWEST if running else None)  # what the whole run was, is told at its end
        self.series = data
        self.kind_button.setText(f"{data.kind.replace('_', ' ')} ▾")
        if not data.stages:
            return hidden_layers(run, data.kind) or nothing_timed(run)
        early = " (warming up)" if data.provisional else ""
        self.set_note(f"median moment, scaled to {data.scaled_to}{early}", f"scaled to {data.scaled_to}{early}")
        rows = [
            (stage, title, float(ms), float(share))
            for stage, title, ms, share in zip(data.stages, data.titles, data.time_ms, data.share, strict=True)
        ]
        rows.sort(key=lambda row: -row[2])
        self._mark(run)
        self.bars.show_rows(rows)
        return None

    def choose_kind(self, kind: str) -> None:
        """Show the moments of this kind."""
        self.kind = kind
        if self.run is not None:
            self.show_run(self.run)

    def select_layer(self, path: str) -> None:
        """Mark the stage of the selected layer."""
        self._selected = path
        if self.run is not None:
            self._mark(self.run)

    def table(self) -> Mapping[str, Sequence[Any]]:
        return {} if self.series is None else self.series.table()

    def spoken(self) -> str:
        rows = [f"{title} {units.duration(ms * 1e6)}, {units.percent(share)}" for _, title, ms, share in self.bars.rows]
        return "; ".join(rows) + "." if rows else ""

    def recolour(self, palette: Palette) -> None:
        self.bars.palette_in_use = palette
        self.bars.update()

    def _mark(self, run: Run) -> None:
        stage = next((layer.stage for layer in run.trace.layers if layer.path == self._selected), "") if self._selected else ""
        if stage != self.bars.marked:
            self.bars.marked = stage
            self.bars.update()

    def _offer_kinds(self, run: Run) -> None:
        """Only kinds that occurred, and a chooser only where there is a choice."""
        present = tuple(KINDS[number] for number in np.unique(run.trace.moments["kind"]))
        if present == self._kinds:
            return
        self._kinds = present
        self.kind_menu.clear()
        for kind in present:
            action = self.kind_menu.addAction(kind.replace("_", " "))
            action.triggered.connect(lambda _=False, chosen=kind: self.choose_kind(chosen))
        self.kind_button.setVisible(len(present) > 1)

    def _hover(self, row: int) -> None:
        self._hovered = row
        self.bars.setToolTip(plain_tip(self.hover_text))
