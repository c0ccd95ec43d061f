"""Help and feedback: glossary, keys, first steps, the command palette, and what is said of things just done."""

from __future__ import annotations

import gc
from dataclasses import replace
from types import SimpleNamespace

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QDialog, QTextBrowser

from core.glossary import GLOSSARY, find
from core.notices import Notice, Status
from gui.last_folder import last_folder, use_folder, within
from gui.matching import ranked, score
from gui.views.live.tile_readings import specs
from tests.support.gui_window import child, close_window, make_window
from tests.support.synthetic import synthetic_run


@pytest.fixture
def window(qtbot, tmp_path):
    window = make_window(tmp_path / "settings.ini")
    yield window
    close_window(window)
    window = None
    gc.collect()


def page(window, name):
    found = window.findChild(QDialog, name)
    assert found is not None, name
    return found


def trigger(window, name):
    window.header.actions_by_name[name].trigger()


# -- glossary -------------------------------------------------------------------------------------------------------------


def test_the_glossary_has_the_words_of_the_window_and_says_each_once():
    words = [term.word.lower() for term in GLOSSARY]
    assert len(words) == len(set(words))
    for wanted in ("moment", "clean", "traced", "perturbed", "TPOT", "TTFT", "ITL", "KLD", "observer effect", "A/A floor"):
        assert wanted.lower() in words
    for term in GLOSSARY:
        assert term.meaning.endswith(".")
    told = " ".join(f"{term.word} {' '.join(term.also)}" for term in GLOSSARY).lower()
    for spec in specs():  # what a tile is called can be looked up
        word = spec.label.split(" p50")[0].split(" / ")[0].lower()
        assert word in told or find(word), spec.label


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("kld", "KLD"),
        ("time to first", "TTFT"),
        ("kullback", "KLD"),
        ("roofline", "predicted gain"),
        ("noise floor", "A/A floor"),
    ],
)
def test_words_are_found_by_their_other_names(words, first):
    assert find(words)[0].word == first


def test_nothing_is_found_for_what_is_not_there():
    assert find("zebra") == ()


def test_the_glossary_page_searches(window):
    trigger(window, "glossary")
    dialog = page(window, "glossaryPage")
    text = dialog.findChild(QTextBrowser, "glossaryText")
    assert "moment" in text.toPlainText()
    QTest.keyClicks(dialog.focusWidget(), "kullback")
    assert text.toPlainText().startswith("KLD")
    dialog.close()


def test_keys_and_first_steps(window):
    trigger(window, "keys")
    shown = page(window, "keysPage").findChild(QTextBrowser).toPlainText()
    for key in ("F5", "Esc", "Ctrl+K", "Ctrl+B", "Space"):
        assert key in shown
    trigger(window, "firstSteps")
    assert "Run (F5)" in page(window, "firstStepsPage").findChild(QTextBrowser).toPlainText()


# -- palette --------------------------------------------------------------------------------------------------------------


def test_letters_find_what_begins_words_first():
    texts = ["Run › Start A/B", "View › Light theme", "File › Save session as…", "View › Sessions"]
    assert ranked("sess", texts, str)[0] == "View › Sessions"
    assert ranked("lt", texts, str)[0] == "View › Light theme"
    assert ranked("ssa", texts, str)[0] == "File › Save session as…"
    assert ranked("", texts, str) == texts
    assert score("zz", texts[0]) is None


def test_the_palette_does_what_is_typed(qtbot, window):
    trigger(window, "palette")
    palette = page(window, "commandPalette")
    assert {entry.text for entry in palette.shown} >= {"View › Layers", "Run › Run", "Help › Glossary", "View › Light theme"}
    QTest.keyClicks(palette.field, "compare")
    assert palette.shown[0].text == "View › Compare"
    QTest.keyClick(palette.field, Qt.Key.Key_Return)
    assert window.header.tabs.currentIndex() == 2


def test_the_palette_switches_passes_and_leaves_out_what_cannot_be_done(window):
    trigger(window, "palette")
    palette = page(window, "commandPalette")
    cancel = next(entry for entry in palette.shown if entry.text == "Run › Cancel")
    assert not cancel.enabled
    QTest.keyClicks(palette.field, "switch on bfloat16")
    assert palette.shown[0].text == "Switch on › bfloat16"
    QTest.keyClick(palette.field, Qt.Key.Key_Return)
    assert window.sidebar.passes.chosen() == ("bfloat16",)


def test_the_arrows_go_round_and_skip_what_is_greyed(window):
    trigger(window, "palette")
    palette = page(window, "commandPalette")
    QTest.keyClick(palette.field, Qt.Key.Key_Up)
    last = palette.list.currentRow()
    assert palette.shown[last].enabled
    assert not any(entry.enabled for entry in palette.shown[last + 1 :])
    QTest.keyClick(palette.field, Qt.Key.Key_Down)
    first = palette.list.currentRow()
    assert not any(entry.enabled for entry in palette.shown[:first])
    QTest.keyClick(palette.field, Qt.Key.Key_Escape)
    QApplication.sendPostedEvents()


# -- feedback -------------------------------------------------------------------------------------------------------------


def test_the_end_of_a_run_says_how_long_it_took_and_where_it_is(window, tmp_path):
    path = tmp_path / "one.tickscope"
    path.touch()
    window.program.store = SimpleNamespace(path=path, read_only=False, runs=list)
    window.router.on_notice(Notice("job_started", "Running it.", job="run"))
    window.router.on_notice(Notice("job_finished", "Finished it.", job="run"))
    strip = child(window, "feedbackStrip")
    assert strip.isVisible()
    assert strip.text.text().startswith("Finished it. It took ")
    assert str(path) in strip.text.text()
    opened = []
    strip.show_folder = opened.append
    child(window, "showInFolder").click()
    assert opened == [tmp_path]
    window.router.on_notice(Notice("job_started", "Running another.", job="run"))
    assert not strip.isVisible()


def test_the_time_that_a_run_took_has_the_loading_and_the_reference_in_it(window, monkeypatch):
    """It began with the first request, so a minute in which the model was asked without its passes was left out."""
    clock = SimpleNamespace(now=10_000_000_000)
    monkeypatch.setattr("gui.feedback.time", SimpleNamespace(perf_counter_ns=lambda: clock.now))
    strip = window.feedback
    strip.follow_status(busy=True)
    clock.now += 40_000_000_000
    strip.follow_status(busy=True)
    strip.follow(Notice("job_started", "Running it.", job="run"), None)
    clock.now += 20_000_000_000
    strip.follow(Notice("job_finished", "Finished it.", job="run"), None)
    assert strip.text.text() == "Finished it. It took 1 min 0 s in all, 40.0 s of it before the first request."
    strip.follow(Notice("job_started", "Running what waited.", job="run"), None)
    clock.now += 5_000_000_000
    strip.follow(Notice("job_finished", "Finished it.", job="run"), None)
    assert strip.text.text() == "Finished it. It took 5.00 s in all."


def test_escape_after_a_menu_cancels_the_run(qtbot, window):
    """The menu bar kept the keyboard, and took the next Escape for itself."""
    window.program.status = Status("preparing", "Reading weights")
    window.bridge.tick()
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow, timeout=3000)
    done = []
    window.header.actions_by_name["cancelRun"].triggered.connect(lambda: done.append(True))
    menu = window.header.menus["File"]
    window.header.menu_bar.setActiveAction(menu.menuAction())
    qtbot.waitUntil(menu.isVisible, timeout=3000)
    QTest.keyClick(menu, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: not menu.isVisible() and window.header.menu_bar.activeAction() is None, timeout=3000)
    assert not window.header.menu_bar.hasFocus()
    window.activateWindow()  # no window manager does it here
    qtbot.waitUntil(window.isActiveWindow, timeout=3000)
    QTest.keyClick(window, Qt.Key.Key_Escape)
    assert done == [True]


def test_what_went_wrong_with_keeping_is_not_called_kept(window, tmp_path):
    window.program.store = SimpleNamespace(path=tmp_path / "gone.tickscope", read_only=False, runs=list)
    window.router.on_notice(Notice("job_started", "", job="run"))
    window.router.on_notice(Notice("job_finished", "Finished it.", job="run"))
    assert "Kept in" not in window.feedback.text.text()
    (tmp_path / "gone.tickscope").touch()
    window.router.on_notice(Notice("job_started", "", job="run"))
    window.router.on_notice(Notice("warning", "The disk is full; free some room."))
    window.router.on_notice(Notice("job_finished", "Finished it.", job="run"))
    assert "Kept in" not in window.feedback.text.text()
    assert not child(window, "showInFolder").isVisible()


def test_a_saved_chart_and_an_export_are_told_with_their_place(qtbot, window, tmp_path):
    run = replace(synthetic_run(blocks=2, run_id=3), name="it")
    window.state.open_run(run)
    live = window.views["live"]
    live.latency.menu.ask_path = lambda *_: tmp_path / "chart.csv"
    live.latency.menu.save_data.trigger()
    live.latency.menu.join(30)
    window.router.poll()
    assert "chart.csv" in window.feedback.text.text()
    assert window.feedback.path == tmp_path / "chart.csv"
    assert last_folder() == str(tmp_path)
    suggested = []
    window.files.ask_save = lambda _parent, _title, name, _filters: suggested.append(name)
    window.files.export_run()
    assert suggested == [str(tmp_path / "it")]
    window.files.ask_save = lambda *_: (tmp_path / "it.json", "")
    window.files.export_run()
    qtbot.waitUntil(lambda: window.feedback.path == tmp_path / "it.json", timeout=20_000)


def test_a_folder_that_is_gone_is_not_suggested(qapp, tmp_path):
    use_folder(tmp_path / "gone")
    assert last_folder() == ""
    assert within("a.png") == "a.png"
    use_folder("")
