"""Warm-up in a real run: limited in seconds, skipped on demand, with numbers that say that they are provisional."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.analysis.select import tagged, warming_up
from core.analysis.summary import summarize
from core.config import ABTestConfig, ModelConfig, PassConfig, RunConfig, TargetConfig, WorkloadConfig
from core.execution import warm_up
from core.messages.reason import of_text
from core.notices import Status
from core.program import Program
from core.records.noise_floors import NoiseFloors
from profilers.trace import Tag
from tests.support.synthetic import synthetic_run
from tests.support.tiny import TINY_LLAMA

LONG = WorkloadConfig(prompt_tokens=5, new_tokens=400, warmup=None, repeats=1)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    monkeypatch.setattr("core.execution.jobs.ab_test.NoiseFloors", lambda: NoiseFloors(tmp_path / "floors.json"))
    program = Program(keep_session=False)
    yield program
    program.close()


def config(workload: WorkloadConfig = LONG, *passes: str) -> RunConfig:
    return RunConfig(ModelConfig(TINY_LLAMA), tuple(map(PassConfig, passes)), TargetConfig("cpu", 1), workload)


def test_warm_up_ends_in_the_middle_of_a_request_that_takes_too_long(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_up, "WARMUP_S", 0.0)
    program.start(config())
    assert program.join(60)
    run = program.live()
    assert run is not None
    assert run.facts.status == "finished"
    assert str(run.facts.warmup_done) == "cap of 0 s reached"
    moments, requests = run.trace.moments, run.trace.requests
    warm = tagged(moments, Tag.WARMUP)
    assert warm.sum() == warm_up.LEAST_MOMENTS  # and the one that was about to begin was not made
    assert {bool(clean) for clean in tagged(moments, Tag.CLEAN)[warm]} == {True, False}
    assert requests["output_tokens"].tolist()[1] == 400
    assert [len(output.token_ids) for output in run.trace.outputs] == [400]


def test_warm_up_can_be_skipped(program: Program) -> None:
    asked = replace(LONG, warmup=1000)
    program.start(config(asked))
    waiting = threading.Event()
    while not (program.status.warming and program.live() is not None and len(program.live().trace.moments["tags"]) > 5):
        assert program.busy
        waiting.wait(0.005)
    program.skip_warm_up()
    assert program.join(60)
    run = program.live()
    assert run is not None
    assert str(run.facts.warmup_done) == "skipped"
    assert tagged(run.trace.requests, Tag.WARMUP).sum() < 1000
    assert (~tagged(run.trace.requests, Tag.WARMUP)).sum() == 1


def test_both_sides_of_a_trial_are_skipped_at_once(program: Program) -> None:
    asked = replace(LONG, new_tokens=20, warmup=1000)
    program.start_trial(ABTestConfig((config(asked), config(asked, "bfloat16")), most_rounds=2))
    waiting = threading.Event()
    while not program.status.warming:
        assert program.busy
        waiting.wait(0.005)
    assert program.status.text.startswith("warm-up of A")
    program.skip_warm_up()
    assert program.join(60)
    state = program.trial
    assert state is not None
    assert [str(run.facts.warmup_done) for run in state.runs] == ["skipped", "skipped"]
    assert [run.facts.status for run in state.runs] == ["finished", "finished"]


def test_nothing_to_skip_is_no_trouble(program: Program) -> None:
    program.skip_warm_up()
    assert program.status == Status()


def test_numbers_of_warm_up_are_provisional_and_those_after_it_are_not() -> None:
    run = synthetic_run(repeats=3, warmup=3)
    assert summarize(run)["provisional"] is False
    tags = run.trace.moments["tags"]
    early = tags & int(Tag.WARMUP) != 0
    trace = replace(
        run.trace,
        moments={name: column[early] for name, column in run.trace.moments.items()},
        requests={name: column[:3] for name, column in run.trace.requests.items()},
    )
    young = replace(run, trace=trace, facts=replace(run.facts, status="running", warmup_done=None))
    summary = summarize(young)
    assert summary["provisional"] is True
    tpot = summary["metrics"]["tpot_ns"]
    assert tpot["provisional"] is True
    assert (tpot["n"], tpot["interval"]) == (3, None)  # only the first token of the first request is cold
    assert tpot["median"] == pytest.approx(summarize(run)["metrics"]["tpot_ns"]["median"], rel=0.2)
    assert warming_up(replace(young, facts=replace(young.facts, warmup_done=of_text("skipped")))) is None
    assert np.array_equal(young.trace.moments["tags"], tags[early])  # what is stored stays as it was


def test_the_very_first_request_gives_a_number_until_there_is_another() -> None:
    run = synthetic_run(repeats=1, warmup=1)
    first = run.trace.moments["request"] == 0
    trace = replace(
        run.trace,
        moments={name: column[first] for name, column in run.trace.moments.items()},
        requests={name: column[:1] for name, column in run.trace.requests.items()},
    )
    young = replace(run, trace=trace, facts=replace(run.facts, status="running", warmup_done=None))
    assert summarize(young, intervals=False)["metrics"]["tpot_ns"]["n"] == 1
