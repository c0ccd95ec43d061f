"""The live view: tiles above a grid of charts that fills the window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import QEvent, QObject
from PySide6.QtWidgets import QFrame, QGridLayout, QScrollArea, QVBoxLayout, QWidget

from core.notices import Status
from core.records.run import Run
from gui.charts.card import Card, Chart
from gui.charts.heat import LayerHeat
from gui.charts.latency import LatencyChart
from gui.charts.machine import MachineChart
from gui.charts.memory import MemoryChart
from gui.charts.stages import StageBars
from gui.theme import Palette
from gui.views.base import Request, ShowRun, View, ViewContext
from gui.views.live.output import OutputCard
from gui.views.live.tiles import Tiles

ONE_COLUMN_BELOW = 700
ROWS = ((5, 144), (6, 148), (3, 98))  # stretch and least height of each row of cards
ALONE = 1.4  # how much higher a card is where it has a row for itself and the view scrolls anyway
GAP = 10


class LiveView(View):
    """Everything about the run on show. ``show_run`` is for each repaint, ``show_slow`` for numbers and text."""

    def __init__(self, context: ViewContext, parent: QWidget | None = None) -> None:
        super().__init__(context, parent)
        state = self.state
        self.setObjectName("liveView")
        self.area = QScrollArea(self)
        self.area.setWidgetResizable(True)
        self.area.setFrameShape(QFrame.Shape.NoFrame)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addWidget(self.area)
        content = QWidget(self.area)
        content.setObjectName("liveContent")
        self.tiles = Tiles(content)
        self.latency = LatencyChart(content)
        self.memory = MemoryChart(content)
        self.heat = LayerHeat(content)
        self.stages = StageBars(content)
        self.machine = MachineChart(content)
        self.output = OutputCard(content)
        self.charts: list[Chart] = [self.latency, self.memory, self.heat, self.stages, self.machine]
        self._cards: list[Card] = [*self.charts, self.output]
        self._grid = QGridLayout()
        self._grid.setSpacing(GAP)
        self._columns = 0
        layout = QVBoxLayout(content)
        layout.setContentsMargins(12, 12, 12, 12)
        layout.setSpacing(GAP)
        layout.addWidget(self.tiles)
        layout.addLayout(self._grid, 1)
        self.area.setWidget(content)
        self._arrange(2)
        self.area.viewport().installEventFilter(self)
        for chart in self.charts:
            chart.set_paint_meter(context.meter)
        self.heat.layer_selected.connect(state.select_layer)
        self.latency.show_warmup.toggled.connect(self.heat.show_warmup)
        self.latency.plot.follow_x(self.heat.plot)
        self.heat.plot.follow_x(self.latency.plot)
        state.layer_selected.connect(self.heat.select_layer)
        state.layer_selected.connect(self.stages.select_layer)
        state.run_changed.connect(self._on_run_changed)
        self._live_text: str | None = None

    def can(self, request: Request) -> bool:
        """A run, unless it is an imported trace of operators alone: there is nothing to draw of it."""
        if not isinstance(request, ShowRun):
            return False
        run = request.run
        return run is None or run.facts.status != "imported" or len(run.trace.moments["kind"]) > 0

    def show_run(self, run: Run | None) -> None:
        """Draw the charts of a snapshot; cheap enough for each repaint."""
        for chart in self.charts:
            chart.show_run(run)

    def show_slow(self, run: Run | None, summary: Mapping[str, Any] | None) -> None:
        """Tiles and text; at most twice a second while a run is going."""
        self.poll()
        self.tiles.show_summary(None if run is None else summary, run)
        if run is None or run.facts.status != "running":
            self._live_text = None
        self.output.show_run(run, self._live_text)
        self.output.show_speculation(None if summary is None else summary.get("speculation"))

    def show_status(self, status: Status) -> None:
        """What is to be done next, or is going on, where there is nothing to show yet."""
        self.latency.say_status(status)
        self.output.say_status(status)
        self.tiles.say_status(status)

    def show_text(self, text: str) -> None:
        """What is being generated now."""
        run = self.charts[0].run
        if run is not None and run.facts.status == "running":
            self._live_text = text
            self.output.show_run(run, text)

    def poll(self) -> None:
        """Tell how files that were being written turned out."""
        for chart in self.charts:
            saved = chart.menu.poll()
            if saved is not None:
                self.context.say(*saved)

    def set_palette(self, palette: Palette) -> None:
        """Repaint in other colours."""
        self.tiles.set_palette(palette)
        for card in self._cards:
            card.set_palette(palette)

    def _on_run_changed(self, run: Run | None) -> None:
        """Another run: a saved one is told by the bridge; that there is none is known at once."""
        if run is None:
            self.show_run(None)
            self.show_slow(None, None)

    def _arrange(self, columns: int) -> None:
        if columns == self._columns:
            return
        self._columns = columns
        for row in range(self._grid.rowCount()):
            self._grid.setRowStretch(row, 0)
            self._grid.setRowMinimumHeight(row, 0)
        for order, card in enumerate(self._cards):
            row, column = divmod(order, columns)
            self._grid.addWidget(card, row, column)
            stretch, least = ROWS[order // 2]
            card.setMinimumHeight(least if columns > 1 else round(least * ALONE))
            self._grid.setRowStretch(row, stretch)
        for column in range(2):
            self._grid.setColumnStretch(column, 1 if column < columns else 0)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Resize:  # of the part that can be seen
            width = self.area.viewport().width()
            self.tiles.fit_width(width - 24)
            self._arrange(2 if width >= ONE_COLUMN_BELOW else 1)
        return False
