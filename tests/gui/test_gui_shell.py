"""The window as a whole: pick, load, run, watch, cancel, themes, keys, sessions, and closing."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from PySide6.QtCore import QPoint, Qt, QTimer
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QWidget

from core.commands.following import Stop
from core.messages.reason import of_text
from core.notices import Notice, Status
from gui import __main__ as entry
from gui import app, theme
from gui.settings import Settings
from tests.support.fakes import FakeProgram
from tests.support.synthetic import synthetic_run

NAMES = (
    *("modelSource", "modelPath", "loadButton", "unloadButton", "targetCombo", "threadsSpin", "passList", "promptEdit"),
    *("promptTokensSpin", "newTokensSpin", "batchSpin", "repeatsSpin", "warmupSpin", "runButton", "cancelButton", "viewTabs"),
    *("latencyChart", "memoryChart", "layerHeat", "stageBars", "utilizationChart", "outputText", "layerTable", "compareView"),
    *("sessionTree", "statTTFT", "statTPOT", "statITL", "statDecode", "statPeakMemory", "statObserver", "progressBar"),
    *("statusText", "errorBanner", "logPanel"),
)
"""What ``ui.md`` promises to scripts."""


class Facts:
    """Describes every model without looking for one."""

    def describe(self, config):
        return replace(synthetic_run(repeats=1, warmup=0, new_tokens=1, blocks=1).facts.model, spec=config.spec)

    def fit_sentence(self, _facts, _dtype):
        return True, "fits"


@pytest.fixture
def settings_path(tmp_path):
    return tmp_path / "settings.ini"


@pytest.fixture
def open_window(qtbot, settings_path):
    """Makes a window on a fake program; all are closed in the end."""
    made = []

    def make(**kwargs):
        program = FakeProgram(blocks=2, **kwargs)
        _, window = app.create([], program=program, settings=Settings(settings_path), knowledge=Facts())
        window.show()
        made.append(window)
        return window

    yield make
    for window in made:
        window.ask = lambda *_: True
        window.close()
        window.deleteLater()
    made.clear()
    window = None
    gc.collect()  # pyqtgraph's menus have no parent: they go with the Python objects


@pytest.fixture
def window(open_window):
    return open_window()


def child(window, name):
    return window.findChild(QWidget, name)


def small_workload(window, tokens=8, repeats=2):
    child(window, "newTokensSpin").setValue(tokens)
    child(window, "repeatsSpin").setValue(repeats)
    child(window, "warmupSpin").setValue(1)


def state(window):
    return window.program.status.state


def test_the_promised_names_exist(window):
    assert [name for name in NAMES if child(window, name) is None] == []


def test_load_run_and_look(qtbot, window):
    small_workload(window)
    window.program.moment_s = 0.1  # so long that a window on a busy machine cannot miss that it runs
    child(window, "loadButton").click()
    qtbot.waitUntil(lambda: child(window, "unloadButton").isEnabled(), timeout=10_000)
    assert "SmolLM2-135M-Instruct" in child(window, "statusText").text()
    child(window, "runButton").click()
    qtbot.waitUntil(lambda: child(window, "cancelButton").isVisible(), timeout=10_000)
    assert not child(window, "runButton").isVisible()
    assert child(window, "progressBar").isVisible()
    qtbot.waitUntil(lambda: child(window, "runButton").isVisible(), timeout=60_000)
    assert window.state.current_run.facts.status == "finished"
    assert len(window.state.current_run.trace.moments["kind"]) == 24
    assert child(window, "latencyChart").explanation == ""
    log = child(window, "logText").toPlainText()
    assert "was loaded" in log
    assert "The run is finished." in log


def test_a_run_is_what_the_sidebar_says(qtbot, window):
    small_workload(window, tokens=3, repeats=1)
    window.sidebar.passes.choose(["bfloat16"])
    QTest.keyClick(window, Qt.Key.Key_F5)
    qtbot.waitUntil(lambda: bool(window.program.calls) and not window.program.busy, timeout=20_000)
    name, config = window.program.calls[0]
    assert name == "start"
    assert config == window.sidebar.run_config()
    qtbot.waitUntil(lambda: "211 modules" in window.sidebar.passes.item_of("bfloat16").toolTip(), timeout=5000)


def test_run_asked_twice_is_one_run(window):
    window.work.start()
    window.work.start()
    assert [name for name, _ in window.program.calls] == ["start"]


def test_escape_cancels_and_keeps_what_was_measured(qtbot, window):
    small_workload(window, tokens=64, repeats=50)
    QTest.keyClick(window, Qt.Key.Key_F5)
    qtbot.waitUntil(lambda: state(window) == "running" and window.program._closed > 3, timeout=20_000)
    QTest.keyClick(window, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: child(window, "runButton").isVisible(), timeout=20_000)
    assert window.program.calls[-1][0] == "cancel"
    assert 3 < len(window.state.current_run.trace.moments["kind"]) < 64 * 51
    assert "kept" in child(window, "logText").toPlainText()


def test_loading_can_be_cancelled(qtbot, window):
    window.program.load_s = 30
    child(window, "loadButton").click()
    qtbot.waitUntil(lambda: child(window, "cancelButton").isVisible(), timeout=10_000)
    child(window, "cancelButton").click()
    qtbot.waitUntil(lambda: child(window, "runButton").isVisible(), timeout=10_000)
    assert window.program.loaded is None


def test_unload(qtbot, window):
    child(window, "loadButton").click()
    qtbot.waitUntil(lambda: child(window, "unloadButton").isEnabled(), timeout=10_000)
    child(window, "unloadButton").click()
    qtbot.waitUntil(lambda: not child(window, "unloadButton").isEnabled(), timeout=10_000)
    assert "no model" in child(window, "statusText").text()


def test_what_will_not_fit_can_be_loaded_anyway_and_then_run(qtbot, window):
    window.program.refuse_load = Notice("refused", "It needs 14 GiB and 6 GiB are free; choose bfloat16.", can_override=True)
    small_workload(window, tokens=2, repeats=1)
    child(window, "loadButton").click()
    banner = child(window, "errorBanner")
    qtbot.waitUntil(banner.isVisible, timeout=10_000)
    assert child(window, "bannerText").text().startswith("It needs 14 GiB")
    assert not child(window, "bannerDetails").isVisible()
    child(window, "loadAnyway").click()
    qtbot.waitUntil(lambda: window.program.loaded is not None, timeout=10_000)
    qtbot.waitUntil(lambda: not banner.isVisible(), timeout=10_000)
    assert window.program.calls[-1][1].force
    window.work.start()
    assert window.program.calls[-1][1].model.force
    qtbot.waitUntil(lambda: not window.program.busy, timeout=10_000)


def test_a_failure_shows_its_sentence_and_its_traceback(qtbot, window):
    window.program.notices.put(Notice("failed", "Layer 3 raised ValueError.", "Traceback (most recent call last):\n  boom"))
    window.bridge.tick()
    assert child(window, "errorBanner").isVisible()
    assert not child(window, "loadAnyway").isVisible()
    child(window, "bannerDetails").click()
    assert "boom" in child(window, "bannerDetail").toPlainText()
    assert "          boom" not in child(window, "logText").toPlainText().splitlines()
    assert any(line.strip() == "boom" for line in child(window, "logText").toPlainText().splitlines())
    child(window, "bannerDismiss").click()
    assert not child(window, "errorBanner").isVisible()


def test_a_failed_run_leaves_the_window_ready(qtbot, window):
    window.program.fail_run = Notice("job_failed", "Memory ran out; make the batch smaller.", "Traceback", job="run")
    small_workload(window, tokens=2, repeats=1)
    window.work.start()
    qtbot.waitUntil(lambda: child(window, "errorBanner").isVisible(), timeout=20_000)
    qtbot.waitUntil(lambda: child(window, "runButton").isVisible() and child(window, "runButton").isEnabled(), timeout=10_000)


def test_the_log_opens_and_copies(window):
    window.program.notices.put(Notice("warning", "The disk is full; free some room."))
    window.bridge.tick()
    assert not child(window, "logPanel").isVisible()
    window.status_bar.log.click()
    assert child(window, "logPanel").isVisible()
    child(window, "logCopy").click()
    assert "The disk is full" in QGuiApplication.clipboard().text()


def test_number_keys_switch_views_but_not_while_typing(qtbot, window):
    tabs = child(window, "viewTabs")
    assert [tabs.tabData(index) for index in range(tabs.count())] == ["Live", "Layers", "Compare", "Sessions"]
    window.activateWindow()
    window.sidebar.run.setFocus()
    QTest.keyClick(QApplication.focusWidget() or window, Qt.Key.Key_3)
    assert tabs.currentIndex() == 2
    assert window.stack.currentIndex() == 2
    prompt = child(window, "promptEdit")
    prompt.setFocus()
    QTest.keyClick(prompt, Qt.Key.Key_1)
    assert tabs.currentIndex() == 2
    assert "1" in prompt.toPlainText()
    window.sidebar.model.path.setFocus()
    QTest.keyClick(window.sidebar.model.path, Qt.Key.Key_2)
    assert tabs.currentIndex() == 2


@pytest.mark.parametrize("name", ["light", "dark"])
def test_themes(qtbot, window, name):
    window.header.actions_by_name[f"theme_{name}"].trigger()
    assert window.state.theme == name
    picture = window.grab().toImage()
    spot = picture.pixelColor(picture.width() // 2, 2)
    assert spot.name() == theme.palette(name).card
    live = window.views["live"].tiles.mapTo(window, QPoint(0, -4))
    assert picture.pixelColor(live).name() == theme.palette(name).background


def test_palettes_can_be_read(qtbot):
    def luminance(colour: str) -> float:
        channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    for colours in (theme.LIGHT, theme.DARK):
        assert contrast(colours.text, colours.card) > 7
        assert contrast(colours.muted, colours.card) > 4.5
        assert contrast(colours.bad, colours.card) > 4.5
        assert len(set(colours.series)) == len(colours.series)


def test_every_command_has_an_action_and_no_key_is_given_twice(window):
    actions = window.header.actions_by_name
    for name in ("newSession", "openSession", "saveSessionAs", "exportRun", "quit", "loadModel", "unloadModel", "startRun"):
        assert name in actions
    keys = [key.toString() for action in actions.values() for key in action.shortcuts()]
    assert len(keys) == len(set(keys))
    assert actions["startRun"].shortcut().toString() == "F5"


def test_sessions_are_opened_and_refusals_are_said(qtbot, window, tmp_path):
    path = tmp_path / "one.tickscope"
    window.files.ask_open = lambda *_: path
    window.header.actions_by_name["openSession"].trigger()
    qtbot.waitUntil(lambda: ("open_session", path) in window.program.calls, timeout=5000)

    def refuse(_path):
        raise ValueError("That is no session; choose a .tickscope file.")

    window.program.open_session = refuse
    window.files.open_session(path)
    qtbot.waitUntil(lambda: child(window, "errorBanner").isVisible(), timeout=5000)
    window.files.save_session_as()
    assert "nothing to save" in child(window, "bannerText").text()


def test_an_export_without_a_run_says_what_to_do(window):
    window.files.export_run()
    assert "There is no run to export" in child(window, "bannerText").text()


@pytest.mark.parametrize(
    ("kind", "asked", "made"),
    [
        ("(*.json)", "run.json", "run.json"),
        ("Chrome", "run.json", "run.json"),
        ("Chrome", "Qwen2.5 · bf16", "Qwen2.5 · bf16.json.gz"),
        ("", "run.speedscope.json", "run.speedscope.json"),
    ],
)
def test_a_run_is_exported_in_the_chosen_format(qtbot, window, tmp_path, kind, asked, made):
    window.state.open_run(synthetic_run(blocks=2))

    def choose(_parent, _title, _suggested, filters):
        return tmp_path / asked, next(one for one in filters.split(";;") if kind in one) if kind else ""

    window.files.ask_save = choose
    window.files.export_run()
    qtbot.waitUntil(lambda: "was exported" in child(window, "logText").toPlainText(), timeout=20_000)
    assert [path.name for path in tmp_path.iterdir() if "json" in path.name] == [made]
    assert (tmp_path / made).stat().st_size > 100


def test_what_is_dropped_is_opened_or_chosen(qtbot, window, tmp_path):
    window.open_path(tmp_path)
    assert window.sidebar.model.spec() == str(tmp_path)
    window.open_path(tmp_path / "model.gguf")
    assert window.sidebar.model.source.currentData() == "gguf"
    window.open_path(tmp_path / "x.tickscope")
    qtbot.waitUntil(lambda: window.program.calls == [("open_session", tmp_path / "x.tickscope")], timeout=5000)
    window.open_path(tmp_path / "x.txt")
    assert "x.txt is no model" in child(window, "bannerText").text()


def test_a_saved_run_is_shown_with_a_way_back(qtbot, window):
    window.state.open_run(synthetic_run(blocks=2, run_id=7))
    strip = child(window, "savedStrip")
    assert strip.isVisible()
    assert child(window, "latencyChart").explanation == ""
    child(window, "backToLive").click()
    assert not strip.isVisible()
    assert child(window, "latencyChart").explanation != ""


def test_closing_while_running_asks_once(qtbot, open_window):
    window = open_window()
    small_workload(window, tokens=64, repeats=50)
    window.work.start()
    qtbot.waitUntil(lambda: state(window) == "running", timeout=20_000)
    asked = []
    window.ask = lambda *_: bool(asked.append(1))
    assert not window.close()
    assert window.isVisible()
    window.ask = lambda *_: asked.append(2) is None
    assert window.close()
    assert asked == [1, 2]
    assert window.program.calls[-1][0] == "close"
    assert not window.program.busy
    assert window.close()
    assert asked == [1, 2]


def test_layout_theme_and_model_survive_a_restart(qtbot, open_window):
    first = open_window()
    first.set_theme("light")
    first.show_view("layers")
    first.sidebar.model.choose_spec("arch:gpt2?n_layer=4")
    first.sidebar.model.dtype.setCurrentIndex(1)
    first.sidebar.model.trust.setChecked(True)
    first.resize(1200, 720)
    first.close()
    second = open_window()
    assert second.state.theme == "light"
    assert child(second, "viewTabs").currentIndex() == 1
    assert second.sidebar.model.spec() == "arch:gpt2?n_layer=4"
    assert second.sidebar.model.config().dtype == "bfloat16"
    assert not second.sidebar.model.config().trust_remote_code
    assert second.height() == 720


def test_settings_that_cannot_be_read_count_as_never_set(qtbot, settings_path, open_window):
    settings_path.write_text('[General]\ntheme=plaid\nview=x\nsetup="{"\ngeometry=1\n')
    window = open_window()
    assert window.state.theme == "system"
    assert child(window, "viewTabs").currentIndex() == 0


def test_closing_leaves_nothing_running(qtbot, open_window):
    threads = set(threading.enumerate())
    window = open_window()
    window.close()
    assert set(threading.enumerate()) <= threads
    assert [timer for timer in window.findChildren(QTimer) if timer.isActive()] == []


def test_create_imports_no_torch_and_closes(tmp_path):
    code = (
        "import sys; from gui.app import create; app, window = create([]); window.show();"
        "print([name for name in ('torch', 'transformers', 'matplotlib') if name in sys.modules]); window.close()"
    )
    environment = {
        **os.environ,
        "QT_QPA_PLATFORM": "offscreen",
        "XDG_CONFIG_HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path),
        "HOME": str(tmp_path),
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_command_line_forms_import_no_qt_and_no_display_is_one_sentence(tmp_path):
    code = (
        "import sys; from gui.__main__ import main; code = main(sys.argv[1:]);"
        "print(code, [name for name in sys.modules if name.startswith('PySide6')])"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment.pop("QT_QPA_PLATFORM", None)
    listing = subprocess.run(
        [sys.executable, "-c", code, "formats"], capture_output=True, text=True, env=environment, check=True, timeout=60
    )
    assert listing.stdout.splitlines()[-1] == "0 []"
    if sys.platform.startswith("linux"):
        window = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
        assert window.stdout.strip() == "2 []"
        assert window.stderr.strip() == entry.NO_DISPLAY


def test_warm_up_can_be_skipped_from_the_status_bar(qtbot):
    from gui.status_bar import StatusBar

    bar = StatusBar()
    qtbot.addWidget(bar)
    asked = []
    bar.skip_asked.connect(lambda: asked.append(True))
    bar.show_status(Status("running", (of_text("warm-up 2"),), None, 8.0, warming=True))
    assert bar.skip.objectName() == "skipWarmupButton"
    assert not bar.skip.isHidden()
    assert bar.left.text().endswith("left")
    bar.skip.click()
    assert asked == [True]
    bar.show_status(Status("running", (of_text("repeat 1"),), 0.5, 8.0))
    assert bar.skip.isHidden()
    bar.show_status(Status("cancelling", (of_text("Cancelling"),), warming=True))
    assert bar.skip.isHidden()


def test_a_signal_closes_the_window_without_a_question(window):
    stop = Stop()
    app.close_for(stop, window)
    assert not window.closed
    window.ask = lambda *_: pytest.fail("asked")
    stop.set()
    app.close_for(stop, window)
    assert window.closed
    app.close_for(stop, window)  # once is enough
    assert [call for call in window.program.calls if call[0] == "close"] == [("close", None)]
