"""The layer table as a tree for Qt: one row per module, with the times of the chosen kind of moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PySide6.QtCore import QAbstractItemModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from core import units
from gui.plain import plain_tip
from gui.views.layers.layer_columns import (
    BESIDE,
    COLUMNS,
    COUNTED,
    NOTHING,
    NUMBERS_FROM,
    SQNR,
    TITLES,
    LayerError,
    Times,
    name_of,
    sort_key,
    text_of,
)
from profilers.trace import Layer

Index = QModelIndex | QPersistentModelIndex
SORT_ROLE = Qt.ItemDataRole.UserRole
PATH_ROLE = Qt.ItemDataRole.UserRole + 1
BAR_ROLE = Qt.ItemDataRole.UserRole + 2  # (self share, total share, stage), both of the largest of the same depth
LISTS = ("ModuleList", "Sequential")


class LayerModel(QAbstractItemModel):
    """Structure and values are set apart: new values keep what the user expanded and selected."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.layers: tuple[Layer, ...] = ()
        self.times: list[Times] = []
        self.no_counts = ""  # why there are none
        self.no_rates = ""  # why there are no rates
        self.no_limit = ""  # why there is no share of the machine's limit
        self.errors: list[LayerError | None] = []  # by layer number
        self.no_sqnr = ""  # why there is none
        self.beside = ""  # the kind of moment that stands beside the chosen one
        self._children: list[list[int]] = [[]]  # by layer number + 1; 0 is the invisible root
        self._place: list[int] = []  # among its siblings
        self._depth: list[int] = []
        self._scales: dict[int, float] = {}  # the largest total share by depth

    def set_layers(self, layers: Sequence[Layer]) -> bool:
        """The model's modules; returns whether they are others than before."""
        layers = tuple(layers)
        if layers is self.layers or layers == self.layers:
            return False
        self.beginResetModel()
        self.layers = layers
        self._children = [[] for _ in range(len(layers) + 1)]
        self._place, self._depth = [], []
        for number, layer in enumerate(layers):
            siblings = self._children[layer.parent + 1]
            self._place.append(len(siblings))
            self._depth.append(self._depth[layer.parent] + 1 if layer.parent >= 0 else 0)
            siblings.append(number)
        self.times = [NOTHING] * len(layers)
        self.errors = [None] * len(layers)
        self.endResetModel()
        return True

    def set_times(self, rows: Iterable[Mapping[str, Any]], beside: Iterable[Mapping[str, Any]] = ()) -> None:
        """Values by path, as rows of the layer table; ``beside``: those of another kind of moment, for one more column."""
        by_path, others = {row["path"]: row for row in rows}, {row["path"]: row["total_ns"] for row in beside}
        moment_ns = next((row["self_ns"] / row["share"] for row in by_path.values() if row["share"]), None)
        times = [NOTHING] * len(self.layers)
        # Children have higher numbers than their parents, so from the end each sum is complete when it is needed.
        for number in range(len(self.layers) - 1, -1, -1):
            path = self.layers[number].path
            inside = [times[child] for child in self._children[number + 1]]
            beside_ns = others.get(path, _sum([one.beside_ns for one in inside]))
            row = by_path.get(path)
            if row is not None:
                times[number] = _times(row, moment_ns)._replace(beside_ns=beside_ns)
            else:
                total = _sum([one.total_ns for one in inside])
                share = total / moment_ns if total is not None and moment_ns else None
                times[number] = Times(None, total, None, None, share, summed=total is not None, beside_ns=beside_ns)
        self.times = times
        self._scales = self._largest_of_each_depth()
        # One signal for the top row, not one for each of hundreds of parents: the proxy would look at every row again
        # (60 ms for 400 layers). The view asks for values whenever it paints, and its owner has it painted.
        if self.layers:
            self.dataChanged.emit(self.index(0, 0), self.index(0, len(COLUMNS) - 1))

    def set_errors(self, sqnr_db: Mapping[str, float | None], why: str) -> None:
        """Layer errors by path (None: exact), and why others have none. What was not measured has the worst inside it."""
        self.no_sqnr = why
        errors: list[LayerError | None] = [None] * len(self.layers)
        for number in range(len(self.layers) - 1, -1, -1):
            path = self.layers[number].path
            if path in sqnr_db:
                errors[number] = LayerError(sqnr_db[path])
                continue
            inside = [found for child in self._children[number + 1] if (found := errors[child]) is not None]
            if inside:
                known = [found.sqnr_db for found in inside if found.sqnr_db is not None]
                errors[number] = LayerError(min(known) if known else None, inside=True)
        self.errors = errors

    @property
    def has_errors(self) -> bool:
        """Whether any layer error is known."""
        return any(error is not None for error in self.errors)

    def index_of(self, path: str) -> QModelIndex:
        """Where the layer of that path is; invalid if there is none."""
        number = next((row for row, layer in enumerate(self.layers) if layer.path == path), None)
        return QModelIndex() if number is None else self.createIndex(self._place[number], 0, number)

    def known(self, column: int) -> bool:
        """Whether any layer has a value in a column of numbers."""
        value = COLUMNS[column].value
        return self.has_errors if value is None else any(value(times) is not None for times in self.times)

    def _largest_of_each_depth(self) -> dict[int, float]:
        """Bars are told apart among layers of one depth: beside the whole model a block is a hair."""
        scales: dict[int, float] = {}
        for depth, times in zip(self._depth, self.times, strict=True):
            scales[depth] = max(scales.get(depth, 0.0), times.total_share or 0.0)
        return scales

    def _bar(self, number: int) -> tuple[float, float, str]:
        times, largest = self.times[number], self._scales.get(self._depth[number]) or 1.0
        return (times.share or 0.0) / largest, (times.total_share or 0.0) / largest, self.layers[number].stage

    def _text(self, number: int, column: int) -> str:
        if column >= NUMBERS_FROM:
            return text_of(column, self.times[number], self.errors[number])
        layer = self.layers[number]
        if column == 0 and self.times[number].layers > 1:
            return f"{name_of(layer)}  ×{self.times[number].layers}"
        return (name_of(layer), layer.type, layer.stage)[column]

    def _sort_key(self, number: int, column: int) -> Any:
        if column >= NUMBERS_FROM:
            return sort_key(column, self.times[number], self.errors[number])
        return number if column == 0 else self._text(number, column)

    def _tip(self, number: int, column: int) -> str:
        """What the row says in words; and of a number that is missing, why."""
        if column == SQNR:
            return self._error_tip(number)
        told = COLUMNS[column]
        missing = told.optional and told.value is not None and told.value(self.times[number]) is None
        if not missing:
            return self._row_tip(number)
        if told.title in COUNTED:
            # the model counts only what lies side by side, to keep the reading of counters cheap
            why = "counted for blocks, embedding, norm and head only" if self.known(column) else self.no_counts
            return f"Not measured: {why or 'none was counted in these moments'}"
        if column == BESIDE:
            return f"Not called in {self.beside.replace('_', ' ')} moments." if self.beside else "Not measured"
        why = self.no_rates or ("it multiplies with no weight" if self.times[number].bytes_per_s is None else self.no_limit)
        return f"Not known: {why}"

    def _error_tip(self, number: int) -> str:
        error = self.errors[number]
        if error is None:
            return f"Not measured: {self.no_sqnr}"
        inside = "\nThe lowest of the layers inside; it was not measured itself." if error.inside else ""
        return f"{self._row_tip(number)}{inside}\n{COLUMNS[SQNR].meaning}"

    def _row_tip(self, number: int) -> str:
        layer, times = self.layers[number], self.times[number]
        name = f"{layer.path} ({layer.type}, {layer.stage})" if layer.path else layer.type
        if times.layers > 1:
            name = f"{times.layers} layers {name}, added up"
        if times.summed:
            return f"{name}\nNot called itself; its total is that of the modules inside it."
        if times.total_ns is None:
            return f"{name}\nNot called in these moments."
        inside = f"{units.percent(times.total_share)} with everything inside it"
        return f"{name}\n{units.percent(times.share)} of the moment by itself, {inside}"

    # Qt overrides

    def index(self, row: int, column: int, parent: Index | None = None) -> QModelIndex:
        above = parent.internalId() + 1 if parent is not None and parent.isValid() else 0
        siblings = self._children[above]
        if not 0 <= row < len(siblings) or not 0 <= column < len(COLUMNS):
            return QModelIndex()
        return self.createIndex(row, column, siblings[row])

    def parent(self, child: Index | None = None) -> QModelIndex:  # type: ignore[override]  # Qt overloads it with QObject.parent
        if child is None or not child.isValid():
            return QModelIndex()
        above = self.layers[child.internalId()].parent
        return QModelIndex() if above < 0 else self.createIndex(self._place[above], 0, above)

    def rowCount(self, parent: Index | None = None) -> int:
        if parent is None or not parent.isValid():
            return len(self._children[0])
        return len(self._children[parent.internalId() + 1]) if parent.column() == 0 else 0

    def columnCount(self, parent: Index | None = None) -> int:
        return len(COLUMNS)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        number, column = index.internalId(), index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(number, column)
        if role == SORT_ROLE:
            return self._sort_key(number, column)
        if role == PATH_ROLE:
            return self.layers[number].path
        if role == BAR_ROLE:
            return self._bar(number)
        if role == Qt.ItemDataRole.TextAlignmentRole and column >= NUMBERS_FROM:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.ToolTipRole:
            return plain_tip(self._tip(number, column))
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            beside = self.beside.replace("_", " ").capitalize()
            return beside if section == BESIDE and beside else TITLES[section]
        if role == Qt.ItemDataRole.ToolTipRole:
            return plain_tip(COLUMNS[section].meaning)
        if role == Qt.ItemDataRole.InitialSortOrderRole and section >= NUMBERS_FROM:
            return Qt.SortOrder.DescendingOrder  # the first click asks for the longest, not for the shortest
        if role == Qt.ItemDataRole.TextAlignmentRole and section >= NUMBERS_FROM:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None


def _times(row: Mapping[str, Any], moment_ns: float | None) -> Times:
    total = row["total_ns"]
    return Times(
        row["calls"],
        total,
        row["self_ns"],
        row["share"],
        total / moment_ns if moment_ns else None,
        counts={name: row.get(name) for name in COUNTED.values()},
        bytes_per_s=row.get("bytes_per_s"),
        operations_per_s=row.get("operations_per_s"),
        limit_share=row.get("limit_share"),
        layers=row.get("layers", 1),
    )


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
