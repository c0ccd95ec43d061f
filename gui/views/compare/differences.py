"""The parts of the compare view: a tile per headline number, and the table of layers with their differences."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QFrame, QVBoxLayout, QWidget

from core import units
from core.analysis import metrics
from core.analysis.compare import LayerDifference, TileDifference
from core.analysis.verdict import Verdict
from gui.plain import Label
from gui.theme import Palette
from gui.views.ab_test_text import interval, judged

COLUMNS = ("Layer", "Stage", "Moments", "First", "Second", "Difference", "Ratio")
NUMBERS_FROM = 3
DELTA = COLUMNS.index("Difference")


def difference_text(tile: TileDifference) -> str:
    """The second over the first, as in ``0.76× the first (0.74–0.78)``. No word judges: that takes an A/B test."""
    if tile.ratio is None or tile.ratio <= 0:
        return "no difference to tell: one side was not measured"
    if f"{max(tile.ratio, 1 / tile.ratio):.2f}" == "1.00":
        return "the same to 0.5 %"
    bounds = "" if tile.low is None or tile.high is None else f" ({tile.low:.2f}–{tile.high:.2f})"
    return f"{units.ratio(tile.ratio)} the first{bounds}"


def verdict_text(verdict: Verdict) -> str:
    """``TPOT ▲ 1.34× faster, 0.746 (0.731–0.762)``."""
    return f"{metrics.title(verdict.metric)} {judged(verdict)}, {interval(verdict)}"


class DifferenceTile(QFrame):
    """One headline number of both runs."""

    def __init__(self, tile: TileDifference, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setProperty("card", True)
        self.setObjectName(f"compare{tile.name.replace(' ', '')}")
        show = units.of_unit(tile.unit)
        name = Label(tile.name, self)
        name.setProperty("role", "muted")
        values = Label(f"{show(tile.a)}  →  {show(tile.b)}", self)
        values.setProperty("role", "title")
        self.difference = Label(difference_text(tile), self)
        self.difference.setProperty("role", "muted")
        self.difference.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(11, 7, 8, 8)
        layout.setSpacing(2)
        for label in (name, values, self.difference):
            layout.addWidget(label)
        self.setToolTip("Second over first, from clean moments; in brackets the 95 % interval of the ratio of medians.")
        self.setAccessibleName(f"{tile.name}: {show(tile.a)}, then {show(tile.b)}, {self.difference.text()}")


class DifferenceModel(QAbstractTableModel):
    """The layers of both runs, one row per layer and kind of moment."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.rows: list[LayerDifference] = []
        self.palette_in_use: Palette | None = None

    def set_rows(self, rows: list[LayerDifference]) -> None:
        self.beginResetModel()
        self.rows = rows
        self.endResetModel()

    def sort_key(self, row: int, column: int) -> Any:
        """What a column is sorted by; differences by their size, whichever way they go."""
        layer = self.rows[row]
        delta = -1.0 if layer.delta_ns is None else abs(layer.delta_ns)
        key = (layer.path, layer.stage, layer.kind, layer.a_ns, layer.b_ns, delta, layer.ratio)[column]
        return -1.0 if key is None else key

    def rowCount(self, parent: QModelIndex | QPersistentModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex | QPersistentModelIndex | None = None) -> int:
        return len(COLUMNS)

    def data(self, index: QModelIndex | QPersistentModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        layer, column = self.rows[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            numbers = (units.duration(layer.a_ns), units.duration(layer.b_ns))
            changes = (units.signed_duration(layer.delta_ns), units.ratio(layer.ratio))
            return (layer.path or "(whole model)", layer.stage, layer.kind.replace("_", " "), *numbers, *changes)[column]
        if role == Qt.ItemDataRole.UserRole:
            return self.sort_key(index.row(), column)
        if role == Qt.ItemDataRole.TextAlignmentRole and column >= NUMBERS_FROM:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.ForegroundRole and column == DELTA and self.palette_in_use is not None and layer.delta_ns:
            return QColor(self.palette_in_use.good if layer.delta_ns < 0 else self.palette_in_use.warn)
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return COLUMNS[section]
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.TextAlignmentRole and section >= NUMBERS_FROM:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None
