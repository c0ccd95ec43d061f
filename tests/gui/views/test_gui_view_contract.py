"""Views by contract: one file is a view everywhere, late answers are dropped in one place, and no window leaves anything."""

from __future__ import annotations

import ast
import gc
import sys
import weakref
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
from PySide6.QtCore import SIGNAL, QCoreApplication, QEvent, QObject, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from shiboken6 import isValid

import gui.views
from core.notices import Notice
from gui.background import Answers
from gui.settings import NUMBERED, Settings
from gui.views.base import Request, View, known_views, views
from tests.support.gui_window import close_window, make_window
from tests.support.synthetic import synthetic_run
from tests.support.view_context import context

TOY = '''"""A view of one number."""

from gui.views.base import View, ViewSpec, views


class Toy(View):
    told = 0

    def show_run(self, run):
        self.told += 1


@views.register
def toy():
    return ViewSpec("toy", "Toy", 90, Toy)
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A file in a folder that the package of views looks into; the registry is as it was afterwards."""
    known_views()
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "toy.py").write_text(TOY)
    monkeypatch.setattr(gui.views, "__path__", [*gui.views.__path__, str(tmp_path / "views")])
    monkeypatch.setattr(views, "_items", dict(views._items))
    monkeypatch.setattr(views, "_asked", False)
    monkeypatch.setattr(views, "_discovered", False)
    yield
    sys.modules.pop("gui.views.toy")
    del gui.views.toy


def test_a_view_is_one_file(toy, qtbot, open_window, tmp_path):
    window = open_window()
    tabs = window.header.tabs
    assert [tabs.tabText(at) for at in range(tabs.count())] == ["1 Live", "2 Layers", "3 Compare", "4 Sessions", "5 Toy"]
    window.activateWindow()
    window.sidebar.run.setFocus()
    qtbot.waitUntil(window.isActiveWindow, timeout=5000)
    QTest.keyClick(QApplication.focusWidget() or window, Qt.Key.Key_5)
    assert window.views.current == "toy"
    assert window.stack.currentWidget() is window.views["toy"]
    assert window.header.actions_by_name["view5"].isChecked()
    window.state.open_run(synthetic_run(blocks=1, run_id=3))
    assert window.views["toy"].told > 0
    window.show_view("live")
    window.header.actions_by_name["palette"].trigger()
    palette = QApplication.activePopupWidget()
    palette.field.setText("toy")
    assert palette.shown[0].text == "View › Toy"
    QTest.keyClick(palette.field, Qt.Key.Key_Return)
    assert window.views.current == "toy"
    window.close()
    assert Settings(tmp_path / "settings.ini").view == "toy"
    assert open_window().views.current == "toy"


def test_settings_of_a_view_that_is_gone_show_the_first(qtbot, open_window, tmp_path):
    (tmp_path / "settings.ini").write_text("[General]\nview=toy\n")
    window = open_window()
    assert window.views.current == known_views()[0].id == "live"
    assert window.stack.currentWidget() is window.views["live"]


@pytest.mark.parametrize(("stored", "meant"), [*enumerate(NUMBERED), (9, "live")])
def test_settings_that_number_the_views_are_understood(qtbot, open_window, tmp_path, stored, meant):
    (tmp_path / "settings.ini").write_text(f"[General]\nview={stored}\n")
    window = open_window()
    assert window.views.current == meant
    window.close()
    assert f"view={meant}" in (tmp_path / "settings.ini").read_text()


def test_the_registered_views_are_those_on_disk():
    root = Path(gui.views.__file__).parent
    marks = [path for path in root.rglob("*.py") if "\n@views.register\n" in path.read_text()]
    assert len(marks) == len(known_views()) == 4


def test_the_window_names_no_view():
    """Neither by title nor by id, in whatever stands outside the views."""
    names = {name for spec in known_views() for name in (spec.id, spec.title)}
    allowed = {("settings.py", name) for name in NUMBERED}  # what older settings numbered
    named = {
        (path.name, node.value)
        for path in Path(gui.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert named == allowed


def test_a_run_that_begins_is_shown_by_a_view_that_shows_runs(qtbot, open_window):
    window = open_window()
    for begin, job, after in (("compare", "run", "live"), ("layers", "run", "layers"), ("compare", "ab_test", "compare")):
        window.show_view(begin)
        window.program.notices.put(Notice("job_started", "It begins.", job=job))
        window.bridge.tick()
        assert window.views.current == after, (begin, job)


# -- answers --------------------------------------------------------------------------------------------------------------


def finished(value: object) -> Future:
    future: Future = Future()
    future.set_result(value)
    return future


def test_only_answers_of_the_newest_generation_count():
    asked, got = [], []
    answers = Answers(lambda work, done: asked.append((work, done)))

    def ask(how, value):
        how(lambda: value, lambda future: got.append(future.result()))

    ask(answers.ask, "first")
    ask(answers.ask, "second")
    ask(answers.add, "beside")
    for work, done in reversed(asked):
        done(finished(work()))
    assert got == ["beside", "second"]
    ask(answers.ask, "third")
    answers.drop()
    asked[-1][1](finished("third"))
    assert got == ["beside", "second"]


def test_a_deletion_does_not_reach_into_another_session(qtbot):
    """Runs are numbered from 1 in each session, so an answer that comes after the switch would delete a stranger."""
    from gui.views.sessions.view import SessionsView

    class Store:
        read_only = False

        def __init__(self) -> None:
            self.deleted: list[int] = []
            self.run = synthetic_run(blocks=1, run_id=1)

        def runs(self):
            head = SimpleNamespace(**{name: getattr(self.run, name) for name in ("id", "name", "created", "config", "facts")})
            head.status, head.note, head.consents, head.group, head.role = "finished", "", (), None, 0
            return [head]

        def read(self, _run_id):
            return self.run

        def delete(self, run_id):
            self.deleted.append(run_id)

    from gui.view_state import ViewState

    asked = []
    view = SessionsView(context(ViewState(), lambda work, done: asked.append((work, done))))
    qtbot.addWidget(view)
    before, after = Store(), Store()
    view.set_store(before)
    view.tree.topLevelItem(0).setSelected(True)
    view.delete_selected()
    view.set_store(after)
    for work, done in asked[:]:
        done(finished(work()))
    assert (before.deleted, after.deleted) == ([], [])


# -- nothing is left ------------------------------------------------------------------------------------------------------


def settle() -> None:
    for _ in range(3):
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
        gc.collect()


def alive() -> Counter:
    """QObjects that Python knows of and Qt has not destroyed, by type."""
    return Counter(type(thing).__name__ for thing in gc.get_objects() if issubclass(type(thing), QObject) and isValid(thing))


def test_windows_leave_no_object_and_no_receiver_behind(qtbot, tmp_path):
    def open_and_close() -> list[weakref.ref]:
        window = make_window(tmp_path / "settings.ini")
        gone = [weakref.ref(window), *map(weakref.ref, window.views)]
        for spec in window.views.specs:
            window.show_view(spec.id)
        window.state.open_run(synthetic_run(blocks=1, run_id=3))
        close_window(window)
        return gone

    def receivers() -> int:
        return QGuiApplication.styleHints().receivers(SIGNAL("colorSchemeChanged(Qt::ColorScheme)"))

    gc.unfreeze()
    open_and_close()  # fonts, icons and pyqtgraph's own objects stay from the first one on
    settle()
    before, heard = alive(), receivers()
    for _ in range(3):
        gone = open_and_close()
        settle()
        assert [kept() for kept in gone if kept() is not None] == []
    assert alive() - before == Counter()
    assert receivers() == heard


@pytest.mark.parametrize("view_id", ["live", "layers", "compare", "sessions"])
def test_a_view_leaves_nothing_behind_in_what_views_share(qtbot, view_id):
    from gui.view_state import ViewState

    state = ViewState()
    signals = ("layer_selected(QString)", "run_changed(PyObject)", "pair_changed(PyObject)", "theme_changed(QString)")

    def receivers() -> list[int]:
        return [state.receivers(SIGNAL(signal)) for signal in signals]

    before = receivers()
    for _ in range(3):
        view = views.get(view_id).make(context(state))
        assert receivers() != before or view_id == "sessions"
        gone = weakref.ref(view)
        view.deleteLater()
        del view
        settle()
        assert gone() is None
    assert receivers() == before


def test_what_a_view_does_not_want_to_know_is_told_it_all_the_same(qtbot):
    from gui.view_state import ViewState

    view = View(context(ViewState()))
    qtbot.addWidget(view)
    for told in (view.show_run, view.set_store, view.show_trial, view.show_text, view.show_status, view.set_palette):
        told(None)
    view.show_slow(None, None)
    view.poll()
    view.setup_changed()
    assert not any(view.can(request()) for request in Request.__args__ if not request.__dataclass_fields__)
