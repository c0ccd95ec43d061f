"""The sessions view: the runs of the open session, to find, open, compare, name, annotate, delete and bring back."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QPushButton, QSizePolicy, QTreeWidgetItem, QVBoxLayout, QWidget

from core.error_text import first_line, said
from core.errors import Refusal
from core.execution.ab_test_state import reopened
from core.records.run import Run
from gui.background import Answers, InBackground
from gui.plain import Label, ask, plain_tip
from gui.theme import Palette
from gui.views.ab_test_text import verdict_of
from gui.views.base import ShowABTest, ShowPair, ShowRun, View, ViewContext
from gui.views.hinted import HintedCard
from gui.views.saved_runs import Head, Headline, Store, headline
from gui.views.sessions.session_columns import COLUMNS, NAME, NOTE
from gui.views.sessions.session_tree import RUN_ROLE, SessionTree, key_of

NO_STORE = "No session is open. It begins with the first run, and every run is saved into it as it happens."
NO_RUNS = "This session has no runs yet. Press Run, and each run is saved here as it happens."
NOT_ALL_SIDES = "Not all sides of this A/B test are in the session any more; open one of them, or undo the Delete."
NOT_FOUND = "No run has all these words in its name, model, passes, status or note."


class SessionsView(View):
    """Newest run first. Whole runs are read beside the GUI thread."""

    follows_run = False

    def __init__(self, context: ViewContext, parent: QWidget | None = None) -> None:
        super().__init__(context, parent)
        self.setObjectName("sessionsView")
        self.store: Store | None = None
        self.ask: Callable[[QWidget, str, str], bool] = ask
        self._looks, self._chosen, self._doomed = (Answers(context.background) for _ in range(3))
        self.running = False  # while a run is going, no other run is read just for its headline
        self._headlines: dict[tuple[int, str, str], Headline] = {}
        self._verdicts: dict[str, str] = {}  # by group
        self._reading: object = None  # what is being read: a run's key or a group's id
        self._deleted: list[tuple[Run, Any]] = []  # by the last Delete, for Undo, with what the file said of each
        self._build_tree()
        self._build_buttons()
        card = HintedCard(self.tree, NO_STORE, self)
        self.hint, self._stack = card.hint, card.stack
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 12, 12, 12)
        layout.setSpacing(10)
        layout.addLayout(self._buttons)
        layout.addWidget(self.undo_row)
        layout.addWidget(card, 1)
        self._on_selection()

    def set_store(self, store: Store | None) -> None:
        """List the runs of another session, or the same one again after it changed."""
        if store is not self.store:
            self._headlines.clear()
            self._verdicts.clear()
            self._forget_deleted()
            self._reading = None
            for answers in (self._looks, self._chosen, self._doomed):
                answers.drop()  # the same number is another run in another session
        self.store = store
        self.refresh()

    def refresh(self) -> None:
        """List the runs again; selection, order and search stay."""
        try:
            heads = [] if self.store is None else list(self.store.runs())
        except Refusal as refusal:
            self.context.say(str(refusal))
            return
        editable = self.store is not None and not self.store.read_only
        words = self.search.text()
        found = self.tree.show_heads(heads, self._headlines, words, self._verdicts, editable=editable)
        self.hint.setText(NO_STORE if self.store is None else NOT_FOUND if heads else NO_RUNS)
        self._stack.setCurrentIndex(1 if found else 0)
        runs = f"{len(heads)} run{'' if len(heads) == 1 else 's'}"
        self.search.setPlaceholderText(f"Search {runs}")
        self.count.setText(f"{found} of {runs}" if found < len(heads) else "")
        self._on_selection()
        self._read_next()

    def selected_ids(self) -> list[int]:
        """Ids of the selected runs, from the top."""
        return [head.id for head in self.tree.selected_heads()]

    def show_run(self, run: Run | None) -> None:
        """The list changes with the session, not with each moment."""
        self.running = run is not None and run.facts.status == "running"

    def show_slow(self, run: Run | None, _summary: Any) -> None:
        """As ``show_run``; runs whose headline is not known are read once nothing runs."""
        self.show_run(run)
        self._read_next()

    def set_palette(self, palette: Palette) -> None:
        """Repaint in other colours."""
        self.tree.palette_in_use = palette
        self.refresh()

    def open_selected(self) -> None:
        """Show the (first) selected run in every view, or what came of the selected group where that was an A/B test."""
        group = self.tree.selected_group()
        if group:
            self._show([head.id for head in group], self._open_group)
            return

        def show(runs: list[Run]) -> None:
            self.state.open_run(runs[0])
            self.context.actions.ask(ShowRun(runs[0]))

        chosen = self.selected_ids()
        if chosen:
            self._show(chosen[:1], show)

    def _open_group(self, runs: list[Run]) -> None:
        state = reopened(runs)
        if state is None:
            self.context.say(NOT_ALL_SIDES)
        else:
            self.context.actions.ask(ShowABTest(state))

    def compare_selected(self) -> None:
        """Lay the two selected runs side by side, the older one first."""

        def show(runs: list[Run]) -> None:
            self.context.actions.ask(ShowPair((runs[0], runs[1])))

        chosen = sorted(self.selected_ids())
        if len(chosen) == 2:
            self._show(chosen, show)

    def use_selected(self) -> None:
        """Fill the sidebar with the selected run's setup."""
        chosen = self.selected_ids()
        if chosen:
            self._show(chosen[:1], lambda runs: self.context.actions.use_setup(runs[0]))

    def rename_selected(self) -> None:
        """Edit the name in its place."""
        self._edit(NAME)

    def annotate_selected(self) -> None:
        """Edit the note in its place."""
        self._edit(NOTE)

    def delete_selected(self) -> None:
        """Delete the selected runs; they can be brought back until the session is closed or others are deleted."""
        chosen = self.selected_ids()
        if self.store is None or not chosen or not self.delete_button.isEnabled():
            return
        # Beside other deletions: each of two was meant.
        self._read(self._doomed.add, chosen, self._delete, lambda why: self._delete_for_good(chosen, why))

    def undo_delete(self) -> None:
        """Bring the runs of the last Delete back."""
        store, back = self.store, self._deleted
        if store is None or not back:
            return
        self._forget_deleted()
        for run, head in back:
            self._try(partial(store.restore, run, head))
        self.refresh()

    def _delete(self, runs: list[Run]) -> None:
        store = self.store
        if store is None:
            return
        gone: list[tuple[Run, Any]] = []
        for run in runs:
            self._try(lambda run=run: gone.append((run, store.delete(run.id))))  # type: ignore[misc]
        if gone:
            self._deleted = gone
            first = gone[0][0]
            what = f"“{first.name or f'run {first.id}'}”" if len(gone) == 1 else f"{len(gone)} runs"
            self.undo_text.setText(f"Deleted {what}.")
            self.undo_row.show()
        self.refresh()

    def _delete_for_good(self, run_ids: list[int], why: str) -> None:
        """A run that cannot be read cannot be brought back, so its owner is asked."""
        store = self.store
        what = "this run" if len(run_ids) == 1 else f"these {len(run_ids)} runs"
        question = f"{why}\n\nDelete {what} all the same? This cannot be undone."
        if store is not None and self.ask(self, "Delete", question):
            for run_id in run_ids:
                self._try(partial(store.delete, run_id))
            self.refresh()

    def _forget_deleted(self) -> None:
        self._deleted = []
        self.undo_row.hide()

    def _build_tree(self) -> None:
        self.tree = SessionTree(self)
        self.tree.itemSelectionChanged.connect(self._on_selection)
        self.tree.itemDoubleClicked.connect(lambda *_: self.open_selected())
        self.tree.itemChanged.connect(self._on_edited)
        self.tree.order_changed.connect(self.refresh)
        for key, call in (
            (QKeySequence(Qt.Key.Key_Delete), self.delete_selected),
            (QKeySequence(Qt.Key.Key_Return), self.open_selected),
            (QKeySequence(QKeySequence.StandardKey.Undo), self.undo_delete),
        ):
            shortcut = QShortcut(key, self.tree)
            shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
            shortcut.activated.connect(call)

    def _build_buttons(self) -> None:
        self.search = QLineEdit(self)
        self.search.setObjectName("sessionSearch")
        self.search.setAccessibleName("Search runs")
        self.search.setToolTip("Words of a run's name, model, passes, status or note")
        self.search.setClearButtonEnabled(True)
        self.search.setMinimumWidth(110)
        self.search.setMaximumWidth(240)
        self.search.textChanged.connect(lambda _text: self.refresh())
        self._buttons = QHBoxLayout()
        self._buttons.setSpacing(8)
        self.open_button = self._button("Open", self.open_selected)
        self.compare_button = self._button("Compare", self.compare_selected)
        self.compare_button.setObjectName("compareButton")
        self.setup_button = self._button("Use setup", self.use_selected)
        self.rename_button = self._button("Rename", self.rename_selected)
        self.note_button = self._button("Note", self.annotate_selected)
        self.delete_button = self._button("Delete", self.delete_selected)
        self.count = Label("", self)
        self.count.setProperty("role", "muted")
        self._buttons.addStretch(1)
        self._buttons.addWidget(self.search)
        self._buttons.addWidget(self.count)
        self.undo_row = QWidget(self)
        self.undo_text = Label("", self.undo_row)
        undo = QPushButton("Undo", self.undo_row)
        undo.setObjectName("undoDelete")
        undo.clicked.connect(lambda: self.undo_delete())
        row = QHBoxLayout(self.undo_row)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.undo_text)
        row.addWidget(undo)
        row.addStretch(1)
        self.undo_row.hide()

    def _button(self, text: str, call: Callable[[], None]) -> QPushButton:
        button = QPushButton(text, self)
        button.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        button.clicked.connect(lambda: call())
        self._buttons.addWidget(button)
        return button

    def _read_next(self) -> None:
        """One run at a time, from the top, then what came of A/B tests; and only while nothing is being measured."""
        store = self.store
        if store is None or self.running or self._reading is not None:
            return
        waiting = (head for head in self.tree.heads() if key_of(head) not in self._headlines and head.status != "running")
        head = next(waiting, None)
        if head is not None:
            self._look(key_of(head), lambda: headline(store.read(head.id)), self._on_headline)
            return
        for group, members in self.tree.groups().items():
            if group not in self._verdicts and all(one.status != "running" for one in members):
                self._look(group, partial(_judged, store, [one.id for one in members]), self._on_verdict)
                return

    def _look(self, what: Any, work: Callable[[], Any], then: Callable[[Any, Future[Any]], None]) -> None:
        self._reading = what

        def done(future: Future[Any]) -> None:
            self._reading = None
            then(what, future)
            self._read_next()

        self._looks.ask(work, done)

    def _on_headline(self, key: tuple[int, str, str], future: Future[Any]) -> None:
        found = Headline({}) if future.exception() is not None else future.result()
        self._headlines[key] = found
        self.tree.show_headline(key, found)

    def _on_verdict(self, group: str, future: Future[Any]) -> None:
        error = future.exception()
        self._verdicts[group] = f"A/B test: {first_line(error)}" if error is not None else future.result()
        self.tree.show_group(group, self._verdicts[group])

    def _on_selection(self) -> None:
        heads: list[Head] = self.tree.selected_heads()
        writable = self.store is not None and not self.store.read_only
        going = any(head.status == "running" for head in heads)
        single = len(heads) == 1 or self.tree.selected_group()
        open_what = "Select one run to show it in every view, or one A/B test to see what came of it."
        _allow(self.open_button, "" if single else open_what)
        _allow(self.compare_button, "" if len(heads) == 2 else "Select two runs (Ctrl+click) to lay them side by side.")
        closed = "" if writable else "This session is read-only."
        one = closed or ("" if len(heads) == 1 else "Select one run.")
        _allow(self.setup_button, "" if len(heads) == 1 else "Select one run to set the sidebar up as it was.")
        _allow(self.rename_button, one)
        _allow(self.note_button, one)
        _allow(self.delete_button, closed or ("" if heads else "Select a run.") or ("Cancel the run first." if going else ""))

    def _on_edited(self, item: QTreeWidgetItem, column: int) -> None:
        store = self.store
        if self.tree.filling or store is None or not COLUMNS[column].editable:
            return
        head, text = item.data(NAME, RUN_ROLE), item.text(column).strip()
        if column == NAME and text and text != head.name:
            self._try(lambda: store.rename(head.id, text))
        elif column == NOTE and text != head.note:
            self._try(lambda: store.annotate(head.id, text))
        self.refresh()

    def _edit(self, column: int) -> None:
        items = [item for item in self.tree.run_items() if item.isSelected()]
        if len(items) != 1:
            return
        number = items[0].data(NAME, RUN_ROLE).id
        self.tree.setCurrentItem(items[0], column)  # ends an edit that is open: its text is kept, and the list made anew
        for item in self.tree.run_items():
            if item.data(NAME, RUN_ROLE).id == number:
                self.tree.setCurrentItem(item, column)
                self.tree.editItem(item, column)

    def _show(self, run_ids: list[int], then: Callable[[list[Run]], Any]) -> None:
        """Of two that were asked for the last is shown, whichever is read first."""
        self._read(self._chosen.ask, run_ids, then, self.context.say)

    def _read(
        self, ask: InBackground, run_ids: list[int], then: Callable[[list[Run]], Any], otherwise: Callable[[str], Any]
    ) -> None:
        store = self.store
        if store is None:
            return

        def done(future: Future[Any]) -> None:
            error = future.exception()
            if error is None:
                then(future.result())
            else:
                why = said(error) if isinstance(error, Refusal) else f"The run could not be read: {first_line(error)}"
                otherwise(why)

        ask(lambda: [store.read(run_id) for run_id in run_ids], done)

    def _try(self, call: Callable[[], Any]) -> bool:
        """Whether it could be done; what stood in the way is told."""
        try:
            call()
        except Refusal as refusal:
            self.context.say(str(refusal))
            return False
        return True


def _judged(store: Store, run_ids: list[int]) -> str:
    return verdict_of([store.read(run_id) for run_id in run_ids])


def _allow(button: QPushButton, reason: str) -> None:
    button.setEnabled(not reason)
    button.setToolTip(plain_tip(reason))
    button.setAccessibleDescription(reason)
