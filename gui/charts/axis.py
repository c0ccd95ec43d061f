"""The axis of the window's charts: few round ticks (``core.presentation.ticks``), the unit at the top one."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import pyqtgraph as pg
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QFontMetrics, QGuiApplication

from core.presentation.ticks import nice_spacing, plain_number, round_numbers


class Axis(pg.AxisItem):  # type: ignore[misc]  # pyqtgraph has no types
    """One level of round ticks, few enough to read. The topmost tick of an upright axis carries the unit."""

    def __init__(self, orientation: str, unit: str = "", whole: bool = False, grid: bool = False) -> None:
        super().__init__(orientation, maxTickLength=0)
        self.has_grid = grid
        self.unit = unit
        self.whole = whole
        self.labels: dict[float, str] | None = None
        self.only_ends = False  # two ticks, at zero and at the top, for the smallest charts
        self.enableAutoSIPrefix(False)
        self.setStyle(autoExpandTextSpace=False, autoReduceTextSpace=False, tickTextOffset=6, hideOverlappingLabels=False)

    def name_values(self, labels: Sequence[str] | None) -> None:
        """Ticks are names at 0.5, 1.5, ... instead of numbers; as many of them as there is room for."""
        wanted = None if labels is None else {row + 0.5: text for row, text in enumerate(labels)}
        if wanted != self.labels:
            self.labels = wanted
            self.picture = None
            self.update()

    def tickValues(self, minVal: float, maxVal: float, size: float) -> list[tuple[float, list[float]]]:  # noqa: N803 (Qt style)
        low, high = min(minVal, maxVal), max(minVal, maxVal)
        if self.labels is not None:
            return [(1.0, self._named_ticks(low, high, size))]
        if self.only_ends:
            return [(high, [0.0, high])]
        upright = self.orientation in ("left", "right")
        # Few and far apart, but also in a low chart enough to read a value by.
        most = max(int(size / 30), min(4, int(size / 18))) if upright else int(size / 62)
        spacing = nice_spacing(high - low, most, self.whole)
        return [(spacing, round_numbers(low, high, spacing))]

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:
        if self.labels is not None:
            return [self._fitting(self.labels.get(value, "")) for value in values]
        if self.only_ends:
            return [f"{value:.3g}" for value in values]
        texts = [plain_number(value, spacing) for value in values]
        if texts and self.unit and self.orientation in ("left", "right"):
            texts[-1] = f"{texts[-1]} {self.unit}"
        return texts

    def boundingRect(self) -> QRectF:
        # pyqtgraph drops a text that does not fit in here, and with a grid it forgets the half line above the top tick.
        frame = QRectF(super().boundingRect())
        return frame.adjusted(0, -14, 0, 14) if self.orientation == "left" else frame

    def _fitting(self, name: str) -> str:
        """The end of a name that has no room as a whole: pyqtgraph would drop it, and a layer's path differs at its end."""
        if self.fixedWidth is None:  # it takes what it needs
            return name
        font = self.style.get("tickFont") or QGuiApplication.font()
        return QFontMetrics(font).elidedText(name, Qt.TextElideMode.ElideLeft, int(self.fixedWidth) - 12)

    def _named_ticks(self, low: float, high: float, size: float) -> list[float]:
        """First and last name, and every so many in between that they stay 16 pixels apart."""
        shown = [at for at in self.labels or () if low <= at <= high]
        if len(shown) < 2:
            return shown
        pixels = size / max(high - low, 1e-9)
        every = max(1, math.ceil(16 / max(pixels, 1e-9)))
        every = next((step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if step >= every), every)
        ends = [shown[0], shown[-1]]
        kept = [at for at in shown[1:-1] if self._number(at) % every == 0]
        return [shown[0], *(at for at in kept if all(abs(at - end) * pixels >= 15 for end in ends)), shown[-1]]

    def _number(self, at: float) -> int:
        """Block 10 is easier to place than the tenth row counted from the embedding, so ticks follow the names' numbers."""
        digits = re.findall(r"\d+", (self.labels or {})[at])
        return int(digits[-1]) if digits else 1
