"""The layer table as a tree for Qt: one row per module, with the times of the chosen kind of moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from PySide6.QtCore import QAbstractItemModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from core import units
from profilers.trace import Layer

Index = QModelIndex | QPersistentModelIndex
SORT_ROLE = Qt.ItemDataRole.UserRole
PATH_ROLE = Qt.ItemDataRole.UserRole + 1
BAR_ROLE = Qt.ItemDataRole.UserRole + 2  # (self share, total share, stage), both of the largest block
LISTS = ("ModuleList", "Sequential")
COLUMNS = (
    *("Layer", "Type", "Stage", "Calls", "Total", "Self", "Share", "Cycles", "Instr.", "IPC", "Cache misses", "CPU time"),
    "SQNR dB",
)
SQNR = COLUMNS.index("SQNR dB")
EXACT_DB = 1e6
"""Where layers that are equal bit for bit stand among the others: behind all, before those that were not measured."""

SHARE = COLUMNS.index("Share")
COUNTED = {"Cycles": "cycles", "Instr.": "instructions", "IPC": "ipc", "Cache misses": "cache_misses", "CPU time": "cpu_ns"}
"""Columns of the processor's counters, with their names in the layer table. Only blocks and their like are counted."""
MEANINGS = (
    "Module by its place in the model",
    "Class of the module",
    "What the module does in the model",
    "Calls in one moment",
    "Time in a median moment with everything inside it, scaled to clean moments",
    "Time of the module itself, without the modules inside it, scaled to clean moments",
    "Self time over the moment's time. Bar, to the scale of the largest block: solid by itself, pale with everything inside",
    "Clock cycles of the processor in a median traced moment, over all threads, with everything inside",
    "Instructions in a median traced moment, over all threads, with everything inside",
    "Instructions per cycle: below 1 the processor mostly waits, for memory as a rule",
    "Misses of the last cache in a median traced moment, with everything inside",
    "Time on a processor, added up over all threads: with two busy threads twice the total",
    "Layer error: power of the unoptimized layer's output over that of its difference, in decibels; the lower, the further the "
    "passes moved it. exact: equal bit for bit",
)
NUMBERS_FROM = 3


class Times(NamedTuple):
    """One layer's numbers; ``summed``: the layer itself is never called, its total is that of what is inside."""

    calls: float | None
    total_ns: float | None
    self_ns: float | None
    share: float | None
    total_share: float | None
    summed: bool = False
    counts: Mapping[str, float | None] = MappingProxyType({})  # by name of ``COUNTED``


class LayerError(NamedTuple):
    """Signal-to-noise ratio of a layer's output in dB (None: exact); ``inside``: the lowest of the layers inside it."""

    sqnr_db: float | None
    inside: bool = False


NOTHING = Times(None, None, None, None, None)


class LayerModel(QAbstractItemModel):
    """Structure and values are set apart: new values keep what the user expanded and selected."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.layers: tuple[Layer, ...] = ()
        self.times: list[Times] = []
        self.no_counts = ""  # why there are none
        self.errors: list[LayerError | None] = []  # by layer number
        self.no_sqnr = ""  # why there is none
        self._children: list[list[int]] = [[]]  # by layer number + 1; 0 is the invisible root
        self._place: list[int] = []  # among its siblings
        self._bar_scale = 1.0

    def set_layers(self, layers: Sequence[Layer]) -> bool:
        """The model's modules; returns whether they are others than before."""
        layers = tuple(layers)
        if layers is self.layers or layers == self.layers:
            return False
        self.beginResetModel()
        self.layers = layers
        self._children = [[] for _ in range(len(layers) + 1)]
        self._place = []
        for number, layer in enumerate(layers):
            siblings = self._children[layer.parent + 1]
            self._place.append(len(siblings))
            siblings.append(number)
        self.times = [NOTHING] * len(layers)
        self.errors = [None] * len(layers)
        self.endResetModel()
        return True

    def set_times(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Values by path: ``calls``, ``total_ns``, ``self_ns`` and ``share`` of each row."""
        by_path = {row["path"]: row for row in rows}
        moment_ns = next((row["self_ns"] / row["share"] for row in by_path.values() if row["share"]), None)
        times = [NOTHING] * len(self.layers)
        # Children have higher numbers than their parents, so from the end each sum is complete when it is needed.
        for number in range(len(self.layers) - 1, -1, -1):
            row = by_path.get(self.layers[number].path)
            inside = [times[child].total_ns for child in self._children[number + 1]]
            known = [value for value in inside if value is not None]
            if row is not None:
                total = row["total_ns"]
                counts = {name: row.get(name) for name in COUNTED.values()}
                share = total / moment_ns if moment_ns else None
                times[number] = Times(row["calls"], total, row["self_ns"], row["share"], share, counts=counts)
            elif known:
                total = sum(known)
                times[number] = Times(None, total, None, None, total / moment_ns if moment_ns else None, summed=True)
        self.times = times
        self._bar_scale = self._largest_piece()
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

    def counted(self, column: int) -> bool:
        """Whether any layer has a value in a column of the counters."""
        name = COUNTED[COLUMNS[column]]
        return any(times.counts.get(name) is not None for times in self.times)

    def _largest_piece(self) -> float:
        """The largest share of a module that is not on the way to the blocks: bars to its scale can be told apart."""
        on_the_way: set[int] = set()
        for number, layer in enumerate(self.layers):
            if layer.type in LISTS:
                above = number
                while above >= 0 and above not in on_the_way:
                    on_the_way.add(above)
                    above = self.layers[above].parent
        shares = (times.total_share or 0.0 for number, times in enumerate(self.times) if number not in on_the_way)
        return max(shares, default=0.0) or 1.0

    def _text(self, number: int, column: int) -> str:
        layer, times = self.layers[number], self.times[number]
        if column == 0:
            above, _, name = layer.path.rpartition(".")
            # "layers.12" says more than a bare 12.
            return f"{above.rpartition('.')[2]}.{name}" if name.isdigit() and above else name or layer.type
        if column == 3:
            return units.DASH if times.calls is None else f"{times.calls:.3g}" if times.calls % 1 else f"{times.calls:.0f}"
        if column == SQNR:
            return error_text(self.errors[number])
        if COLUMNS[column] in COUNTED:
            return _count_text(COLUMNS[column], times.counts.get(COUNTED[COLUMNS[column]]))
        shown = (layer.type, layer.stage, "", units.duration(times.total_ns), units.duration(times.self_ns))
        return units.percent(times.share) if column == SHARE else shown[column - 1]

    def _sort_key(self, number: int, column: int) -> Any:
        times = self.times[number]
        if column == SQNR:
            error = self.errors[number]
            return 2 * EXACT_DB if error is None else EXACT_DB if error.sqnr_db is None else error.sqnr_db
        if COLUMNS[column] in COUNTED:
            value = times.counts.get(COUNTED[COLUMNS[column]])
            return -1.0 if value is None else float(value)
        if column >= NUMBERS_FROM:
            value = (times.calls, times.total_ns, times.self_ns, times.share)[column - NUMBERS_FROM]
            return -1.0 if value is None else float(value)
        return number if column == 0 else self._text(number, column)

    def _count_tip(self, number: int, column: int) -> str:
        """Why a count is missing: the model counts only what lies side by side, to keep the reading of counters cheap."""
        if column == SQNR:
            error = self.errors[number]
            if error is None:
                return f"Not measured: {self.no_sqnr}"
            inside = "\nThe lowest of the layers inside; it was not measured itself." if error.inside else ""
            return f"{self._tip(number)}{inside}\n{MEANINGS[SQNR]}"
        if self.times[number].counts.get(COUNTED[COLUMNS[column]]) is not None:
            return self._tip(number)
        why = "counted for blocks, embedding, norm and head only" if self.counted(column) else self.no_counts
        return f"Not measured: {why or 'none was counted in these moments'}"

    def _tip(self, number: int) -> str:
        layer, times = self.layers[number], self.times[number]
        name = f"{layer.path} ({layer.type}, {layer.stage})" if layer.path else layer.type
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
            times = self.times[number]
            return (
                (times.share or 0.0) / self._bar_scale,
                (times.total_share or 0.0) / self._bar_scale,
                self.layers[number].stage,
            )
        if role == Qt.ItemDataRole.TextAlignmentRole and column >= NUMBERS_FROM:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._count_tip(number, column) if COLUMNS[column] in COUNTED or column == SQNR else self._tip(number)
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return COLUMNS[section]
        if role == Qt.ItemDataRole.ToolTipRole:
            return MEANINGS[section]
        if role == Qt.ItemDataRole.TextAlignmentRole and section >= NUMBERS_FROM:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None


def error_text(error: LayerError | None) -> str:
    """``31.4``, ``min 11.8`` of what is inside, ``exact``, or a dash where it was not measured."""
    if error is None:
        return units.DASH
    if error.sqnr_db is None:
        return "exact"
    return f"{'min ' if error.inside else ''}{error.sqnr_db:.1f}"


def _count_text(column: str, value: float | None) -> str:
    if value is None:
        return units.DASH
    if column == "CPU time":
        return units.duration(value)
    return f"{value:.2f}" if column == "IPC" else units.count(value)
