"""Speed against quality cost: a point per run, the unoptimized model marked, and the front of runs that no other one beats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QBrush, QColor
from PySide6.QtWidgets import QGraphicsSimpleTextItem, QSizePolicy, QVBoxLayout, QWidget

from core import units
from core.analysis.quality_headline import DECODE, PATHS
from core.analysis.speed_quality import Point, behind_said
from core.export.speed_quality import (
    axis_title,
    cost_axis,
    cost_place,
    cost_text,
    left_out,
    point_table,
    power,
    stairs,
)
from core.presentation.ticks import nice_limit
from gui.charts.axis import Axis
from gui.charts.card import Chart
from gui.charts.menu import ChartFile
from gui.charts.plot import Plot, small_font
from gui.theme import Palette

HINT = (
    "Each run of the session becomes a point here once its speed and its quality cost are known: "
    "run the model without passes, then with some."
)
GAP = 0.35  # decades left of zero and right of the highest power of ten
REACH = 16  # pixels from a point in which it is meant
MOST_LETTERS = 44
UNITS = {"kld": "KLD, nats", "cosine": "1 − cosine", "disagreement": "share", "tokens": "share"}


class CostAxis(Axis):
    """Powers of ten, and a zero of its own at the left."""

    def __init__(self) -> None:
        super().__init__("bottom")
        self.low, self.high = -4.0, -1.0

    def show_range(self, low: float, high: float) -> None:
        """From which to which power of ten."""
        if (low, high) != (self.low, self.high):
            self.low, self.high = low, high
            self.picture = None
            self.update()

    def tickValues(self, minVal: float, maxVal: float, size: float) -> list[tuple[float, list[float]]]:  # noqa: N803 (Qt style)
        every = max(1, math.ceil(52 * (maxVal - minVal) / max(1.0, size)))
        decades = np.arange(math.ceil(self.low), math.floor(self.high) + 1, every)
        return [(1.0, [at for at in (self.low - 1.0, *map(float, decades)) if minVal <= at <= maxVal])]

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:
        return ["0" if at < self.low - 0.5 else power(round(at)) for at in values]


class SpeedQualityChart(Chart):
    """A click on a point asks for its run; ``mark`` puts a ring round the run on show."""

    figure_name = "speed-quality"
    run_asked = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Speed × quality", "speedQualityChart", HINT, parent)
        self.points: list[Point] = []
        self.axis = CostAxis()
        self.plot = self.adopt(Plot("cost", "tok/s", bottom=self.axis, axis_width=84, gutter=84, parent=self.body))
        self.plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Ignored)  # it asks for 640 × 480 otherwise
        layout = QVBoxLayout(self.body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.plot)
        self.front = self._item(pg.PlotCurveItem(), 1)
        self.rift = self._item(pg.InfiniteLine(angle=90), 0)
        self.bars = {name: self._item(pg.PlotCurveItem(connect="pairs"), 2) for name in ("apart", "own", "plain")}
        marks = {"apart": ("o", 9), "behind": ("o", 10), "best": ("o", 10), "plain": ("d", 13)}
        self.dots = {
            name: self._item(pg.ScatterPlotItem(symbol=symbol, size=size, antialias=True), 4)
            for name, (symbol, size) in marks.items()
        }
        self.ring = self._item(pg.ScatterPlotItem(symbol="o", size=19), 5)
        self.names: list[QGraphicsSimpleTextItem] = []
        self._marked: int | None = None
        self._stairs: tuple[list[float], list[float]] = ([], [])
        self.plot.pointer_moved.connect(self._hover)
        self.plot.pointer_left.connect(lambda: self.plot.say("", 0, 0))
        self.plot.clicked.connect(self._click)
        view = self.plot.getViewBox()
        view.sigRangeChanged.connect(self._place_names)
        view.sigResized.connect(self._place_names)

    @property
    def drawn(self) -> list[Point]:
        """The points that have a place."""
        return [one for one in self.points if one.cost is not None]

    def show_points(self, points: Sequence[Point], costs: Iterable[float | None] = ()) -> None:
        """Draw these (of ``core.analysis.speed_quality.placed``). ``costs``: of runs to come, for an axis that keeps still."""
        self.points = list(points)
        if not self.drawn:
            missing = left_out(self.points)
            self.explain(f"{HINT}\n\n{missing}" if missing else HINT)
            return
        self.explain(None)
        low, high = cost_axis([*(one.cost for one in self.drawn), *costs])
        if (low, high) != (self.axis.low, self.axis.high):
            self.plot.user_ranged = False
        self.axis.show_range(low, high)
        top = nice_limit(1.08 * max(one.high or one.speed for one in self.drawn))
        self.plot.fit(low - 1 - GAP, high + GAP, 0.0, top)
        self.rift.setValue(low - 0.5)
        shown = next((one for one in self.drawn if not one.apart), self.drawn[0])
        self.plot.name_axes(UNITS.get(shown.cost_kind, "cost"), shown.speed_unit)
        self._place(low, high)
        self._legend()
        self.mark(self._marked)
        self._place_names()

    def mark(self, run_id: int | None) -> None:
        """A ring round this run."""
        self._marked = run_id
        chosen = [one for one in self.drawn if one.run_id == run_id]
        self.ring.setData(x=[self._x(one) for one in chosen], y=[one.speed for one in chosen])

    def recolour(self, palette: Palette) -> None:
        blue = palette.series[0]
        looks = {
            "apart": (palette.disabled, palette.card),
            "behind": (blue, palette.card),
            "best": (blue, blue),
            "plain": (palette.text, palette.text),
        }
        for name, (edge, inside) in looks.items():
            self.dots[name].setPen(pg.mkPen(edge, width=1.6))
            self.dots[name].setBrush(pg.mkBrush(inside))
        for name, colour in (("apart", palette.disabled), ("own", blue), ("plain", palette.text)):
            self.bars[name].setPen(pg.mkPen(colour, width=1.2))
        faint = QColor(blue)
        faint.setAlphaF(0.65)
        self.front.setPen(pg.mkPen(faint, width=1.6))
        self.rift.setPen(pg.mkPen(palette.grid, width=1, style=Qt.PenStyle.DashLine))
        self.ring.setPen(pg.mkPen(palette.warn, width=2))
        self.ring.setBrush(pg.mkBrush(None))
        self._legend()
        self._place_names()

    def table(self) -> Mapping[str, Sequence[Any]]:
        return point_table(self.points)

    def file(self) -> ChartFile | None:
        points, palette = list(self.points), self.palette_in_use
        if not self.drawn:
            return None

        def write_image(path: Any) -> None:
            from core.export.figures import write_speed_quality  # matplotlib is slow to import and rarely wanted

            write_speed_quality(points, path, "light" if palette is None else palette.name)

        def write_data(path: Any) -> None:
            from core.export.files import write_table

            write_table(point_table(points), path)

        return ChartFile("session speed-quality", write_image, write_data)

    def describe(self, one: Point) -> str:
        """What is said of a point."""
        lines = [f"{one.name} · {' + '.join(one.passes) or 'unoptimized'}"]
        spread = "" if one.low is None or one.high is None else f" ({units.number(one.low)}–{units.number(one.high)})"
        speed = f"{units.number(one.speed)}{spread} {one.speed_unit}"
        plain = [other.speed for other in self.drawn if other.baseline and not other.apart]
        if plain and one.passes and not one.apart:
            speed += f", {units.ratio(one.speed / plain[-1])} unoptimized"
        cost = "nothing changed" if one.baseline else f"cost {cost_text(one.cost)}"
        cost += f" ± {cost_text(one.cost_error)}" if one.cost_error is not None else ""
        if one.cost_path:
            other = (one.cost_bulk, "in bulk") if one.cost_path == DECODE else (one.cost_decode, "while decoding")
            cost += f" {PATHS[one.cost_path]}" + (f" ({cost_text(other[0])} {other[1]})" if other[0] is not None else "")
        lines.append(f"{speed} · {cost}")
        return "\n".join([*lines, f"not comparable: {one.apart}"] if one.apart else lines)

    def _x(self, one: Point) -> float:
        return cost_place(one.cost or 0.0, self.axis.low)

    def _place(self, low: float, high: float) -> None:
        sorts: dict[str, list[Point]] = {name: [] for name in self.dots}
        for one in self.drawn:
            name = "apart" if one.apart else "plain" if one.baseline else "best" if one.on_front else "behind"
            sorts[name].append(one)
        for name, found in sorts.items():
            self.dots[name].setData(x=[self._x(one) for one in found], y=[one.speed for one in found])
        for name, of in (("apart", ("apart",)), ("own", ("behind", "best")), ("plain", ("plain",))):
            self.bars[name].setData(*_bars([one for sort in of for one in sorts[sort]], low))
        self._stairs = stairs(self.drawn, low, high + GAP)
        self.front.setData(*self._stairs)

    def _legend(self) -> None:
        palette = self.palette_in_use
        if palette is None or not self.drawn:
            return
        blue = palette.series[0]
        marks = [("◆", palette.text, "unoptimized"), ("●", blue, "not behind another")]
        marks.append(("○", blue, behind_said(self.drawn)))
        if any(one.apart for one in self.drawn):
            marks.append(("○", palette.disabled, "not comparable"))
        legend = "&nbsp;&nbsp; ".join(f'<span style="color:{colour}">{mark}</span>&nbsp;{name}' for mark, colour, name in marks)
        bars = "bars: 95&nbsp;% of the speed, ± standard error of the cost"
        self.set_legend(f"{bars}&nbsp;&nbsp; {legend}", legend)

    def _place_names(self) -> None:
        """Names beside the best points and the unoptimized one, where none lies on another; the rest tell by hovering."""
        palette = self.palette_in_use
        wanted = sorted((one for one in self.drawn if not one.apart), key=lambda one: (not one.on_front, not one.baseline))
        while len(self.names) < len(wanted):
            item = QGraphicsSimpleTextItem(self.plot.getPlotItem())
            item.setZValue(10)
            self.names.append(item)
        for item in self.names[len(wanted) :]:
            item.setVisible(False)
        if palette is None or not wanted:
            return
        view = self.plot.getViewBox()
        frame = view.mapRectToParent(view.boundingRect())
        at = {id(one): view.mapToParent(view.mapFromView(QPointF(self._x(one), one.speed))) for one in self.drawn}
        taken = [QRectF(point.x() - 8, point.y() - 8, 16, 16) for point in at.values()]
        corners = [view.mapToParent(view.mapFromView(QPointF(x, y))) for x, y in zip(*self._stairs, strict=True)]
        taken += [QRectF(one, other).normalized().adjusted(-1, -1, 1, 1) for one, other in pairwise(corners)]
        for item, one in zip(self.names, wanted, strict=False):
            text = " + ".join(one.passes) or "unoptimized"
            item.setFont(small_font(self.plot))
            item.setBrush(QBrush(QColor(palette.muted)))
            item.setText(text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…")
            place = _free_place(at[id(one)], item.boundingRect(), taken, frame)
            item.setVisible(place is not None)
            if place is not None:
                item.setPos(place.topLeft())
                taken.append(place)

    def _nearest(self, x: float, y: float) -> Point | None:
        across, up = self.plot.pixel_size()
        near = [(math.hypot((self._x(one) - x) / across, (one.speed - y) / up), at) for at, one in enumerate(self.drawn)]
        distance, number = min(near, default=(math.inf, -1))
        return self.drawn[number] if distance <= REACH else None

    def _hover(self, x: float, y: float) -> None:
        one = self._nearest(x, y)
        if one is None:
            self.plot.say("", 0, 0)
        else:
            self.plot.say(self.describe(one), self._x(one), one.speed)

    def _click(self, x: float, y: float) -> None:
        one = self._nearest(x, y)
        if one is not None:
            self.run_asked.emit(one.run_id)

    def _item(self, item: Any, order: int) -> Any:
        item.setZValue(order)
        self.plot.addItem(item, ignoreBounds=True)
        return item

    @property
    def axis_titles(self) -> tuple[str, str]:
        """What both axes are, for the lines beside the plot."""
        unit = next((one.speed_unit for one in self.drawn if not one.apart), "tok/s")
        return axis_title(self.drawn), f"decode, {unit}" if unit == "tok/s" else unit


def _bars(found: Sequence[Point], low: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of ends: the speed's interval upright, the cost's error across (cut at the axis's lowest power of ten)."""
    xs: list[float] = []
    ys: list[float] = []
    for one in found:
        x = cost_place(one.cost or 0.0, low)
        if one.low is not None and one.high is not None:
            xs += [x, x]
            ys += [one.low, one.high]
        if one.cost and one.cost_error:
            ends = [max(one.cost + sign * one.cost_error, 10.0**low) for sign in (-1, 1)]
            xs += [cost_place(end, low) for end in ends]
            ys += [one.speed, one.speed]
    return np.asarray(xs, np.float64), np.asarray(ys, np.float64)


def _free_place(point: QPointF, size: QRectF, taken: Sequence[QRectF], frame: QRectF) -> QRectF | None:
    """Where a name fits beside its point: right, left, above, below; None where it would lie on something."""
    width, height = size.width(), size.height()
    x, y = point.x(), point.y()
    for left, top in (
        (x + 10, y - height - 1),
        (x - 10 - width, y - height - 1),
        (x + 10, y + 1),
        (x - 10 - width, y + 1),
        (x - width / 2, y - height - 10),
        (x - width / 2, y + 10),
    ):
        place = QRectF(left, top, width, height)
        if frame.contains(place) and not any(place.intersects(other) for other in taken):
            return place
    return None
