"""The chart of an A/B test: each round's ratio of times as a dot, the interval as a band, the noise floor around 1."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from core.analysis import metrics
from core.analysis.samples import request_times
from core.export.ab_test_chart import Rounds, RoundsSide
from core.presentation.ticks import nice_limit, nice_spacing
from core.records.run import Run
from gui.charts.card import Chart
from gui.charts.menu import ChartFile
from gui.charts.plot import Plot
from gui.theme import Palette
from gui.views.ab_test_text import NAMES, side_lines

if TYPE_CHECKING:
    from core.execution.ab_test_state import ABTestState

HINT = "Choose what A and B are above and press Start A/B: the sides take turns, and each round becomes a dot here."
SYMBOLS = (("o", 7), ("s", 7), ("d", 10), ("t", 9))
MARKS = "●■◆▼"
FENCE = 3.0
EDGE = 0.04
LEAST_ROUNDS = 10
Values = np.ndarray[Any, np.dtype[np.float64]]


class ABTestChart(Chart):
    """Rounds along, the side's time over A's upwards: 1 is as fast as A, below 1 is faster."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Round by round", "trialChart", HINT, parent)
        self.state: ABTestState | None = None
        self.ratios: list[Values] = []  # of each side but the first, one per round; NaN where a round has none
        self.judged_metric = "tpot_ns"
        self.plot = self.adopt(Plot("round", "× A", whole_x=True, gutter=96, parent=self.body))
        layout = QVBoxLayout(self.body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.plot)
        self.plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Ignored)  # it asks for 640 × 480 otherwise
        self.floor_strip = self._item(pg.PlotCurveItem(), 0)
        self.even_line = self._item(pg.PlotCurveItem(), 1)
        self.bands = [self._item(pg.PlotCurveItem(), 2) for _ in SYMBOLS]
        self.medians = [self._item(pg.PlotCurveItem(), 3) for _ in SYMBOLS]
        self.dots = [self._item(pg.ScatterPlotItem(symbol=symbol, size=size, antialias=True), 5) for symbol, size in SYMBOLS]
        self.outliers = self._item(pg.ScatterPlotItem(symbol="x", size=8, antialias=True), 6)
        self.plot.pointer_moved.connect(self._hover)
        self.plot.pointer_left.connect(lambda: self.plot.say("", 0, 0))
        self._drawn: Rounds | None = None

    def show_trial(self, state: ABTestState | None) -> None:
        """Draw an A/B test, running or over; None: say how to get one."""
        self.state = state
        self.show_run(state.runs[0] if state is not None and state.runs else None)

    def draw(self, run: Run) -> str | None:
        state = self.state
        assert state is not None
        times = [request_times(one) for one in state.runs]
        generates = np.isfinite(times[0].tpot_ns).any() or not np.isfinite(times[0].e2e_ns).any()
        self.judged_metric = "tpot_ns" if generates else "e2e_ns"
        first = getattr(times[0], self.judged_metric)
        self.ratios = [_over(getattr(other, self.judged_metric), first) for other in times[1:]]
        known = np.concatenate([ratios[np.isfinite(ratios)] for ratios in self.ratios]) if self.ratios else np.empty(0)
        self._drawn = None
        if not len(known):
            return "Warming up: the first round is not over yet." if state.stopped is None else "No round was finished."
        low, high = self._limits(state, known)
        rounds = max(len(ratios) for ratios in self.ratios)
        across = nice_limit(max(LEAST_ROUNDS, rounds))
        self._place(state, across, low, high)
        self.plot.fit(0.0, across + 0.5, low, high)
        self._drawn = self._as_drawn(state, low, high)
        return None

    def recolour(self, palette: Palette) -> None:
        for number, colour in enumerate(palette.series[: len(SYMBOLS)]):
            self.dots[number].setPen(pg.mkPen(palette.card, width=0.8))
            self.dots[number].setBrush(pg.mkBrush(colour))
            self.bands[number].setPen(pg.mkPen(None))
            self.bands[number].setBrush(pg.mkBrush(_faint(colour, 0.25)))
            self.medians[number].setPen(pg.mkPen(colour, width=1.5))
        self.floor_strip.setPen(pg.mkPen(None))
        self.floor_strip.setBrush(pg.mkBrush(_faint(palette.muted, 0.28)))
        self.even_line.setPen(pg.mkPen(palette.muted, width=1, style=Qt.PenStyle.DashLine))
        self.outliers.setPen(pg.mkPen(palette.muted, width=1.4))

    def table(self) -> dict[str, Any]:
        rounds = max((len(ratios) for ratios in self.ratios), default=0)
        columns: dict[str, Any] = {"round": list(range(1, rounds + 1))}
        for number, ratios in enumerate(self.ratios, 1):
            columns[f"{NAMES[number]} over A, {metrics.title(self.judged_metric)}"] = [
                *ratios,
                *[None] * (rounds - len(ratios)),
            ]
        return columns

    def file(self) -> ChartFile | None:
        run, shown, table, palette = self.run, self._drawn, self.table(), self.palette_in_use
        if run is None or shown is None:
            return None

        def write_image(path: Path) -> None:
            from core.export.figures import write_rounds  # matplotlib is slow to import and rarely wanted

            write_rounds(shown, run, path, "light" if palette is None else palette.name)

        def write_data(path: Path) -> None:
            from core.export.files import write_table

            write_table(table, path)

        return ChartFile("A-B test rounds", write_image, write_data)

    def _as_drawn(self, state: ABTestState, low: float, high: float) -> Rounds:
        """What a file shows: as much as the window does."""
        found = {verdict.side: verdict.main for verdict in state.verdicts}
        sides = []
        for number, ratios in enumerate(self.ratios, 1):
            main = found.get(number)
            told = (main.ratio, main.low, main.high) if main is not None else (None, None, None)
            sides.append(RoundsSide(NAMES[number], ratios.tolist(), *told))
        below = " · ".join(" ".join(line.split()) for line in side_lines(state.config.sides))
        floor = state.floors.get(self.judged_metric)
        return Rounds(metrics.title(self.judged_metric), sides, (low, high), floor, below)

    def _place(self, state: ABTestState, across: float, low: float, high: float) -> None:
        palette = self.palette_in_use
        muted = "#808080" if palette is None else palette.muted
        floor = state.floors.get(self.judged_metric)
        _strip(self.floor_strip, across, *((None, None) if floor is None else (1 - floor, 1 + floor)))
        self.even_line.setData([0.0, across + 0.5], [1.0, 1.0])
        name = "as fast as A" if floor is None else f"A ±{100 * floor:.1f} % floor"
        labels = [(name, muted, across + 0.5, 1.0)]
        far: list[tuple[float, float]] = []
        verdicts = {verdict.side: verdict.main for verdict in state.verdicts}
        for number in range(len(SYMBOLS)):
            ratios = self.ratios[number] if number < len(self.ratios) else np.empty(0)
            rounds = np.arange(1, len(ratios) + 1)
            inside = np.isfinite(ratios) & (ratios > low) & (ratios < high)
            self.dots[number].setData(x=rounds[inside], y=ratios[inside])
            outside = np.isfinite(ratios) & ~inside
            edge = EDGE * (high - low)
            far += [(float(at), low + edge if ratios[at - 1] <= low else high - edge) for at in rounds[outside]]
            verdict = verdicts.get(number + 1)
            known = verdict is not None and verdict.ratio is not None
            _strip(self.bands[number], across, *((verdict.low, verdict.high) if verdict and known else (None, None)))
            middle = verdict.ratio if verdict and known else None
            self.medians[number].setData(*(([], []) if middle is None else ([0.0, across + 0.5], [middle, middle])))
            if middle is not None:
                colour = muted if palette is None else palette.series[number]
                labels.append((f"{NAMES[number + 1]} {middle:.3f}", colour, across + 0.5, middle))
        self.outliers.setData(x=[at for at, _ in far], y=[height for _, height in far])
        self.plot.labels.show(labels)
        self._legend(palette, bool(far), floor is not None)

    def _legend(self, palette: Palette | None, far: bool, has_floor: bool) -> None:
        if palette is None:
            return
        sides = [
            f'<span style="color:{palette.series[number]}">{MARKS[number]}</span>&nbsp;{NAMES[number + 1]}&nbsp;÷&nbsp;A'
            for number in range(len(self.ratios))
        ]
        more = ["band: 95&nbsp;% interval"] + (["grey: noise floor"] if has_floor else []) + (["×&nbsp;far off"] if far else [])
        what = f"{metrics.title(self.judged_metric)}, below 1 is faster"
        self.set_legend("&nbsp; ".join([what, *sides, *more]), "&nbsp; ".join([what, *sides]), "&nbsp; ".join(sides))

    def _limits(self, state: ABTestState, known: Values) -> tuple[float, float]:
        """Round limits around most dots, the intervals, 1 and the floor; one far-off round must not flatten the rest."""
        quarter, three_quarters = np.percentile(known, (25, 75))
        reach = FENCE * max(float(three_quarters - quarter), 0.002)
        inner = known[(known >= quarter - reach) & (known <= three_quarters + reach)]
        floor = state.floors.get(self.judged_metric, 0.0)
        values = [1 - floor, 1 + floor, *(inner if len(inner) else known)]
        for verdict in (side.main for side in state.verdicts):
            if verdict is not None and verdict.low is not None and verdict.high is not None:
                values += [max(verdict.low, quarter - 2 * reach), min(verdict.high, three_quarters + 2 * reach)]
        low, high = min(values), max(values)
        margin = max(0.08 * (high - low), 0.005)
        spacing = nice_spacing(high - low + 2 * margin, 5)
        return float(np.floor((low - margin) / spacing) * spacing), float(np.ceil((high + margin) / spacing) * spacing)

    def _hover(self, x: float, y: float) -> None:
        at = round(x)
        if not self.ratios or not 1 <= at <= max(len(ratios) for ratios in self.ratios):
            self.plot.say("", 0, 0)
            return
        told = [
            f"{NAMES[number]} {ratios[at - 1]:.3f} × A" if at <= len(ratios) and np.isfinite(ratios[at - 1]) else ""
            for number, ratios in enumerate(self.ratios, 1)
        ]
        text = " · ".join(one for one in told if one) or "no clean moments on both sides"
        self.plot.say(f"round {at} · {text}", float(at), y)

    def _item(self, item: Any, order: int) -> Any:
        item.setZValue(order)
        self.plot.addItem(item, ignoreBounds=True)
        return item


def _over(values: Values, first: Values) -> Values:
    """Round by round, as far as both sides are."""
    rounds = min(len(values), len(first))
    return np.asarray(values[:rounds] / first[:rounds], np.float64)


def _strip(item: Any, across: float, low: float | None, high: float | None) -> None:
    """A strip over the whole width between two heights."""
    if low is None or high is None:
        item.setData([], [])
    else:
        item.setFillLevel(low)
        item.setData([0.0, across + 0.5], [high, high])


def _faint(colour: str, opacity: float) -> QColor:
    faint = QColor(colour)
    faint.setAlphaF(opacity)
    return faint
