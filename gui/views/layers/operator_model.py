"""The operator table for Qt: one row for each operator, its shapes below; sorted and filtered in lists, to stay quick."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

from PySide6.QtCore import QAbstractItemModel, QModelIndex, QObject, QPersistentModelIndex, Qt

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


class Group(NamedTuple):
    """An operator with all its calls, and a row for each shape of its inputs; () where there is one shape."""

    whole: OperatorRow
    parts: tuple[OperatorRow, ...]


class OperatorModel(QAbstractItemModel):
    """All rows stay in ``rows``; ``shown`` are those that the filter lets through, grouped, in the chosen order."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.rows: Sequence[OperatorRow] = ()
        self.shown: list[Group] = []
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
        """What is shown, a row for each shape, as columns with units in their names."""
        rows = [row for group in self.shown for row in group.parts or (group.whole,)]
        return {field.name: [getattr(row, field.name) for row in rows] for field in fields(OperatorRow)}

    def _refresh(self) -> None:
        self.beginResetModel()
        found = [row for row in self.rows if self._words in row.name.lower()] if self._words else self.rows
        self.shown = grouped(found)
        self._arrange()
        self.endResetModel()

    def _arrange(self) -> None:
        """Sort the operators, and the shapes of each."""
        inside = [Group(one.whole, tuple(self._sorted(list(one.parts), lambda row: row))) for one in self.shown]
        self.shown = self._sorted(inside, lambda group: group.whole)

    def _sorted(self, things: list[Any], row_of: Callable[[Any], OperatorRow]) -> list[Any]:
        """What is not known comes last either way."""
        value = COLUMNS[self._column].value
        known = [one for one in things if value(row_of(one)) is not None]
        unknown = [one for one in things if value(row_of(one)) is None]
        known.sort(key=lambda one: value(row_of(one)), reverse=self._order == Qt.SortOrder.DescendingOrder)  # type: ignore[arg-type, return-value]  # one type a column
        return known + unknown

    def _row(self, index: Index) -> OperatorRow:
        above = index.internalId()
        return self.shown[above - 1].parts[index.row()] if above else self.shown[index.row()].whole

    # Qt overrides

    def index(self, row: int, column: int, parent: Index | None = None) -> QModelIndex:
        """Top rows have the id 0, shapes that of their operator's row plus one."""
        above = parent.row() + 1 if parent is not None and parent.isValid() else 0
        if not 0 <= row < self.rowCount(parent) or not 0 <= column < len(COLUMNS):
            return QModelIndex()
        return self.createIndex(row, column, above)

    def parent(self, child: Index | None = None) -> QModelIndex:  # type: ignore[override]  # Qt overloads it with QObject.parent
        above = child.internalId() if child is not None and child.isValid() else 0
        return self.createIndex(above - 1, 0, 0) if above else QModelIndex()

    def rowCount(self, parent: Index | None = None) -> int:
        if parent is None or not parent.isValid():
            return len(self.shown)
        return 0 if parent.internalId() or parent.column() else len(self.shown[parent.row()].parts)

    def columnCount(self, parent: Index | None = None) -> int:
        return len(COLUMNS)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        row, column = self._row(index), COLUMNS[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            if index.internalId() and index.column() == 0:
                return row.shapes or "shapes not recorded"
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


def grouped(rows: Sequence[OperatorRow]) -> list[Group]:
    """Rows of one operator in one place, layer and kind of moment together, in the order in which they first come."""
    found: dict[tuple[str | None, ...], list[OperatorRow]] = {}
    for row in rows:
        found.setdefault((row.name, row.place, row.layer, row.kind), []).append(row)
    return [Group(alike[0], ()) if len(alike) == 1 else Group(_whole(alike), tuple(alike)) for alike in found.values()]


def _whole(alike: Sequence[OperatorRow]) -> OperatorRow:
    """All calls of an operator together; what one shape does not know is not known of all."""

    def added(name: str) -> Any:
        values = [getattr(row, name) for row in alike]
        return None if None in values else sum(values)

    names = ("calls", "total_ns", "self_ns", "share", "flops", "bytes", "allocated_bytes")
    return replace(alike[0], shapes=f"{len(alike)} shapes", **{name: added(name) for name in names})


def _tip(row: OperatorRow) -> str:
    parts = [row.name, f"{units.percent(row.share)} of the moment by itself"]
    parts += [f"in {row.layer}"] if row.layer else []
    parts += [f"inputs {row.shapes}"] if row.shapes else []
    return "\n".join(parts)
