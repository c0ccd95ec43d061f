"""The layer clock: one row per layer of the outline, one column per traced moment, colour for time, cycles or IPC."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QRectF, Signal
from PySide6.QtGui import QAction, QActionGroup
from PySide6.QtWidgets import QGraphicsRectItem, QHBoxLayout, QMenu, QToolButton, QWidget

from core.analysis import series
from core.analysis.select import main_kind
from core.pass_api.base import any_pass
from core.presentation.ticks import nice_limit
from core.records.run import Run
from gui.charts.axis import Axis
from gui.charts.card import Chart
from gui.charts.colours import BAR_WIDTH, ColourBar, lookup_table
from gui.charts.moment_range import LEFT_AXIS, RIGHT_STRIP, moment_range
from gui.charts.plot import Plot
from gui.charts.quantities import QUANTITIES, missing_count, scale_of, written
from gui.plain import plain_tip
from gui.theme import Palette
from profilers.trace import KINDS

MOST_COLUMNS = 4000
NEAR = 8  # moments: so far a traced one stands for those beside it, which take turns with it in a run by itself
UNIT_FROM = 0.88
"""Part of the axis that is free for numbers."""

NOTHING_YET = "No layer has been timed yet: the first traced moment shows them."


class MomentAxis(Axis):
    """Leaves room at its end for what the numbers are of."""

    def __init__(self) -> None:
        super().__init__("bottom", whole=True)

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:
        view = self.linkedView()
        low, high = view.viewRange()[0] if view is not None else (0.0, math.inf)
        room = low + UNIT_FROM * (high - low)
        texts = super().tickStrings(values, scale, spacing)
        return [text if value < room else "" for value, text in zip(values, texts, strict=True)]


class LayerHeat(Chart):
    """Layer × moment. A click, or the arrow keys, select a layer."""

    figure_name = "heat"
    layer_selected = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Layer clock", "layerHeat", "Each layer's time in each traced moment, as colour.", parent)
        strip, axis = RIGHT_STRIP - BAR_WIDTH, MomentAxis()
        self.plot = self.adopt(Plot("moment", axis_width=LEFT_AXIS, gutter=strip, grid=False, bottom=axis, parent=self.body))
        self.plot.getViewBox().invertY(True)
        self.bar = ColourBar(self.body)
        self.painted.append(self.bar)
        layout = QHBoxLayout(self.body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.plot, 1)
        layout.addWidget(self.bar)
        self.series: series.HeatSeries | None = None
        self.quantity = "time"  # what was asked for; a run that has none of it shows its time
        self.limit = 0.0
        self._sums_of, self._sums = self.quantity, series.heat_sums()
        self._build_switch()
        self.image = pg.ImageItem(axisOrder="row-major")
        self.image.setLookupTable(lookup_table())
        self.plot.addItem(self.image, ignoreBounds=True)
        self._paths: list[str] = []
        self._selected = ""
        self._partial = ""  # why only some moments have layers
        self._warmup = False
        self._column_of = np.empty(0, np.int64)  # which column stands for each moment: its own, or the nearest traced one
        self._blank = np.empty(0, bool)  # which moments have no traced one near enough to stand for them
        self._every = 1  # so many moments share a column of the picture where there are very many
        self._run_key: tuple[int, str, str] | None = None
        self._frame = QGraphicsRectItem()
        self._frame.setZValue(10)
        self._frame.hide()
        self.plot.addItem(self._frame, ignoreBounds=True)
        self.plot.pointer_moved.connect(self._hover)
        self.plot.pointer_left.connect(lambda: self.plot.say("", 0, 0))
        self.plot.clicked.connect(self._click)
        self.plot.stepped.connect(self._step)
        self.full_range = self.menu.addAction("Colours up to the highest layer")
        self.full_range.setCheckable(True)
        self.full_range.toggled.connect(self._rescale)

    def _build_switch(self) -> None:
        self.quantity_button = QToolButton(self)
        self.quantity_button.setObjectName("heatQuantity")
        self.quantity_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.quantity_button.setAccessibleName("What the colour stands for")
        self.quantity_button.setToolTip("What the colour stands for")
        self.quantity_button.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        menu = QMenu(self.quantity_button)
        menu.setToolTipsVisible(True)
        self.quantity_actions: dict[str, QAction] = {}
        group = QActionGroup(self)
        for name, quantity in QUANTITIES.items():
            action = menu.addAction(quantity.title)
            action.setCheckable(True)
            action.setChecked(name == self.quantity)
            action.triggered.connect(lambda _=False, chosen=name: self.choose_quantity(chosen))
            group.addAction(action)
            self.quantity_actions[name] = action
        self.quantity_button.setMenu(menu)
        self.quantity_button.hide()
        self.head_buttons.append(self.quantity_button)
        self.head.insertWidget(self.head.indexOf(self.menu_button), self.quantity_button)

    def show_warmup(self, wanted: bool) -> None:
        """Show the moments of warm-up too, as the chart of latency does."""
        self._warmup = wanted
        self.plot.user_ranged = False
        if self.run is not None:
            self.show_run(self.run)

    def choose_quantity(self, quantity: str) -> None:
        """Colour by another quantity."""
        self.quantity = quantity
        self._rescale()

    @property
    def selected_row(self) -> int | None:
        """The row of the selected layer, or of the row that it is inside; None if it is in none."""
        best = [row for row, path in enumerate(self._paths) if self._selected == path or self._selected.startswith(f"{path}.")]
        return max(best, key=lambda row: len(self._paths[row]), default=None)

    def select_layer(self, path: str) -> None:
        """Frame the row of this layer ("" for none)."""
        self._selected = path
        row = self.selected_row
        self._frame.setVisible(row is not None)
        if row is not None:
            self._frame.setRect(QRectF(0, row, max(1, len(self._column_of) * self._every), 1))
        if row is not None:
            self.set_note(f"{self._selected} selected", "1 selected")
        elif self._partial:
            self.set_note(self._partial, "prefill only")
        elif self._blank.any():
            self.set_note("layer × traced moment; blank: requests that were not traced", "blank: not traced")
        else:
            self.set_note("layer × traced moment", "layer × moment")

    def draw(self, run: Run) -> str | None:
        data = self._added_up(run)
        self.quantity_button.setVisible(bool(data.values.size))
        if not data.values.size:
            return hidden_layers(run, main_kind(run.trace.moments)) or nothing_timed(run)
        self._offer_quantities(run, data)
        key = (run.id, run.created, data.quantity)
        if key != self._run_key:
            self._run_key, self.limit = key, 0.0
            self.plot.user_ranged = False
        self.series = data
        paths = [run.trace.layers[row].path for row in data.layer_rows]
        if paths != self._paths:
            self._paths = paths
            self.plot.left.name_values(data.labels)
        self._set_limit(data, run)
        shown = KINDS.index(main_kind(run.trace.moments)) in run.trace.moments["kind"][data.moments]
        self._partial = "" if shown else hidden_layers(run, main_kind(run.trace.moments))
        self._paint(data)
        low, high, _ = moment_range(run, warmup=self._warmup)
        self.plot.fit(low, high, 0.0, float(data.values.shape[0]))
        self.select_layer(self._selected)
        return None

    def _added_up(self, run: Run) -> series.HeatSeries:
        """The picture's data, of which only what came since the last one is added up."""
        if self._sums_of != self.quantity:
            self._sums_of, self._sums = self.quantity, series.heat_sums(self.quantity)
        data = series.heat(run, quantity=self.quantity, kept=self._sums)
        return data if self.quantity in data.quantities else series.heat(run, kept=self._sums)

    def table_of(self, run: Run) -> Mapping[str, Sequence[Any]]:
        shown = "time" if self.series is None else self.series.quantity
        return series.heat(run, quantity=shown).table()

    def spoken(self) -> str:
        data = self.series
        if data is None or not data.values.size:
            return ""
        usual = np.median(np.nan_to_num(data.values), axis=1)
        slowest = [int(row) for row in np.argsort(-usual)[:3]]
        named = ", ".join(f"{self._paths[row]} {written(float(usual[row]), data.quantity)}" for row in slowest)
        chosen = f" {self._selected} is selected." if self._selected else ""
        return f"{len(self._paths)} rows, {len(data.moments)} traced moments. Highest medians: {named}.{chosen}"

    def recolour(self, palette: Palette) -> None:
        self.bar.set_palette(palette)
        self._frame.setPen(pg.mkPen(palette.text, width=2))

    def _set_limit(self, data: series.HeatSeries, run: Run) -> None:
        """The scale's end. By default the layers that repeat fill it, and a head that takes ten times as long is
        simply at its end: on one linear scale with the head all blocks would have the same colour.
        """
        kinds = run.trace.moments["kind"][data.moments]
        later = kinds != KINDS.index("prefill")
        cells = data.values[:, later] if later.any() else data.values
        per_row = np.median(np.nan_to_num(cells), axis=1)
        slowest, usual = float(per_row.max()), float(np.percentile(per_row, 90)) * 1.5
        wanted = nice_limit(max(slowest if self.full_range.isChecked() else usual, 1e-6))
        # Only upward while it is near: colours that change meaning from tick to tick cannot be read.
        if wanted > self.limit or wanted < 0.4 * self.limit:
            self.limit = wanted
        factor, unit = scale_of(self.limit, data.quantity)
        self.bar.set_scale(self.limit * factor, bool(np.nanmax(data.values) > self.limit), unit)

    def _paint(self, data: series.HeatSeries) -> None:
        # Cells that were not called are NaN and stay transparent.
        last = int(data.moments[-1]) + 1
        self._every = max(1, math.ceil(last / MOST_COLUMNS))
        between = (data.moments[1:] + data.moments[:-1] + 1) / 2
        at = np.arange(0, last, self._every)
        self._column_of = np.searchsorted(between, at, side="right")
        # A side of an A/B test has whole requests traced, one in four: between them a prefill, say, would be as wide as those.
        self._blank = np.abs(data.moments[self._column_of] - at) > NEAR + self._every
        shown = data.values[:, self._column_of]
        shown[:, self._blank] = np.nan
        self.image.setImage(shown, autoLevels=False, levels=(0.0, self.limit))
        self.image.setRect(QRectF(0, 0, len(self._column_of) * self._every, data.values.shape[0]))

    def _offer_quantities(self, run: Run, data: series.HeatSeries) -> None:
        self.quantity_button.setText(f"{QUANTITIES[data.quantity].short} ▾")
        self.quantity_actions[data.quantity].setChecked(True)
        for name, action in self.quantity_actions.items():
            there = name in data.quantities
            action.setEnabled(there)
            action.setToolTip(
                plain_tip(QUANTITIES[name].title if there else f"Not here: {missing_count(run, QUANTITIES[name].column)}")
            )

    def _rescale(self) -> None:
        self.limit = 0.0
        if self.run is not None:
            self.show_run(self.run)

    def _cell(self, x: float, y: float) -> tuple[int, int] | None:
        data = self.series
        if data is None:
            return None
        row, place = math.floor(y), math.floor(x / self._every)
        inside = 0 <= row < data.values.shape[0] and 0 <= place < len(self._column_of)
        return (row, int(self._column_of[place])) if inside and not self._blank[place] else None

    def _hover(self, x: float, y: float) -> None:
        cell = self._cell(x, y)
        if cell is None or self.series is None:
            self.plot.say("", 0, 0)
            return
        row, column = cell
        value = float(self.series.values[row, column])
        spent = written(value, self.series.quantity)
        self.plot.say(f"{self._paths[row]} · moment {self.series.moments[column]} · {spent}", x, y)

    def _click(self, x: float, y: float) -> None:
        cell = self._cell(x, y)
        if cell is not None:
            self.layer_selected.emit(self._paths[cell[0]])

    def _step(self, step: int) -> None:
        if self._paths:
            row = self.selected_row
            target = 0 if row is None else min(max(row + step, 0), len(self._paths) - 1)
            self.layer_selected.emit(self._paths[target])


def hidden_layers(run: Run, kind: str) -> str:
    """Why moments of ``kind`` have no layer times, as a sentence; "" where nothing is known to hide them."""
    if run.facts.status == "imported":
        return "No layer times: an imported trace has operators only; see Layers."
    why = str(run.facts.why_missing("layers", "layer_clock", "layers of compiled moments", f"layers of {kind}") or "")
    if not why and kind == "decode" and any_pass(run.config.passes, lambda one: one.one_graph):
        why = "no compiled decode has run with the clock inside its graph yet"
    return f"No layer times: {why.rstrip('.')}." if why else ""


def nothing_timed(run: Run) -> str:
    """That there are no layers to show, "yet" only while the run goes on."""
    return NOTHING_YET if run.facts.status == "running" else "No layer was timed before this run ended."
