"""The sidebar as it is at first: what matters fits a laptop's screen, the rest is a click away and says what is set in it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from PySide6.QtCore import QPoint, QSize, Qt, QTimer
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QMessageBox

from core.messages.reason import Reason, of_text
from core.notices import Notice, Status
from gui.elided import Elided
from gui.plain import ask, unbroken
from gui.status_bar import StatusBar
from gui.views.live.tiles import wrapped
from tests.support.gui_window import child, close_window, make_window

LAPTOP = QSize(1440, 870)  # 1440 × 900 less a title bar
SEEN = ("modelSource", "modelPath", "passFilter", "passList", "promptEdit", "newTokensSpin", "batchSpin", "repeatsSpin")


@pytest.fixture
def window(qtbot, tmp_path):
    window = make_window(tmp_path / "settings.ini")
    try:
        window.showNormal()
        window.resize(LAPTOP)
        qtbot.waitUntil(lambda: window.size() == LAPTOP and window.sidebar.model.facts is not None, timeout=5000)
        QApplication.processEvents()
        yield window
    finally:
        close_window(window)


def test_model_passes_and_workload_are_seen_whole_on_a_laptop(window):
    sidebar = window.sidebar
    assert sidebar._scroll.verticalScrollBar().maximum() == 0
    page = sidebar._scroll.viewport()
    for name in (
        "modelSource",
        "modelPath",
        "passFilter",
        "passList",
        "promptEdit",
        "newTokensSpin",
        "batchSpin",
        "repeatsSpin",
    ):
        widget = child(sidebar, name)
        assert widget.isVisible(), name
        bottom = widget.mapTo(page, QPoint(0, widget.height())).y()
        assert bottom <= page.height(), name
    assert sidebar.passes.height() >= sidebar.passes.least_height
    assert sidebar.pass_head.y() < sidebar.passes.y()
    assert sidebar.sections["target"].note.text()  # folded, it says the device


def test_in_a_tall_window_nothing_grows_but_the_list(qtbot, window):
    sidebar = window.sidebar
    window.resize(1440, 1500)
    qtbot.waitUntil(lambda: sidebar.passes.height() == sidebar.passes.maximumHeight(), timeout=5000)
    QApplication.processEvents()
    box = sidebar.workload.prompt_box
    assert box.height() == box.sizeHint().height()
    assert sidebar.workload.height() == sidebar.workload.sizeHint().height()
    sections = list(sidebar.sections.values())
    gaps = [after.y() - before.geometry().bottom() for before, after in pairwise(sections)]
    assert max(gaps) < 25


def test_what_is_seldom_set_is_behind_more_and_more_says_that_it_is_set(window):
    form = window.sidebar.workload
    assert not form.chat.isVisible()
    assert not form.prompt_set.isVisible()
    form.show_config(replace(form.config(), warmup=0, chat=False, prompt_tokens=12))
    assert "3 set" in form.more.text()
    assert form.prompt_box.label.text() == "Prompt · 12 random tokens instead"
    form.more.click()
    assert all(widget.isVisible() for widget in (form.chat, form.warmup, form.prompt_tokens, form.prompt_set))
    form.show_config(replace(form.config(), warmup=None, chat=None, prompt_tokens=None))
    assert "set" not in form.more.text()
    assert form.prompt_box.label.text() == "Prompt"


def test_tab_goes_through_the_sidebar_as_it_is_read(window):
    sidebar = window.sidebar
    sidebar.model.source.setFocus()
    names = ["modelSource", "dtypeCombo", "modelPath", "targetToggle", "passesToggle", "passFilter", "passOrder", "passList"]
    names += ["qualityToggle", "workloadToggle", "workloadMore", "promptEdit", "newTokensSpin", "batchSpin", "repeatsSpin"]
    names += ["instrumentToggle", "loadButton"]
    stops = [QApplication.focusWidget()]
    while stops[-1].objectName() != "loadButton" and len(stops) < 60:
        window.focusNextChild()
        stops.append(QApplication.focusWidget())
    assert [one.objectName() for one in stops] == names


def test_a_path_gives_way_in_its_middle_and_stays_whole_to_read(qtbot):
    label = Elided(where=Qt.TextElideMode.ElideMiddle)
    qtbot.addWidget(label)
    label.setText("Kept in /a/folder/that/is/far/too/long/to/be/shown/here.tickscope")
    label.resize(200, 20)
    assert label.shown().startswith("Kept")
    assert label.shown().endswith(".tickscope")
    assert label.text().count("/") > label.shown().count("/")


def test_the_status_is_not_said_twice(qtbot):
    bar = StatusBar()
    qtbot.addWidget(bar)
    bar.show_status(Status("loading", (of_text("Loading"),)))
    assert (bar.state.text(), bar.text.text()) == ("● Loading", "")
    bar.show_status(Status("loading", (of_text("Reading weights"),)))
    assert bar.text.text() == "Reading weights"


def test_nobody_is_told_to_load_a_model_while_one_is_loading(window):
    live = window.views["live"]
    live.show_status(Status("loading", (of_text("Reading weights into memory"),)))
    assert live.latency.explanation == "Reading weights into memory…"
    assert "Load a model" not in live.output.text.placeholderText()
    live.show_status(Status("idle"))
    assert "Load a model" in live.latency.explanation


def test_whoever_has_loaded_a_model_is_told_to_run_it_and_nobody_while_it_runs(window):
    """After loading and as a run begins "Load a model and press Run" stood there; in A/B tests "press Start A/B"."""
    live, layers, compare = (window.views[name] for name in ("live", "layers", "compare"))
    chart = compare.trial.chart

    def said():
        return (live.latency.explanation, live.output.text.placeholderText(), layers.explanation)

    for view in (live, layers, compare):
        view.show_status(Status("ready"))
    assert all(text.startswith("Press Run: ") for text in said())
    assert "press Start A/B" in chart.explanation
    assert {tile.reading.sub for tile in live.tiles.tiles} == {"no run yet"}
    for view in (live, layers, compare):
        view.show_status(Status("running", (of_text("warm-up 1"),), warming=True))
    assert not any("ress Run" in text for text in said())
    assert chart.explanation == live.latency.explanation == "warm-up 1…"
    assert {tile.reading.sub for tile in live.tiles.tiles} == {"waiting for numbers"}
    for view in (live, layers, compare):
        view.show_status(Status("idle"))
    assert all(text.startswith("Load a model and press Run: ") for text in said())


def test_what_is_cancelled_has_no_time_left(qtbot):
    bar = StatusBar()
    qtbot.addWidget(bar)
    running = Status("running", (of_text("round 1"),), seconds_left=13.0, at_most=True)
    bar.show_status(running)
    assert not bar.left.isHidden()
    bar.show_status(replace(running, state="cancelling"))
    assert bar.left.isHidden()


def test_that_a_cancel_is_not_heard_is_said_until_it_is(window):
    """The banner went on saying so, and to close the window, after the cancel had been done."""
    window.banner.follow(Notice("warning", Reason("execution.deaf-to-cancel")))
    window.banner.follow_status(busy=True)
    assert not window.banner.isHidden()
    window.banner.follow_status(busy=False)
    assert window.banner.isHidden()
    window.banner.follow(Notice("warning", of_text("The disk is full.")))
    window.banner.follow_status(busy=False)
    assert not window.banner.isHidden()


def test_numbers_stay_with_their_units(qtbot):
    label = Elided()
    qtbot.addWidget(label)
    assert unbroken("weights 513 MiB · 3 layers of 4") == "weights 513\N{NO-BREAK SPACE}MiB · 3\N{NO-BREAK SPACE}layers of 4"
    metrics = label.fontMetrics()
    width = metrics.horizontalAdvance("weights 513")
    assert wrapped("weights 513 MiB", metrics, width, 2).split("\n")[0] == "weights"


def test_a_reason_is_not_cut_within_brackets(qtbot):
    label = Elided()
    qtbot.addWidget(label)
    metrics = label.fontMetrics()
    reason = "no energy counter (no RAPL, no NVIDIA driver)."
    width = metrics.horizontalAdvance("no energy counter (no RAPL,") + 2
    assert wrapped(reason, metrics, width, 1) == "no energy counter"


def test_a_question_wears_the_theme(window):
    seen = []

    def look():
        (box,) = [one for one in QApplication.topLevelWidgets() if isinstance(one, QMessageBox) and one.isVisible()]
        seen.append(box.styleSheet())
        box.button(QMessageBox.StandardButton.No).click()

    QTimer.singleShot(0, window, look)
    assert not ask(window, "Title", "Question?")
    assert seen == [window.theme_switch.sheet]


def test_cancelling_gives_the_focus_to_no_field(qtbot, window):
    sidebar = window.sidebar
    sidebar.run.setFocus()
    for state in ("running", "cancelling", "ready"):
        sidebar.show_status(Status(state), None)
        QApplication.processEvents()
        assert window.focusWidget() in (sidebar.run, sidebar.cancel), state


@pytest.mark.parametrize("name", ["load", "unload"])
def test_loading_gives_the_focus_to_no_field(qtbot, window, name):
    # the keys 1 to 4 of the views went into New tokens: 64 became 264
    sidebar = window.sidebar
    sidebar.unload.setEnabled(True)
    getattr(sidebar, name).setFocus()
    for state in ("loading", "idle"):
        sidebar.show_status(Status(state), None)
        QApplication.processEvents()
        assert window.focusWidget() in (sidebar.run, sidebar.cancel), state


def test_number_keys_turn_the_views_where_the_view_before_had_the_focus(window, qtbot):
    """Qt gave the focus of the hidden view to the filter of layers, and 3 was written there."""
    live, layers = window.views["live"], window.views["layers"]
    window.views.show("live")
    window.activateWindow()
    live.output.text.setFocus()
    qtbot.waitUntil(lambda: QApplication.focusWidget() is live.output.text, timeout=3000)
    layers.filter.setEnabled(True)  # as where a run is on show
    for key, view in ((Qt.Key.Key_2, "layers"), (Qt.Key.Key_3, "compare"), (Qt.Key.Key_4, "sessions")):
        QTest.keyClick(QApplication.focusWidget(), key)
        assert window.views.current == view
    assert layers.filter.text() == ""
