"""Trials: sides take turns on real tiny models, are judged, kept, cancelled, and swapped where memory is short."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.analysis.select import tagged
from core.analysis.summary import summarize
from core.commands.ab_report import trial_json
from core.config import ABTestConfig, ModelConfig, PassConfig, RunConfig, TargetConfig, WorkloadConfig
from core.errors import Refusal
from core.execution import outcome
from core.execution.ab_test_state import reopened
from core.messages.reason import Reason, of_text
from core.models import catalog
from core.notices import Notice
from core.program import Program
from core.records.noise_floors import ASSUMED_FLOOR, NoiseFloors
from core.records.run import Unavailable
from profilers.trace import Tag
from tests.support.synthetic import synthetic_run
from tests.support.tiny import TINY_LLAMA

SHORT = WorkloadConfig(prompt_tokens=5, new_tokens=5, warmup=1, repeats=1)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    monkeypatch.setattr("core.execution.jobs.ab_test.NoiseFloors", lambda: NoiseFloors(tmp_path / "floors.json"))
    program = Program(tmp_path / "session.tickscope")
    yield program
    program.close()
    assert not {t.name for t in threading.enumerate() if t.name.startswith("tickscope")}


def side(*passes: str, workload: WorkloadConfig = SHORT, **model: Any) -> RunConfig:
    return RunConfig(ModelConfig(TINY_LLAMA, **model), tuple(PassConfig(p) for p in passes), TargetConfig("cpu", 1), workload)


def carried_out(program: Program, *sides: RunConfig, **caps: Any) -> list[Notice]:
    program.start_trial(ABTestConfig(sides, **caps))
    assert program.join(120)
    notices = []
    while not program.notices.empty():
        notices.append(program.notices.get())
    return notices


def test_sides_take_turns_and_become_runs_of_the_session(program: Program) -> None:
    notices = carried_out(program, side(), side("bfloat16"), most_rounds=6)
    assert [notice.kind for notice in notices if notice.kind != "session_changed"] == ["job_started", "job_finished"]
    state = program.trial
    assert state is not None
    assert state.order == (0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1)
    assert state.stopped
    assert len(state.verdicts) == 1
    assert program.store is not None
    stored = [program.store.read(head.id) for head in program.store.runs()]
    assert [run.facts.trial.side for run in stored if run.facts.trial] == [0, 1]
    assert [run.facts.trial.most_rounds for run in stored if run.facts.trial] == [6, 6]
    assert stored[0].facts.trial is not None
    assert stored[1].facts.trial is not None
    assert stored[0].facts.trial.id == stored[1].facts.trial.id
    assert [run.facts.status for run in stored] == ["finished", "finished"]
    assert [len(run.facts.passes) for run in stored] == [0, 1]
    assert [run.group and run.group.config for run in stored] == [state.config] * 2
    again = reopened(stored[::-1])
    assert again is not None
    assert (again.config, again.order, again.floors) == (state.config, state.order, state.floors)
    assert (again.verdicts, again.stopped) == (state.verdicts, state.stopped)
    assert reopened(stored[1:]) is None  # the other side was deleted
    older = [replace(run, group=replace(run.group, config=None)) for run in stored if run.group]
    assert [one.config.most_rounds for one in (again, reopened(older)) if one] == [6, 6]
    assert stored[0].name.endswith("(A)")
    assert stored[1].name.endswith("(B)")
    for run in stored:
        assert (~tagged(run.trace.requests, Tag.WARMUP)).sum() == 6
        assert run.facts.rss_peak_bytes is None  # both models were there
        assert any(item.what == "peak memory" for item in run.facts.unavailable)


def test_a_quality_that_was_cancelled_is_told_at_the_end() -> None:
    lost = Unavailable("quality", Reason("execution.cancelled-before-known"))
    run = synthetic_run(repeats=1, blocks=1)
    sides = (run, replace(run, facts=replace(run.facts, unavailable=(lost,))))
    said = [str(outcome.of_ab_test("finished", Reason("execution.decided"), runs)) for runs in (sides[:1], sides)]
    assert said[0] == "The A/B test is over: decided."
    assert said[1] == "The A/B test is over: decided; measuring what passes cost in quality was cancelled."


def test_every_fourth_round_is_traced_on_all_sides_and_no_other(program: Program) -> None:
    carried_out(program, side(), side("bfloat16"), most_rounds=8)
    state = program.trial
    assert state is not None
    for run in state.runs:
        moments, requests = run.trace.moments, run.trace.requests
        measured = np.flatnonzero(~tagged(requests, Tag.WARMUP))
        for number, request in enumerate(measured):
            traced = tagged(moments, Tag.TRACED)[moments["request"] == request]
            assert traced.all() if number % 4 == 3 else not traced.any()


def test_outputs_are_those_of_each_side_alone(program: Program) -> None:
    alone = []
    for config in (side(), side("layer_drop")):
        program.start(config)
        assert program.join(60)
        run = program.live()
        assert run is not None
        alone.append(run.trace.outputs[-1].token_ids)
    carried_out(program, side(), side("layer_drop"), most_rounds=2)
    state = program.trial
    assert state is not None
    assert [{output.token_ids for output in run.trace.outputs} for run in state.runs] == [{alone[0]}, {alone[1]}]


def test_an_a_a_trial_finds_a_floor_and_the_next_trial_knows_it(program: Program) -> None:
    carried_out(program, side(), side(), most_rounds=8)
    state = program.trial
    assert state is not None
    assert state.config.same
    assert state.floors["tpot_ns"] > 0
    carried_out(program, side(), side("bfloat16"), most_rounds=2)
    later = program.trial
    assert later is not None
    counting = {
        metric: floor for metric, floor in state.floors.items() if floor >= ASSUMED_FLOOR
    }  # one quiet test proves little
    assert later.floors == counting
    assert later.runs[0].facts.trial is not None
    assert dict(later.runs[0].facts.trial.floors) == counting


@pytest.mark.parametrize(("caps", "rounds"), [({"most_rounds": 7}, 7), ({"most_seconds": 1e-6}, 5), ({"most_rounds": 5}, 5)])
def test_rounds_that_are_traced_after_an_early_end_keep_to_the_caps(
    program: Program, monkeypatch: pytest.MonkeyPatch, caps: dict[str, Any], rounds: int
) -> None:
    """A cap of 14 rounds was told to have taken 15: what is traced after the end was outside of it."""
    monkeypatch.setattr(
        "core.execution.ab_test.ABTest._why_stop", lambda self, rounds: of_text("decided") if rounds == 5 else None
    )
    carried_out(program, side(), side("bfloat16"), **caps)
    state = program.trial
    assert state is not None
    assert trial_json(state)["trial"]["rounds"] == len(state.order) / 2 == rounds
    asked = ABTestConfig((side(), side("bfloat16")), **caps)
    assert trial_json(state)["trial"]["most_rounds"] == asked.most_rounds
    assert [run.facts.trial.most_rounds for run in state.runs if run.facts.trial] == [asked.most_rounds] * 2


def test_sides_settle_in_turns_and_an_early_end_is_traced_some_more(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.execution.ab_test.SETTLING_S", 0.0)
    monkeypatch.setattr("core.execution.ab_test.ENOUGH_TRACED", 5)
    monkeypatch.setattr("core.analysis.stopping.WARMUP_LEAST_S", 0.0)
    free = replace(SHORT, warmup=None)
    monkeypatch.setattr(
        "core.execution.ab_test.ABTest._why_stop", lambda self, rounds: of_text("decided") if rounds == 5 else None
    )
    carried_out(program, side(workload=free), side("bfloat16", workload=free))
    state = program.trial
    assert state is not None
    assert str(state.stopped) == "decided"
    assert len(state.order) == 2 * (5 + 4)  # one of five rounds was traced; four more make five
    for run in state.runs:
        moments, requests = run.trace.moments, run.trace.requests
        warm, traced = tagged(requests, Tag.WARMUP), tagged(moments, Tag.TRACED)
        measured = np.flatnonzero(~warm)
        assert [bool(traced[moments["request"] == request].any()) for request in measured] == [False] * 3 + [True, False] + [
            True
        ] * 4
        settling = np.flatnonzero(warm)[-2:]
        assert not traced[np.isin(moments["request"], settling)].any()
        assert run.facts.rss_peak_bytes is None
        assert summarize(run, intervals=False)["memory"]["rss_peak_bytes"] is None


def test_a_cancelled_trial_keeps_what_was_measured(program: Program) -> None:
    endless = replace(SHORT, new_tokens=200)
    program.start_trial(ABTestConfig((side(workload=endless), side("bfloat16", workload=endless)), most_rounds=1000))
    waiting = threading.Event()
    while program.trial is None or len(program.trial.order) < 3:
        assert program.busy
        waiting.wait(0.02)
    program.cancel()
    assert program.join(30)
    state = program.trial
    assert state is not None
    assert [run.facts.status for run in state.runs] == ["cancelled", "cancelled"]
    assert program.store is not None
    assert [head.status for head in program.store.runs()] == ["cancelled", "cancelled"]
    assert program.status.state == "ready"
    assert len(state.runs[0].trace.moments["kind"]) > 200


def test_where_both_do_not_fit_the_sides_are_swapped_outside_the_clock(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    real_load, real_fit = catalog.load, catalog.fit

    def fit(facts: Any, dtype: str, available: int) -> Any:
        fitting = real_fit(facts, dtype, available)
        together = len(loads) == 1  # the second model beside the first
        return replace(fitting, fits=False, sentence="It does not fit.") if together else fitting

    def load(config: Any, device: str, progress: Any) -> Any:
        loads.append(config.spec)
        return real_load(config, device, progress)

    def forgetting(*args: Any) -> Any:
        found = fit(*args)
        if not found.fits:
            loads.append("refused")
        return found

    monkeypatch.setattr(catalog, "load", load)
    monkeypatch.setattr(catalog, "fit", forgetting)
    carried_out(program, side(), side("bfloat16"), most_rounds=2)
    state = program.trial
    assert state is not None
    assert [run.facts.status for run in state.runs] == ["finished", "finished"]
    assert state.order == (0, 1, 1, 0)
    assert loads.count(TINY_LLAMA) > 3
    first = state.runs[0].trace.requests
    assert tagged(first, Tag.WARMUP).sum() > 1  # what was loaded anew was warmed up anew
    assert (~tagged(first, Tag.WARMUP)).sum() == 2


def test_a_side_that_cannot_be_is_refused_and_the_program_lives_on(program: Program) -> None:
    notices = carried_out(program, side(), side("compile_decode", "nonsense"))
    assert notices[-1].kind == "refused"
    program.start(side())
    assert program.join(60)
    run = program.live()
    assert run is not None
    assert run.facts.status == "finished"


def test_sides_must_share_a_workload() -> None:
    with pytest.raises(ValueError, match="same workload"):
        ABTestConfig((side(), side(workload=replace(SHORT, new_tokens=9))))
    with pytest.raises(ValueError, match="two to eight"):
        ABTestConfig((side(),))
    assert issubclass(Refusal, ValueError)
