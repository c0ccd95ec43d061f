"""The list of a session's runs as a tree: runs of one group (an A/B test) hang together below a line with its verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, Qt, Signal
from PySide6.QtGui import QColor, QResizeEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTreeWidget,
    QTreeWidgetItem,
    QWidget,
)

from core.records.run import UNREADABLE
from gui.plain import plain_tip
from gui.theme import Palette
from gui.views.saved_runs import Head, Headline
from gui.views.sessions.session_columns import COLUMNS, MODEL, NAME, STARTED, STATUS, TITLES, words_of
from gui.views.stretching import NEAR, StretchingColumn

RUN_ROLE = Qt.ItemDataRole.UserRole

Key = tuple[int, str, str]
Groups = Mapping[str, str]
"""What is said of each group, by its id."""


class OnlySome(QStyledItemDelegate):
    """Lets only name and note of a run be edited in place; cuts no number in its middle, where it would read as another."""

    def initStyleOption(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> None:
        super().initStyleOption(option, index)
        if index.column() not in (NAME, MODEL):
            option.textElideMode = Qt.TextElideMode.ElideRight

    def createEditor(
        self, parent: QWidget, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> QWidget:
        allowed = COLUMNS[index.column()].editable
        return super().createEditor(parent, option, index) if allowed else None  # type: ignore[return-value]  # Qt takes none for "not editable"


class SessionTree(QTreeWidget):
    """Shows heads of runs in the order and with the search that the user chose; knows nothing of files."""

    order_changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.filling = False  # while the program itself writes into cells
        self.palette_in_use: Palette | None = None
        self._order = (STARTED, Qt.SortOrder.DescendingOrder)
        self.setObjectName("sessionTree")
        self.setAccessibleName("Runs of this session")
        self.setHeaderLabels(list(TITLES))
        self.setUniformRowHeights(True)
        self.setAlternatingRowColors(True)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.EditKeyPressed)
        self.setItemDelegate(OnlySome(self))
        header = self.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(40)
        for number, column in enumerate(COLUMNS):
            header.resizeSection(number, column.width)
            if column.number:
                self.headerItem().setTextAlignment(number, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # sides of an A/B test differ at the end of their names
        giving = {number: column.least for number, column in enumerate(COLUMNS) if column.least is not None}
        self._names = StretchingColumn(self, NAME, COLUMNS[NAME].width, NEAR, giving)
        header.setSectionsClickable(True)
        header.setSortIndicatorShown(True)
        header.setSortIndicator(*self._order)
        header.sectionClicked.connect(self._on_header)

    def show_heads(
        self,
        heads: Sequence[Head],
        known: Mapping[Key, Headline],
        words: str,
        groups: Groups,
        *,
        editable: bool,
    ) -> int:
        """List those of ``heads`` that have all ``words``; what was selected stays so. Returns how many there are."""
        chosen = {head.id for head in self.selected_heads()}
        wanted = words.casefold().split()
        found = [head for head in heads if all(word in words_of(head) for word in wanted)]
        self.filling = True
        self.clear()
        for members in self._in_order(found, known):
            self._add(members, known, groups, chosen, editable)
        self.setRootIsDecorated(any(self._is_group(item) for item in self._top()))
        self._names.fit()
        self.filling = False
        return len(found)

    def show_headline(self, key: Key, headline: Headline) -> None:
        """Fill in what a run was found to be."""
        self.filling = True
        for item in self.run_items():
            if key_of(item.data(NAME, RUN_ROLE)) == key:
                self._fill(item, item.data(NAME, RUN_ROLE), headline)
        self._names.fit()
        self.filling = False

    def show_group(self, group: str, text: str) -> None:
        """Say what came of a group."""
        self.filling = True
        for item in self._top():
            if item.data(NAME, RUN_ROLE) == group:
                _say(item, text)
        self.filling = False

    def run_items(self) -> Iterator[QTreeWidgetItem]:
        """The items of runs, from the top."""
        for item in self._top():
            if not self._is_group(item):
                yield item
            yield from _children(item)

    def heads(self) -> list[Head]:
        """The runs that are listed, from the top."""
        return [item.data(NAME, RUN_ROLE) for item in self.run_items()]

    def selected_heads(self) -> list[Head]:
        """The runs that are selected, those of a selected group included, from the top."""
        return [item.data(NAME, RUN_ROLE) for item in self.run_items() if item.isSelected() or _above_is_selected(item)]

    def selected_group(self) -> list[Head]:
        """The runs of the group that is selected, in the order of their roles; none where something else is selected too."""
        selected = self.selectedItems()
        if len(selected) != 1 or not self._is_group(selected[0]):
            return []
        return self.groups()[selected[0].data(NAME, RUN_ROLE)]

    def groups(self) -> dict[str, list[Head]]:
        """Runs by the id of their group, in the order of their roles; only groups that are listed as such."""
        found: dict[str, list[Head]] = {}
        for item in self._top():
            if self._is_group(item):
                members = [child.data(NAME, RUN_ROLE) for child in _children(item)]
                found[item.data(NAME, RUN_ROLE)] = sorted(members, key=lambda head: head.role)
        return found

    def _in_order(self, heads: Sequence[Head], known: Mapping[Key, Headline]) -> list[list[Head]]:
        """Runs, and groups as wholes, in the order chosen. A group stands where its first member would."""
        column, order = self._order
        key = COLUMNS[column].key
        value = {head.id: key(head, known.get(key_of(head))) for head in heads}
        there = [head for head in heads if value[head.id] is not None]
        there.sort(key=lambda head: (value[head.id], head.id), reverse=order == Qt.SortOrder.DescendingOrder)
        together: dict[Any, list[Head]] = {}
        for head in (*there, *(head for head in heads if value[head.id] is None)):
            together.setdefault(head.group.id if head.group is not None else head.id, []).append(head)
        return list(together.values())

    def _add(
        self, members: Sequence[Head], known: Mapping[Key, Headline], groups: Groups, chosen: set[int], editable: bool
    ) -> None:
        group = members[0].group
        above: QTreeWidget | QTreeWidgetItem = self
        if group is not None and len(members) > 1:
            above = QTreeWidgetItem(self)
            above.setData(NAME, RUN_ROLE, group.id)
            above.setFirstColumnSpanned(True)
            above.setExpanded(True)
            _say(above, groups.get(group.id) or _group_name(members))
        for head in members:
            item = QTreeWidgetItem(above)
            item.setData(NAME, RUN_ROLE, head)
            self._fill(item, head, known.get(key_of(head)))
            if editable:
                item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
            item.setSelected(head.id in chosen)

    def _fill(self, item: QTreeWidgetItem, head: Head, headline: Headline | None) -> None:
        for number, column in enumerate(COLUMNS):
            text = column.text(head, headline)
            item.setText(number, text)
            item.setToolTip(number, plain_tip(column.tip(head, headline) if column.tip is not None else text))
            if column.number:
                item.setTextAlignment(number, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            if column.whole:
                self._names.need(number, self.sizeHintForIndex(self.indexFromItem(item, number)).width())
        palette = self.palette_in_use
        if palette is not None and head.status in ("failed", "interrupted", "cancelled", UNREADABLE):
            item.setForeground(STATUS, QColor(palette.bad if head.status in ("failed", UNREADABLE) else palette.warn))

    def _on_header(self, section: int) -> None:
        column, order = self._order
        down, up = Qt.SortOrder.DescendingOrder, Qt.SortOrder.AscendingOrder
        if section == column:
            order = up if order == down else down
        else:
            order = down if COLUMNS[section].number or section == STARTED else up
        self._order = (section, order)
        self.header().setSortIndicator(section, order)
        self.order_changed.emit()

    def _top(self) -> list[QTreeWidgetItem]:
        items = (self.topLevelItem(row) for row in range(self.topLevelItemCount()))
        return [item for item in items if item is not None]

    @staticmethod
    def _is_group(item: QTreeWidgetItem) -> bool:
        return isinstance(item.data(NAME, RUN_ROLE), str)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        for number, column in enumerate(COLUMNS):
            self.setColumnHidden(number, self.width() < column.roomy)
        self._names.fit()


def _children(item: QTreeWidgetItem) -> list[QTreeWidgetItem]:
    found = (item.child(row) for row in range(item.childCount()))
    return [child for child in found if child is not None]


def _above_is_selected(item: QTreeWidgetItem) -> bool:
    above = item.parent()
    return above is not None and above.isSelected()


def key_of(head: Head) -> Key:
    """What tells one state of a run from another."""
    return head.id, head.created, head.status


def _group_name(members: Sequence[Head]) -> str:
    """What a group is called until it is known what came of it."""
    part = members[0].facts.trial
    return "Noise floor (A/A)" if part is not None and part.same else f"A/B test of {len(members)} sides"


def _say(item: QTreeWidgetItem, text: str) -> None:
    item.setText(NAME, text)
    item.setToolTip(NAME, plain_tip(text))
