"""The table of an A/B test's layers: which of them got faster or slower on which side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, QSortFilterProxyModel, Qt
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QTableView, QWidget

from core import units
from core.analysis.word import Word
from gui.plain import plain_tip
from gui.theme import Palette
from gui.views.ab_test_text import NAMES, SIGNS, interval
from gui.views.stretching import LEAST_NAME, NEAR, StretchingColumn

if TYPE_CHECKING:
    from core.analysis.verdict import LayerVerdict

COLUMNS = ("Layer", "Stage", "Moments", "Side", "A", "Side's", "Difference", "Ratio (95 %)", "Verdict")
LAYER, STAGE, KIND, SIDE, A, B, DELTA, RATIO, VERDICT = range(len(COLUMNS))
WIDTHS = (0, 74, 66, 44, 76, 76, 108, 170, 96)
COLOURS = {Word.FASTER: "good", Word.SLOWER: "warn", Word.UNDECIDED: "muted"}
Index = QModelIndex | QPersistentModelIndex


class LayerVerdictModel(QAbstractTableModel):
    """One row per layer, kind of moment and side."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.rows: list[LayerVerdict] = []
        self.heads: list[str] = list(COLUMNS)  # an A/B test of two sides names its second in place of "Side's"
        self.palette_in_use: Palette | None = None

    def set_rows(self, rows: list[LayerVerdict]) -> None:
        """Replace everything."""
        if rows != self.rows:
            self.beginResetModel()
            self.rows = rows
            self.endResetModel()
            sides = {row.side for row in rows}
            self.heads = [*COLUMNS[:B], NAMES[sides.pop()] if len(sides) == 1 else COLUMNS[B], *COLUMNS[B + 1 :]]

    def rowCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def columnCount(self, parent: Index | None = None) -> int:
        return len(COLUMNS)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        row, column = self.rows[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(row, column)
        if role == Qt.ItemDataRole.UserRole:
            return self._key(row, column)
        if role == Qt.ItemDataRole.TextAlignmentRole and A <= column <= RATIO:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.ForegroundRole and column == VERDICT and self.palette_in_use is not None:
            return QColor(getattr(self.palette_in_use, COLOURS[row.word]))
        if role == Qt.ItemDataRole.ToolTipRole:
            return plain_tip(
                f"{row.path or '(whole model)'}: median of {row.n} traced rounds; the ratio is the side's time over A's"
            )
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return self.heads[section]
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.TextAlignmentRole and A <= section <= RATIO:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None

    def _text(self, row: LayerVerdict, column: int) -> str:
        if column == RATIO:
            return interval(row)
        texts = {
            LAYER: row.path or "(whole model)",
            STAGE: row.stage,
            KIND: row.kind.replace("_", " "),
            SIDE: NAMES[row.side],
            A: units.duration(row.a_ns),
            B: units.duration(row.b_ns),
            DELTA: units.signed_duration(row.b_ns - row.a_ns),
            VERDICT: f"{SIGNS[row.word]} {row.word.said}",
        }
        return texts[column]

    def _key(self, row: LayerVerdict, column: int) -> Any:
        """What a column is sorted by; differences by their size, whichever way they go."""
        keys = (row.path, row.stage, row.kind, row.side, row.a_ns, row.b_ns, abs(row.b_ns - row.a_ns), row.ratio, row.word)
        return keys[column]


class LayerVerdicts(QTableView):
    """Sorted by the size of the difference at first."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.rows = LayerVerdictModel(self)
        self.proxy = QSortFilterProxyModel(self)
        self.proxy.setSourceModel(self.rows)
        self.proxy.setSortRole(Qt.ItemDataRole.UserRole)
        self.setObjectName("trialLayers")
        self.setAccessibleName("Layers of the A/B test's sides with their verdicts")
        self.setModel(self.proxy)
        self.setSortingEnabled(True)
        self.sortByColumn(DELTA, Qt.SortOrder.DescendingOrder)
        self.setSelectionBehavior(QTableView.SelectionBehavior.SelectRows)
        self.setShowGrid(False)
        self.setAlternatingRowColors(True)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(24)
        header = self.horizontalHeader()
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        header.setHighlightSections(False)
        self._name_column = StretchingColumn(self, LAYER, LEAST_NAME, NEAR)
        header.setMinimumSectionSize(40)
        for column, width in enumerate(WIDTHS):
            if width:
                self.setColumnWidth(column, width)

    def show_rows(self, rows: list[LayerVerdict]) -> None:
        """Show these; an A/B test of two sides needs no column that names the side."""
        self.rows.set_rows(rows)
        self.setColumnHidden(SIDE, len({row.side for row in rows}) < 2)

    def set_palette(self, palette: Palette) -> None:
        """Repaint in other colours."""
        self.rows.palette_in_use = palette
        self.viewport().update()

    def path_at(self, index: QModelIndex) -> str:
        """The layer of a row on show."""
        return self.rows.rows[self.proxy.mapToSource(index).row()].path
