"""The operator table for Qt: thousands of rows, sorted and filtered in one list so that the view stays quick."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from core import units
from core.analysis.operators import OperatorRow
from gui.plain import plain_tip

Index = QModelIndex | QPersistentModelIndex
Value = float | str | None


class Column(NamedTuple):
    """One column: its head, what it means, the value it sorts by, and that value as text."""

    title: str
    meaning: str
    value: Callable[[OperatorRow], Value]
    text: Callable[[OperatorRow], str]
    width: int
    number: bool = True


def giga_flops(row: OperatorRow) -> float | None:
    """FLOPs per ns are GFLOP/s."""
    return row.flops / row.total_ns if row.flops is not None and row.total_ns > 0 else None


def _moment(row: OperatorRow) -> str:
    return row.kind.replace("_", " ") if row.kind else "in none"


def _rate(row: OperatorRow) -> str:
    value = giga_flops(row)
    return units.DASH if value is None else units.number(value)


COLUMNS = (
    Column("Operator", "Name as torch or the device's driver gives it", lambda r: r.name, lambda r: r.name, 0, False),
    Column(
        "Where",
        "cpu: on the processor; runtime: a call into the device's driver; kernel, copy: on the device; python: a function",
        lambda r: r.place,
        lambda r: r.place,
        70,
        False,
    ),
    Column("Layer", "The innermost layer around it", lambda r: r.layer or "", lambda r: r.layer or units.DASH, 190, False),
    Column("Moment", "Kind of the moment it ran in", lambda r: r.kind or "", _moment, 84, False),
    Column("Calls", "Calls in the profiled moment", lambda r: r.calls, lambda r: f"{r.calls}", 56),
    Column("Total", "Time with the operators called from it", lambda r: r.total_ns, lambda r: units.duration(r.total_ns), 78),
    Column("Self", "Time without the operators called from it", lambda r: r.self_ns, lambda r: units.duration(r.self_ns), 78),
    Column("Share", "Self time over the time of the profiled moment", lambda r: r.share, lambda r: units.percent(r.share), 64),
    Column(
        "FLOPs",
        "Floating-point operations, where torch knows a formula; a multiplication and an addition are two",
        lambda r: r.flops,
        lambda r: units.count(r.flops),
        72,
    ),
    Column("GFLOP/s", "FLOPs over total time, both under the profiler", giga_flops, _rate, 66),
    Column("Bytes", "Read and written, where it is known", lambda r: r.bytes, lambda r: units.size(r.bytes), 76),
    Column(
        "Allocated",
        "Memory taken and not given back by its end",
        lambda r: r.allocated_bytes,
        lambda r: units.size(r.allocated_bytes),
        76,
    ),
    Column("Shapes", "Shapes of the inputs", lambda r: r.shapes or "", lambda r: r.shapes or units.DASH, 170, False),
)
TITLES = tuple(column.title for column in COLUMNS)
LAYER, MOMENT, SELF = TITLES.index("Layer"), TITLES.index("Moment"), TITLES.index("Self")


class OperatorModel(QAbstractTableModel):
    """All rows stay in ``rows``; ``shown`` are those that the filter lets through, in the order of the chosen column."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.rows: Sequence[OperatorRow] = ()
        self.shown: list[OperatorRow] = []
        self._words = ""
        self._column, self._order = SELF, Qt.SortOrder.DescendingOrder

    def set_rows(self, rows: Sequence[OperatorRow]) -> None:
        """Show these instead."""
        self.rows = rows
        self._refresh()

    def set_filter(self, words: str) -> None:
        """Only operators with ``words`` in their names."""
        if words.lower() != self._words:
            self._words = words.lower()
            self._refresh()

    def table(self) -> dict[str, list[Any]]:
        """What is shown as columns, with units in their names."""
        return {field.name: [getattr(row, field.name) for row in self.shown] for field in fields(OperatorRow)}

    def _refresh(self) -> None:
        self.beginResetModel()
        self.shown = [row for row in self.rows if self._words in row.name.lower()] if self._words else list(self.rows)
        self._arrange()
        self.endResetModel()

    def _arrange(self) -> None:
        """Sort what is shown; what is not known comes last either way."""
        value = COLUMNS[self._column].value
        known = [row for row in self.shown if value(row) is not None]
        unknown = [row for row in self.shown if value(row) is None]
        known.sort(key=value, reverse=self._order == Qt.SortOrder.DescendingOrder)  # type: ignore[arg-type]  # one type a column
        self.shown = known + unknown

    # Qt overrides

    def rowCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.shown)

    def columnCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(COLUMNS)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        row, column = self.shown[index.row()], COLUMNS[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return column.text(row)
        if role == Qt.ItemDataRole.TextAlignmentRole and column.number:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.ToolTipRole:
            return plain_tip(_tip(row))
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        column = COLUMNS[section]
        if role == Qt.ItemDataRole.TextAlignmentRole and column.number:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.DisplayRole:
            return column.title
        return column.meaning if role == Qt.ItemDataRole.ToolTipRole else None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        self.layoutAboutToBeChanged.emit()
        self._column, self._order = column, order
        self._arrange()
        self.layoutChanged.emit()


def _tip(row: OperatorRow) -> str:
    parts = [row.name, f"{units.percent(row.share)} of the moment by itself"]
    parts += [f"in {row.layer}"] if row.layer else []
    parts += [f"inputs {row.shapes}"] if row.shapes else []
    return "\n".join(parts)
