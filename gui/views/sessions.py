"""The sessions view: the runs of the open session, to open, compare, name, annotate and delete."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, Qt, Signal
from PySide6.QtGui import QColor, QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from core import units
from core.errors import Refusal
from core.session.run import Run
from gui.plain import Label, ask, plain_tip
from gui.theme import Palette
from gui.view_state import ViewState
from gui.views.background import InBackground, at_once
from gui.views.hinted import HintedCard
from gui.views.saved_runs import Head, Headline, Store, headline, started

COLUMNS = ("Run", "Started", "Model", "Passes", "TTFT", "TPOT", "Status", "Note")
NAME, STARTED, MODEL, PASSES, TTFT, TPOT, STATUS, NOTE = range(len(COLUMNS))
WIDTHS = (0, 100, 150, 110, 68, 68, 80, 0)
EDITABLE = (NAME, NOTE)
RUN_ROLE = Qt.ItemDataRole.UserRole
NO_STORE = "No session is open. It begins with the first run, and every run is saved into it as it happens."
NO_RUNS = "This session has no runs yet. Press Run, and each run is saved here as it happens."


class NameDelegate(QStyledItemDelegate):
    """Lets only name and note be edited in place."""

    def createEditor(
        self, parent: QWidget, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> QWidget:
        return super().createEditor(parent, option, index) if index.column() in EDITABLE else None  # type: ignore[return-value]  # Qt takes none for "not editable"


class SessionsView(QWidget):
    """Newest run first. Reading whole runs happens beside the GUI thread where ``in_background`` is given."""

    opened = Signal(object)  # the Run that was opened
    compared = Signal(object)  # tuple of two Runs
    setup_asked = Signal(object)  # the Run whose setup is wanted in the sidebar

    def __init__(self, state: ViewState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.state = state
        self.setObjectName("sessionsView")
        self.store: Store | None = None
        self.ask: Callable[[QWidget, str, str], bool] = ask
        self.notify: Callable[[str], None] | None = None  # told one sentence when something could not be done
        self.in_background: InBackground = at_once
        self.running = False  # while a run is going, no other run is read just for its headline
        self._headlines: dict[tuple[int, str, str], Headline] = {}
        self._reading: tuple[int, str, str] | None = None
        self._palette: Palette | None = None
        self._filling = False
        self._build_tree()
        self._build_buttons()
        card = HintedCard(self.tree, NO_STORE, self)
        self.hint, self._stack = card.hint, card.stack
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 12, 12, 12)
        layout.setSpacing(10)
        layout.addLayout(self._buttons)
        layout.addWidget(card, 1)
        self._on_selection()

    def set_store(self, store: Store | None) -> None:
        """List the runs of another session, or the same one again after it changed."""
        if store is not self.store:
            self._headlines.clear()
        self.store = store
        self.refresh()

    def refresh(self) -> None:
        """List the runs again; selection stays."""
        try:
            heads = [] if self.store is None else list(self.store.runs())
        except Refusal as refusal:
            self._tell(str(refusal))
            return
        chosen = set(self.selected_ids())
        self._filling = True
        self.tree.clear()
        for head in reversed(heads):
            item = self._item(head)
            self.tree.addTopLevelItem(item)
            item.setSelected(head.id in chosen)
        self._filling = False
        self.hint.setText(NO_STORE if self.store is None else NO_RUNS)
        self._stack.setCurrentIndex(1 if heads else 0)
        self.count.setText("" if not heads else f"{len(heads)} run{'s' if len(heads) > 1 else ''}")
        self._on_selection()
        self._read_next_headline()

    def selected_ids(self) -> list[int]:
        """Ids of the selected runs, from the top."""
        return [item.data(NAME, RUN_ROLE).id for item in self._items() if item.isSelected()]

    def show_run(self, run: Run | None) -> None:
        """The list changes with the session, not with each moment."""
        self.running = run is not None and run.facts.status == "running"

    def show_slow(self, run: Run | None, _summary: Any) -> None:
        """As ``show_run``; runs whose headline is not known are read once nothing runs."""
        self.show_run(run)
        self._read_next_headline()

    def set_palette(self, palette: Palette) -> None:
        """Repaint in other colours."""
        self._palette = palette
        self.refresh()

    def open_selected(self) -> None:
        """Show the (first) selected run in every view."""

        def show(runs: list[Run]) -> None:
            self.state.open_run(runs[0])
            self.opened.emit(runs[0])

        chosen = self.selected_ids()
        if chosen:
            self._read(chosen[:1], show)

    def compare_selected(self) -> None:
        """Lay the two selected runs side by side, the older one first."""

        def show(runs: list[Run]) -> None:
            self.state.compare((runs[0], runs[1]))
            self.compared.emit((runs[0], runs[1]))

        chosen = sorted(self.selected_ids())
        if len(chosen) == 2:
            self._read(chosen, show)

    def use_selected(self) -> None:
        """Fill the sidebar with the selected run's setup."""
        chosen = self.selected_ids()
        if chosen:
            self._read(chosen[:1], lambda runs: self.setup_asked.emit(runs[0]))

    def rename_selected(self) -> None:
        """Edit the name in its place."""
        self._edit(NAME)

    def annotate_selected(self) -> None:
        """Edit the note in its place."""
        self._edit(NOTE)

    def delete_selected(self) -> None:
        """Delete the selected runs after asking once."""
        store, heads = self.store, self._selected_heads()
        if store is None or not heads or not self.delete_button.isEnabled():
            return
        what = f"the run “{heads[0].name}”" if len(heads) == 1 else f"{len(heads)} runs"
        if not self.ask(self, "Delete", f"Delete {what} from this session? This cannot be undone."):
            return
        for head in heads:
            self._try(partial(store.delete, head.id))
        self.refresh()

    def _build_tree(self) -> None:
        self.tree = QTreeWidget(self)
        self.tree.setObjectName("sessionTree")
        self.tree.setAccessibleName("Runs of this session")
        self.tree.setHeaderLabels(list(COLUMNS))
        self.tree.setRootIsDecorated(False)
        self.tree.setUniformRowHeights(True)
        self.tree.setAlternatingRowColors(True)
        self.tree.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.tree.setEditTriggers(QAbstractItemView.EditTrigger.EditKeyPressed)
        self.tree.setItemDelegate(NameDelegate(self.tree))
        header = self.tree.header()
        header.setStretchLastSection(False)
        for column, width in enumerate(WIDTHS):
            if width:
                header.resizeSection(column, width)
            else:
                header.setSectionResizeMode(column, QHeaderView.ResizeMode.Stretch)
        for column in (TTFT, TPOT):
            self.tree.headerItem().setTextAlignment(column, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.tree.itemSelectionChanged.connect(self._on_selection)
        self.tree.itemDoubleClicked.connect(lambda *_: self.open_selected())
        self.tree.itemChanged.connect(self._on_edited)
        for key, call in ((Qt.Key.Key_Delete, self.delete_selected), (Qt.Key.Key_Return, self.open_selected)):
            shortcut = QShortcut(QKeySequence(key), self.tree)
            shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
            shortcut.activated.connect(call)

    def _build_buttons(self) -> None:
        self._buttons = QHBoxLayout()
        self._buttons.setSpacing(8)
        self.open_button = self._button("Open", self.open_selected)
        self.compare_button = self._button("Compare", self.compare_selected)
        self.compare_button.setObjectName("compareButton")
        self.setup_button = self._button("Use setup", self.use_selected)
        self.rename_button = self._button("Rename", self.rename_selected)
        self.note_button = self._button("Note", self.annotate_selected)
        self.delete_button = self._button("Delete", self.delete_selected)
        self.count = Label(self)
        self.count.setProperty("role", "muted")
        self._buttons.addStretch(1)
        self._buttons.addWidget(self.count)

    def _button(self, text: str, call: Callable[[], None]) -> QPushButton:
        button = QPushButton(text, self)
        button.clicked.connect(lambda: call())
        self._buttons.addWidget(button)
        return button

    def _item(self, head: Head) -> QTreeWidgetItem:
        item = QTreeWidgetItem()
        item.setData(NAME, RUN_ROLE, head)
        model = head.facts.model.name if head.facts.model is not None else head.config.model.spec
        passes = ", ".join(choice.id for choice in head.config.passes) or "none"
        texts = (head.name or f"run {head.id}", started(head.created), model, passes, "", "", head.status, head.note)
        for column, text in enumerate(texts):
            item.setText(column, text)
            item.setToolTip(column, plain_tip(text))
        item.setToolTip(STARTED, plain_tip(head.created))
        if head.facts.error:
            item.setToolTip(STATUS, plain_tip(head.facts.error))
        for column in (TTFT, TPOT):
            item.setTextAlignment(column, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        palette = self._palette
        if palette is not None and head.status in ("failed", "interrupted", "cancelled"):
            item.setForeground(STATUS, QColor(palette.bad if head.status == "failed" else palette.warn))
        if self.store is not None and not self.store.read_only:
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
        self._show_headline(item, head)
        return item

    def _show_headline(self, item: QTreeWidgetItem, head: Head) -> None:
        found = self._headlines.get(_key(head))
        for column, value in zip((TTFT, TPOT), found or (None, None), strict=True):
            item.setText(column, units.duration(value) if found else "…")
            known = "median of clean moments" if value is not None else "no clean moment of that kind"
            item.setToolTip(column, plain_tip(known if found else "not read yet"))

    def _read_next_headline(self) -> None:
        """One run at a time, newest first, and only while nothing is being measured."""
        store = self.store
        if store is None or self.running or self._reading is not None:
            return
        heads = (item.data(NAME, RUN_ROLE) for item in self._items())
        head = next((head for head in heads if _key(head) not in self._headlines and head.status != "running"), None)
        if head is None:
            return
        key = self._reading = _key(head)

        def done(future: Future[Any]) -> None:
            self._reading = None
            if self.store is not store:
                self._read_next_headline()
                return
            self._headlines[key] = Headline(None, None) if future.exception() is not None else future.result()
            self._filling = True
            for item in self._items():
                if _key(item.data(NAME, RUN_ROLE)) == key:
                    self._show_headline(item, item.data(NAME, RUN_ROLE))
            self._filling = False
            self._read_next_headline()

        self.in_background(lambda: headline(store.read(head.id)), done)

    def _items(self) -> list[QTreeWidgetItem]:
        items = (self.tree.topLevelItem(row) for row in range(self.tree.topLevelItemCount()))
        return [item for item in items if item is not None]

    def _selected_heads(self) -> list[Any]:
        return [item.data(NAME, RUN_ROLE) for item in self.tree.selectedItems()]

    def _on_selection(self) -> None:
        heads = self._selected_heads()
        writable = self.store is not None and not self.store.read_only
        going = any(head.status == "running" for head in heads)
        _allow(self.open_button, "" if len(heads) == 1 else "Select one run to show it in every view.")
        _allow(self.compare_button, "" if len(heads) == 2 else "Select two runs (Ctrl+click) to lay them side by side.")
        closed = "" if writable else "This session is read-only."
        one = closed or ("" if len(heads) == 1 else "Select one run.")
        _allow(self.setup_button, "" if len(heads) == 1 else "Select one run to set the sidebar up as it was.")
        _allow(self.rename_button, one)
        _allow(self.note_button, one)
        _allow(self.delete_button, closed or ("" if heads else "Select a run.") or ("Cancel the run first." if going else ""))

    def _on_edited(self, item: QTreeWidgetItem, column: int) -> None:
        store = self.store
        if self._filling or store is None or column not in EDITABLE:
            return
        head, text = item.data(NAME, RUN_ROLE), item.text(column).strip()
        if column == NAME and text and text != head.name:
            self._try(lambda: store.rename(head.id, text))
        elif column == NOTE and text != head.note:
            self._try(lambda: store.annotate(head.id, text))
        self.refresh()

    def _edit(self, column: int) -> None:
        items = self.tree.selectedItems()
        if len(items) == 1:
            self.tree.setCurrentItem(items[0], column)
            self.tree.editItem(items[0], column)

    def _read(self, run_ids: list[int], then: Callable[[list[Run]], Any]) -> None:
        store = self.store
        if store is None:
            return

        def done(future: Future[Any]) -> None:
            error = future.exception()
            if error is None:
                then(future.result())
            else:
                self._tell(str(error) if isinstance(error, Refusal) else f"The run could not be read: {error}")

        self.in_background(lambda: [store.read(run_id) for run_id in run_ids], done)

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Refusal as refusal:
            self._tell(str(refusal))

    def _tell(self, sentence: str) -> None:
        if self.notify is not None:
            self.notify(sentence)


def _key(head: Head) -> tuple[int, str, str]:
    return head.id, head.created, head.status


def _allow(button: QPushButton, reason: str) -> None:
    button.setEnabled(not reason)
    button.setToolTip(plain_tip(reason))
    button.setAccessibleDescription(reason)
