"""Where runs are carried out, as the window shows, remembers and offers it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.config import ABTestConfig, ModelConfig, PassConfig, RunConfig, TargetConfig, WorkloadConfig
from core.execution.tried import is_untried, note_tried
from core.program import Program
from gui import app
from gui.crash_offer import CRASHED
from gui.run_controller import FIRST_TRY
from gui.settings import Settings
from tests.core.execution.test_child import asked
from tests.support.gui_window import Facts, child, close_window, make_window


@pytest.fixture
def open_window(qtbot: Any, tmp_path: Path) -> Iterator[Any]:
    opened = []

    def open_it() -> Any:
        window = make_window(tmp_path / "settings.ini", moment_s=0.001)
        opened.append(window)
        return window

    yield open_it
    for window in opened:
        if not window.closed:
            close_window(window)


def test_the_choice_is_shown_used_and_remembered(qtbot: Any, open_window: Any) -> None:
    window = open_window()
    combo = child(window, "executorCombo")
    assert combo.currentText() == "In this process"
    assert "own process" not in window.sidebar.target.summary()
    combo.setCurrentIndex(1)
    assert "own process" in window.sidebar.target.summary()
    window.work.start()
    assert window.program.executor == "child"
    qtbot.waitUntil(lambda: not window.program.busy, timeout=20_000)
    close_window(window)
    assert child(open_window(), "executorCombo").currentText() == "In its own process"


def test_after_a_crash_a_process_of_its_own_is_offered(qtbot: Any, tmp_path: Path, open_window: Any) -> None:
    crashed = Settings(tmp_path / "settings.ini")
    crashed.under_way = True
    crashed.save()
    window = open_window()
    assert window.banner.text.text() == CRASHED
    assert child(window, "bannerOffer").isVisible()
    child(window, "bannerOffer").click()
    assert window.sidebar.target.where() == "child"
    assert not window.banner.isVisible()
    close_window(window)
    assert not open_window().banner.isVisible()


def test_a_run_is_remembered_as_long_as_it_goes_on(qtbot: Any, tmp_path: Path, open_window: Any) -> None:
    window = open_window()
    seen: list[bool] = []
    window.bridge.notice.connect(lambda _: seen.append(Settings(tmp_path / "settings.ini").under_way))
    window.work.start()
    qtbot.waitUntil(lambda: not window.program.busy and window.program.notices.empty(), timeout=20_000)
    qtbot.waitUntil(lambda: not window.settings.under_way, timeout=5_000)
    assert True in seen


def test_a_strangers_code_is_pointed_to_it(open_window: Any) -> None:
    window = open_window()
    advice = child(window, "executorAdvice")
    window.sidebar.fold([])
    assert not advice.isVisible()
    window.sidebar.model.trust.setChecked(True)
    assert advice.isVisible()
    child(window, "executorCombo").setCurrentIndex(1)
    assert not advice.isVisible()


def test_the_window_shows_a_run_of_another_process_and_outlives_its_crash(qtbot: Any, tmp_path: Path) -> None:
    program = Program(tmp_path / "it.tickscope")
    _, window = app.create([], program=program, settings=Settings(tmp_path / "settings.ini"), knowledge=Facts())
    window.show()
    window.build_views()
    try:
        program.use("child")
        program.start(asked("segfault", repeats=100_000))
        window.bridge.expect()
        qtbot.waitUntil(lambda: "SIGSEGV" in window.banner.text.text(), timeout=60_000)
        run = window.state.current_run
        assert run is not None
        assert run.facts.status == "failed"
        assert len(run.trace.moments["kind"]) > 0
        tiny = "arch:llama?hidden_size=64&intermediate_size=128&num_hidden_layers=2&num_attention_heads=4&vocab_size=256"
        workload = WorkloadConfig(prompt_tokens=8, new_tokens=32, repeats=2, warmup=1)
        program.start(RunConfig(ModelConfig(tiny), (), TargetConfig("cpu", 1), workload))
        window.bridge.expect()
        qtbot.waitUntil(lambda: not program.busy and program.notices.empty(), timeout=60_000)
        shown = program.live()
        assert shown is not None
        assert (shown.facts.status, shown.facts.executor) == ("finished", "child")
    finally:
        close_window(window)
        program.close()


def test_what_may_abort_gets_a_process_of_its_own_until_it_has_been_tried(qtbot: Any, open_window: Any) -> None:
    """Compilers and engines may end the process that tries them first; after that the choice in the sidebar holds."""
    window = open_window()
    said: list[str] = []
    window.bridge.notice.connect(lambda notice: said.append(notice.text))
    plain = window.sidebar.run_config()
    compiled = replace(plain, passes=(PassConfig("compile_decode"),))
    assert not is_untried([plain])
    for config, where in ((plain, "local"), (compiled, "child")):
        window.sidebar.run_config = lambda config=config: config
        window.work.start()
        assert window.program.executor == where
        assert (FIRST_TRY in said) == (where == "child")
        qtbot.waitUntil(lambda: not window.program.busy, timeout=20_000)
    other = replace(plain, passes=(PassConfig("compile_decode", {"mode": "max-autotune"}),))
    window.work.start_trial(ABTestConfig((plain, compiled)))
    assert window.program.executor == "child"
    note_tried(compiled)
    assert (is_untried([compiled]), is_untried([other]), is_untried([plain, other])) == (False, True, True)
    window.work.start()
    assert window.program.executor == "local"
    qtbot.waitUntil(lambda: not window.program.busy, timeout=20_000)


def test_the_status_bar_tells_the_memory_of_the_process_that_the_model_is_in(open_window: Any) -> None:
    bar = open_window().status_bar
    own = bar.memory.text()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        bar.refresh_machine(other.pid)
        assert bar.memory.text() != own
        assert "the model is in" in bar.memory.toolTip()
        gone = other.pid
        other.communicate(b"\n")
    bar.refresh_machine(gone)
    bar.refresh_machine()
    assert "this process" in bar.memory.toolTip()
