"""A run's setup in the sidebar again: from a saved run, from the last start, and never with consent that a file gave."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.config import ModelConfig, PassConfig, RunConfig, TargetConfig, WorkloadConfig
from core.session.store import SessionStore
from gui import app
from gui.settings import Settings
from tests.support.gui_window import Facts, child, close_window
from tests.support.synthetic import synthetic_run
from tests.support.synthetic_operators import imported_run

SETUP = RunConfig(
    ModelConfig("arch:gpt2?n_layer=4", "bfloat16", trust_remote_code=True, allow_pickle=True, force=True),
    (PassConfig("layer_drop", {"share": "0.25"}), PassConfig("of_another_version")),
    TargetConfig("cpu", 1),
    WorkloadConfig("Again", new_tokens=5, batch=2, repeats=7, warmup=3),
    ("layer_clock",),
)


def run_of(config: RunConfig):
    return replace(synthetic_run(repeats=1, warmup=0, new_tokens=2, blocks=1), config=config, name="theirs")


def test_a_saved_run_fills_the_sidebar(qtbot, open_window):
    window = open_window()
    window.state.open_run(run_of(SETUP))
    child(window, "useSetup").click()
    taken = window.sidebar.setup()
    assert taken.model == ModelConfig("arch:gpt2?n_layer=4", "bfloat16")
    assert taken.workload == SETUP.workload
    assert taken.target == SETUP.target
    assert taken.profilers == ("layer_clock",)
    assert [choice.id for choice in taken.passes] == ["layer_drop"]
    assert "of_another_version" in window.banner.text.text()


def test_consent_never_comes_from_a_run(qtbot, open_window):
    window = open_window()
    window.use_setup(run_of(SETUP))
    assert not window.sidebar.model.trust.isChecked()
    assert not window.sidebar.model.pickle.isChecked()


def test_an_imported_trace_has_no_setup(qtbot, open_window):
    window = open_window()
    before = window.sidebar.setup()
    window.state.open_run(imported_run())
    child(window, "useSetup").click()
    assert window.sidebar.setup() == before
    assert "does not say what was asked" in window.banner.text.text()


@pytest.mark.parametrize("answer", [True, False])
def test_code_is_asked_for_by_its_path(qtbot, open_window, answer):
    window, asked = open_window(), []
    before = window.sidebar.setup()
    window.ask = lambda _parent, _title, question: bool(asked.append(question)) or answer
    window.use_setup(run_of(replace(SETUP, model=ModelConfig("py:/tmp/theirs.py:make", trust_remote_code=True))))
    assert "/tmp/theirs.py:make" in asked[0]
    assert window.sidebar.model.trust.isChecked() is answer
    if not answer:
        assert window.sidebar.setup() == before


def test_the_sidebar_says_after_a_restart_what_it_said(qtbot, open_window):
    window = open_window()
    window.sidebar.show_config(SETUP)
    window.sidebar.model.trust.setChecked(True)
    said = window.sidebar.setup()
    close_window(window)
    again = open_window().sidebar
    assert again.setup() == replace(said, model=replace(said.model, trust_remote_code=False, allow_pickle=False))
    assert again.workload.prompt.toPlainText() == "Again"


def test_a_session_that_is_named_shows_its_newest_run(qtbot, tmp_path):
    path = tmp_path / "theirs.tickscope"
    store = SessionStore.open(path, create=True)
    for name in ("first", "newest"):
        run = replace(synthetic_run(repeats=1, warmup=0, new_tokens=2, blocks=1), name=name)
        number = store.begin(run)
        store.update(number, run.facts)
    store.close()
    _, window = app.create([str(path)], settings=Settings(tmp_path / "settings.ini"), knowledge=Facts())
    try:
        qtbot.waitUntil(lambda: window.state.current_run is not None, timeout=10_000)
        assert window.state.current_run.name == "newest"
        assert not window.saved.isHidden()
    finally:
        close_window(window)


def test_sessions_that_were_open_are_offered_again(qtbot, tmp_path):
    paths = [tmp_path / "one.tickscope", tmp_path / "two & more.tickscope"]
    for path in paths:
        SessionStore.open(path, create=True).close()
        _, window = app.create([str(path)], settings=Settings(tmp_path / "settings.ini"), knowledge=Facts())
        close_window(window)
    paths[0].unlink()
    _, window = app.create([], settings=Settings(tmp_path / "settings.ini"), knowledge=Facts())
    try:
        window.recent.menu.aboutToShow.emit()
        offered = [(action.text(), action.isEnabled()) for action in window.recent.menu.actions()]
        assert offered == [("two && more.tickscope", True), ("one.tickscope", False)]
        window.recent.menu.actions()[0].trigger()
        qtbot.waitUntil(lambda: window.program.store is not None, timeout=10_000)
        assert window.program.store.path == paths[1]
    finally:
        close_window(window)
