"""The A/B test panel: choose the sides, watch the verdict form while they take turns, and read it by metric and by layer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QModelIndex, Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QBoxLayout, QFrame, QScrollArea, QVBoxLayout, QWidget

from core.notices import Status
from gui.background import Answers, InBackground
from gui.charts.plot import PaintMeter
from gui.plain import Label
from gui.theme import Palette
from gui.views.ab_test_text import round_of
from gui.views.compare.ab_test_chart import ABTestChart
from gui.views.compare.ab_test_layers import LayerVerdicts
from gui.views.compare.ab_test_setup import ABTestSetup
from gui.views.compare.ab_test_verdict import VerdictCard

if TYPE_CHECKING:
    from core.analysis.verdict import LayerVerdict
    from core.execution.ab_test_state import ABTestState

BESIDE_FROM = 820
CHART_HEIGHT = 250
TABLE_HEIGHT = 260
LAYERS_LIMIT_NS = 30_000_000
"""Layers are judged live only while that fits into a pause of the gate beside the painting."""

LAYERS_EVERY = 4  # rounds: one of so many is traced
PROVISIONAL = "Layers, so far (traced rounds; provisional until the A/B test ends)"
FINAL = "Layers (traced rounds)"


class ABTestPanel(QScrollArea):
    """Shows a ``ABTestState``; computes nothing while the clock runs."""

    layer_selected = Signal(str)

    def __init__(self, in_background: InBackground, meter: PaintMeter, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("trialPanel")
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._answers = Answers(in_background)
        self.state: ABTestState | None = None
        self._judged: tuple[Any, int] | None = None  # test and round that the layers are of
        self._layers_ns = 0
        content = QWidget(self)
        self.setup = ABTestSetup(content)
        self.verdict = VerdictCard(content)
        self.chart = ABTestChart(content)
        self.chart.setMinimumHeight(CHART_HEIGHT)
        self.chart.set_paint_meter(meter)
        self.layers = LayerVerdicts(content)
        self.layers.setMinimumHeight(TABLE_HEIGHT)
        self.layers.selectionModel().currentRowChanged.connect(self._on_row)
        self.layers_title = Label(content)
        self.layers_title.setProperty("role", "title")
        self.layers_card = QFrame(content)
        self.layers_card.setProperty("card", True)
        inside = QVBoxLayout(self.layers_card)
        inside.setContentsMargins(10, 8, 8, 8)
        inside.addWidget(self.layers_title)
        inside.addWidget(self.layers)
        self._pair = QBoxLayout(QBoxLayout.Direction.LeftToRight)
        self._pair.setSpacing(10)
        self._pair.addWidget(self.verdict, 9)
        self._pair.addWidget(self.chart, 11)
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(10)
        column.addWidget(self.setup)
        column.addLayout(self._pair, 2)
        column.addWidget(self.layers_card, 3)
        self.setWidget(content)
        self.verdict.hide()
        self.layers_card.hide()

    def poll(self, say: Callable[..., None]) -> None:
        """Tell how the chart's file that was being written turned out."""
        saved = self.chart.menu.poll()
        if saved is not None:
            say(*saved)

    def show_status(self, status: Status, *, busy: bool) -> None:
        """Nothing can be begun while something is going on, and nobody is told to."""
        self.setup.set_busy(busy)
        self.chart.say_status(status)

    def show_trial(self, state: ABTestState | None) -> None:
        """An A/B test as it stands; None: there was none yet."""
        if state is not None and not state.runs:
            state = None
        self.state = state
        self.verdict.setVisible(state is not None)
        if state is not None:
            self.verdict.show_trial(state)
        self.chart.show_trial(state)
        self._judge_layers(state)

    def set_palette(self, palette: Palette) -> None:
        """Repaint in other colours."""
        self.verdict.set_palette(palette)
        self.chart.set_palette(palette)
        self.layers.set_palette(palette)

    def _judge_layers(self, state: ABTestState | None) -> None:
        """Live: here, in a pause, once a traced round; when the A/B test is over: beside the GUI thread."""
        if state is None:
            self._judged = None
            self._answers.drop()
            self._show_layers([], FINAL)
            return
        key = (state.runs[0].created, state.runs[0].id), (-1 if state.stopped is not None else round_of(state) // LAYERS_EVERY)
        if key == self._judged:
            return
        if self._judged is None or self._judged[0] != key[0]:
            self._layers_ns = 0
            self._show_layers([], FINAL)
        self._judged = key
        self._answers.drop()
        if state.stopped is not None:
            self._answers.ask(lambda: _layer_verdicts(state), lambda future: self._show_layers(future.result(), FINAL))
        elif key[1] and self._layers_ns < LAYERS_LIMIT_NS:
            start_ns = time.perf_counter_ns()
            rows = _layer_verdicts(state)
            self._layers_ns = time.perf_counter_ns() - start_ns
            self._show_layers(rows, PROVISIONAL)

    def _show_layers(self, rows: list[LayerVerdict], title: str) -> None:
        self.layers_title.setText(title)
        self.layers.show_rows(rows)
        self.layers_card.setVisible(bool(rows))

    def _on_row(self, index: QModelIndex, _: QModelIndex) -> None:
        if index.isValid():
            self.layer_selected.emit(self.layers.path_at(index))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        beside = self.viewport().width() >= BESIDE_FROM
        self._pair.setDirection(QBoxLayout.Direction.LeftToRight if beside else QBoxLayout.Direction.TopToBottom)


def _layer_verdicts(state: ABTestState) -> list[LayerVerdict]:
    from core.analysis.verdict import layer_verdicts

    return layer_verdicts(state.runs, state.floors)
