"""The pyqtgraph plot that charts are made of: axes that read at a glance, ranges that do not jump, painting that is counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import pyqtgraph as pg
import shiboken6
from PySide6.QtCore import QEvent, QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QBrush, QColor, QFont, QFontMetricsF, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import QGraphicsSimpleTextItem, QWidget

from gui.charts.axis import Axis
from gui.plain import Label
from gui.theme import Palette, scaled

Values = npt.NDArray[np.float64]
PaintMeter = Callable[[int], None]
"""Told after every painting how many nanoseconds it took; the shell passes it on to the gate."""


def small_font(widget: QWidget) -> QFont:
    """The application's font one size down, with figures of one width."""
    font = scaled(widget.font(), 0.85)
    font.setFeature(QFont.Tag("tnum"), 1)
    return font


class Painted(QWidget):
    """A small widget that paints itself in ``draw``, counted like a plot."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.paint_meter: PaintMeter | None = None

    def draw(self, painter: QPainter) -> None:
        """Paint the whole widget."""

    def paintEvent(self, event: QPaintEvent) -> None:
        start_ns = time.perf_counter_ns()
        painter = QPainter(self)
        painter.setFont(small_font(self))
        self.draw(painter)
        painter.end()
        if self.paint_meter is not None:
            self.paint_meter(time.perf_counter_ns() - start_ns)


class EndLabels:
    """Texts at the end of curves, in the free strip right of the plot, pushed apart so that none lies on another."""

    def __init__(self, plot: Plot) -> None:
        self._plot = plot
        self._items: list[QGraphicsSimpleTextItem] = []
        self._places: list[tuple[float, float]] = []

    @property
    def texts(self) -> list[str]:
        """What is shown now, from the first label on."""
        return [item.text() for item in self._items if item.isVisible()]

    def show(self, labels: Sequence[tuple[str, str, float, float]]) -> None:
        """``labels``: text, colour, and x and y of the curve's end in data coordinates."""
        while len(self._items) < len(labels):
            item = QGraphicsSimpleTextItem(self._plot.getPlotItem())
            item.setZValue(10)
            item.setFont(small_font(self._plot))
            self._items.append(item)
        for item, (text, colour, _, _) in zip(self._items, labels, strict=False):
            if item.text() != text:
                item.setText(text)
            item.setBrush(QBrush(QColor(colour)))
        for item in self._items[len(labels) :]:
            item.setVisible(False)
        self._places = [(x, y) for _, _, x, y in labels]
        self.place()

    def set_font(self, font: QFont) -> None:
        """Give all labels another font."""
        for item in self._items:
            item.setFont(font)

    def place(self) -> None:
        """Move the labels to where their curves end now (after new data, a zoom or a resize)."""
        view = self._plot.getViewBox()
        frame = view.mapRectToParent(view.boundingRect())
        (left, right), (low, high) = view.viewRange()
        wanted: list[tuple[float, float, QGraphicsSimpleTextItem]] = []
        for item, (x, y) in zip(self._items, self._places, strict=False):
            inside = low <= y <= high and x >= left
            item.setVisible(inside)
            if inside:
                point = view.mapToParent(view.mapFromView(QPointF(min(x, right), y)))
                wanted.append((point.y(), point.x() + 6, item))
        wanted.sort(key=lambda entry: entry[0])
        tops: list[float] = []
        for y, _, item in wanted:
            height = item.boundingRect().height()
            above = tops[-1] + wanted[len(tops) - 1][2].boundingRect().height() - 1 if tops else frame.top() - 8
            tops.append(max(y - height / 2, above))
        floor = frame.bottom()
        for position in range(len(wanted) - 1, -1, -1):
            height = wanted[position][2].boundingRect().height()
            tops[position] = min(tops[position], floor - height)
            floor = tops[position] + 1
        for top, (_, x, item) in zip(tops, wanted, strict=True):
            item.setPos(x, top)


class Plot(pg.PlotWidget):  # type: ignore[misc]  # pyqtgraph has no types
    """A plot without its own menu and buttons. Ranges are set by the chart until the user zooms, and again after a reset."""

    pointer_moved = Signal(float, float)  # data coordinates
    pointer_left = Signal()
    clicked = Signal(float, float)
    stepped = Signal(int)  # arrow keys: -1 up, +1 down
    view_reset = Signal()

    def __init__(
        self,
        x_unit: str = "",
        y_unit: str = "",
        *,
        whole_x: bool = False,
        axis_width: int = 54,
        gutter: int = 12,
        bottom: Axis | None = None,
        grid: bool = True,
        parent: QWidget | None = None,
    ) -> None:
        self.paint_meter: PaintMeter | None = None
        self.bottom = bottom or Axis("bottom", whole=whole_x)
        self.left = Axis("left", y_unit, grid=grid)
        super().__init__(parent, axisItems={"bottom": self.bottom, "left": self.left}, enableMenu=False)
        self.user_ranged = False
        self._wanted: tuple[float, float, float, float] | None = None
        self._press: QPointF | None = None
        item = self.getPlotItem()
        item.hideButtons()
        # pyqtgraph makes its own menu all the same, 43 widgets as a window of their own that would outlive the plot. As a
        # child of it they would be styled with each theme, four times as many widgets as all the charts have.
        self.destroyed.connect(partial(_discard, item.ctrlMenu))
        item.layout.setContentsMargins(0, 8, 0, 0)
        item.layout.setColumnFixedWidth(2, gutter)
        view = self.getViewBox()
        view.disableAutoRange()
        view.setDefaultPadding(0)
        view.sigRangeChangedManually.connect(self._note_user_range)
        for axis in (self.bottom, self.left):
            axis.setZValue(-10)  # grid lines lie under the data
        self.bottom.setHeight(22)
        self.left.setWidth(axis_width)
        if not x_unit:
            item.hideAxis("bottom")
            item.layout.setContentsMargins(0, 7, 0, 7)
        self.labels = EndLabels(self)
        self._x_unit = QGraphicsSimpleTextItem(x_unit, item)
        self.readout = Label(self)
        self.readout.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.readout.hide()
        view.sigRangeChanged.connect(self._place)
        view.sigResized.connect(self._place)

    @property
    def gutter(self) -> float:
        """Width of the free strip right of the plot, in pixels."""
        return float(self.getPlotItem().layout.columnMinimumWidth(2))

    def name_axes(self, x_unit: str, y_unit: str) -> None:
        """Other units on the axes, as where the quantity is chosen by the data."""
        if self._x_unit.text() != x_unit:
            self._x_unit.setText(x_unit)
            self._place()
        if self.left.unit != y_unit:
            self.left.unit = y_unit
            self.left.picture = None
            self.left.update()

    def set_gutter(self, pixels: int) -> None:
        """Keep this much free right of the plot for labels."""
        layout = self.getPlotItem().layout
        if layout.columnMinimumWidth(2) != pixels:
            layout.setColumnFixedWidth(2, pixels)

    def set_palette(self, palette: Palette) -> None:
        """Colours and fonts of axes, background and read-out."""
        self.setBackground(palette.card)
        font = small_font(self)
        for axis in (self.bottom, self.left):
            axis.setTickFont(font)
            axis.setPen(pg.mkPen(None))
            axis.setTextPen(pg.mkPen(palette.muted))
            axis.setTickPen(pg.mkPen(palette.grid))
            axis.setGrid(255 if axis.has_grid else False)
        self._x_unit.setFont(font)
        self._x_unit.setBrush(QBrush(QColor(palette.muted)))
        self.labels.set_font(font)
        self.readout.setFont(font)
        self.readout.setStyleSheet(
            f"background: {palette.raised}; color: {palette.text}; border: 1px solid {palette.border};"
            " border-radius: 4px; padding: 2px 6px;"
        )
        self._place()

    def fit(self, x_low: float, x_high: float, y_low: float, y_high: float) -> None:
        """The range to show, unless the user has chosen another one. Nothing happens while it stays the same."""
        wanted = (x_low, x_high, y_low, y_high)
        if wanted != self._wanted:
            self._wanted = wanted
            if not self.user_ranged:
                self.getViewBox().setRange(xRange=(x_low, x_high), yRange=(y_low, y_high), padding=0)

    def reset(self) -> None:
        """Back from the user's zoom to the chart's own range."""
        self.user_ranged = False
        if self._wanted is not None:
            x_low, x_high, y_low, y_high = self._wanted
            self.getViewBox().setRange(xRange=(x_low, x_high), yRange=(y_low, y_high), padding=0)
        self.view_reset.emit()

    def follow_x(self, other: Plot) -> None:
        """Show the same x range as ``other`` whenever the user zooms, pans or resets it."""

        def zoomed() -> None:
            self.user_ranged = True
            self.getViewBox().setXRange(*other.getViewBox().viewRange()[0], padding=0)

        other.getViewBox().sigRangeChangedManually.connect(zoomed)
        other.view_reset.connect(self._fall_back)

    def _fall_back(self) -> None:
        if self.user_ranged:  # or two plots that follow each other would never end
            self.reset()

    def say(self, text: str, x: float, y: float) -> None:
        """Show ``text`` beside the point (x, y), inside the plot; "" hides it."""
        if not text:
            self.readout.hide()
            return
        if self.readout.text() != text:
            self.readout.setText(text)
            self.readout.adjustSize()
        view = self.getViewBox()
        at = self.mapFromScene(view.mapViewToScene(QPointF(x, y)))
        size = self.readout.size()
        left = at.x() + 12 if at.x() + 12 + size.width() <= self.width() else at.x() - 12 - size.width()
        top = min(max(0, at.y() - size.height() - 8), self.height() - size.height())
        self.readout.move(max(0, left), top)
        self.readout.show()
        self.readout.raise_()

    def pixel_size(self) -> tuple[float, float]:
        """Data units per pixel, across and up."""
        (left, right), (low, high) = self.getViewBox().viewRange()
        frame = self.getViewBox().boundingRect()
        return (right - left) / max(1.0, frame.width()), (high - low) / max(1.0, frame.height())

    def _note_user_range(self) -> None:
        self.user_ranged = True

    def _place(self) -> None:
        """The x unit stands in the strip right of the plot, in the row of tick numbers: it costs no height and covers none."""
        view = self.getViewBox()
        frame = view.mapRectToParent(view.boundingRect())
        last = QFontMetricsF(self._x_unit.font()).horizontalAdvance("000") / 2 + 8
        size = self._x_unit.boundingRect()
        left = min(frame.right() + last, self.getPlotItem().boundingRect().right() - size.width())
        self._x_unit.setPos(left, frame.bottom() + self.bottom.style["tickTextOffset"][1] - 2)
        self.labels.place()

    def _data_point(self, position: QPointF) -> QPointF:
        return QPointF(self.getViewBox().mapSceneToView(self.mapToScene(position.toPoint())))

    def paintEvent(self, event: QPaintEvent) -> None:
        start_ns = time.perf_counter_ns()
        super().paintEvent(event)
        if self.paint_meter is not None:
            self.paint_meter(time.perf_counter_ns() - start_ns)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if hasattr(self, "labels"):
            self._place()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        super().mouseMoveEvent(event)
        point = self._data_point(event.position())
        self.pointer_moved.emit(point.x(), point.y())

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self._press = event.position() if event.button() == Qt.MouseButton.LeftButton else None
        super().mousePressEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        super().mouseReleaseEvent(event)
        press, self._press = self._press, None
        if press is not None and (event.position() - press).manhattanLength() < 5:
            point = self._data_point(event.position())
            self.clicked.emit(point.x(), point.y())

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        super().mouseDoubleClickEvent(event)
        self.reset()

    def leaveEvent(self, event: QEvent) -> None:
        super().leaveEvent(event)
        self.readout.hide()
        self.pointer_left.emit()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        steps = {Qt.Key.Key_Up: -1, Qt.Key.Key_Down: 1}
        if event.key() in steps:
            self.stepped.emit(steps[Qt.Key(event.key())])
        else:
            # pyqtgraph's scene eats every key; the window's shortcuts (F5, Esc, numbers) need what is left.
            event.ignore()


def _discard(menu: QWidget) -> None:
    if shiboken6.isValid(menu):
        shiboken6.delete(menu)


def frame_of(plot: Plot) -> QRectF:
    """The plot's inner rectangle in its own pixels, for tests and for painting over it."""
    view = plot.getViewBox()
    return QRectF(view.mapRectToScene(view.boundingRect()))
