"""A run is renamed and given a note in its place, one edit after another."""

from __future__ import annotations

import shutil
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLineEdit

from core.session.store import SessionStore
from gui.view_state import ViewState
from gui.views.sessions.view import SessionsView
from tests.support.folders import SAMPLES
from tests.support.view_context import context

SAMPLE = SAMPLES / "session-v3.tickscope"


def test_a_run_is_renamed_and_then_given_a_note(qtbot, tmp_path: Path) -> None:
    shutil.copy(SAMPLE, tmp_path / "s.tickscope")
    store = SessionStore.open(tmp_path / "s.tickscope")
    view = SessionsView(context(ViewState("dark")))
    qtbot.addWidget(view)
    view.resize(1200, 500)
    view.show()
    view.set_store(store)
    view.tree.topLevelItem(0).setSelected(True)
    number = view.selected_ids()[0]
    for begin, words in ((view.rename_selected, "renamed"), (view.annotate_selected, "noted")):
        begin()
        editor = view.tree.findChildren(QLineEdit)[-1]
        editor.setText(words)
        QTest.keyClick(editor, Qt.Key.Key_Return)
        qtbot.wait(1)
        assert view.selected_ids() == [number]
    # without Return: the other button takes the focus while the first edit is open
    view.rename_selected()
    editor = view.tree.findChildren(QLineEdit)[-1]
    editor.setText("renamed again")
    view.annotate_selected()
    qtbot.wait(1)
    editor = view.tree.findChildren(QLineEdit)[-1]
    editor.setText("noted again")
    QTest.keyClick(editor, Qt.Key.Key_Return)
    qtbot.wait(1)
    head = next(head for head in store.runs() if head.id == number)
    store.close()
    assert (head.name, head.note) == ("renamed again", "noted again")
