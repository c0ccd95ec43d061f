"""The colour scale of the heat map and the bar that explains it."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPointF, QRectF, QSize
from PySide6.QtGui import QColor, QFontMetricsF, QImage, QPainter
from PySide6.QtWidgets import QWidget

from core.presentation.ticks import nice_spacing, plain_number
from gui.charts.plot import Painted
from gui.theme import Palette

BAR_WIDTH = 76  # with its numbers


def lookup_table() -> np.ndarray:
    """Viridis as 256 × 3 bytes: even steps look even, also without colour vision and in grey."""
    return np.asarray(pg.colormap.get("viridis").getLookupTable(nPts=256), np.uint8)[:, :3]


class ColourBar(Painted):
    """A narrow upright scale from 0 to ``limit``, in ``unit``. ``open_ended``: its top colour also stands for more."""

    WIDTH = 12

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.limit = 1.0
        self.open_ended = False
        self.unit = "ms"
        self._text = QColor("#808080")
        table = np.ascontiguousarray(lookup_table()[::-1]).reshape(256, 1, 3)
        self._gradient = QImage(table.tobytes(), 1, 256, 3, QImage.Format.Format_RGB888).copy()
        self.setFixedWidth(BAR_WIDTH)

    @property
    def texts(self) -> list[str]:
        """The numbers beside the scale, from the top."""
        spacing = nice_spacing(self.limit, 4)
        values = [step * spacing for step in range(int(self.limit / spacing + 1e-9) + 1)]
        top = values[-1]
        sign = "≥ " if self.open_ended and top >= self.limit * 0.999 else ""
        highest = f"{sign}{plain_number(top, spacing)} {self.unit}".rstrip()
        return [highest, *(plain_number(value, spacing) for value in reversed(values[:-1]))]

    def set_palette(self, palette: Palette) -> None:
        self._text = QColor(palette.muted)
        self.update()

    def set_scale(self, limit: float, open_ended: bool, unit: str = "ms") -> None:
        """Where the scale ends, in ``unit``."""
        if (limit, open_ended, unit) != (self.limit, self.open_ended, self.unit):
            self.limit, self.open_ended, self.unit = limit, open_ended, unit
            self.update()

    def draw(self, painter: QPainter) -> None:
        metrics = QFontMetricsF(painter.font())
        # The same margins as the plot beside it, so that the bar is as high as the map.
        bar = QRectF(0, 8, self.WIDTH, max(10.0, self.height() - 8 - 22))
        painter.drawImage(bar, self._gradient)
        painter.setPen(self._text)
        spacing = nice_spacing(self.limit, 4)
        steps = range(int(self.limit / spacing + 1e-9) + 1)
        for step, text in zip(steps, reversed(self.texts), strict=True):
            y = bar.bottom() - bar.height() * step * spacing / self.limit
            baseline = min(max(y + metrics.ascent() / 2 - 1, bar.top() + metrics.ascent()), bar.bottom())
            painter.drawText(QPointF(self.WIDTH + 6, baseline), text)

    def sizeHint(self) -> QSize:
        return QSize(BAR_WIDTH, 120)
