"""``tickscope ab``: its switches, its running line, its report and JSON, and one real trial of a tiny model."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core import program as program_module
from core.analysis.verdict import floors_of, judge
from core.commands import ab
from core.commands.ab_report import standing, text, trial_json
from core.commands.arguments import Parser
from core.commands.configure import parse_passes, trial_config
from core.config import ABTestConfig, ModelConfig, RunConfig, WorkloadConfig
from core.errors import Refusal
from core.execution.ab_test_state import ABTestState
from core.messages.reason import of_text
from core.notices import Notice, Status
from core.pass_api.base import PassReport
from core.pass_api.options import by_name
from core.session.store import SessionStore
from tests.cli.test_cli_run import ROOT, TINY, WITHOUT_QT
from tests.support import promised_json
from tests.support.shape import check_run_json
from tests.support.trials import synthetic_trial

Capture = pytest.CaptureFixture[str]


def asked(*argv: str, model: str = TINY) -> ABTestConfig:
    """The trial that a command line asks for."""
    parser = Parser(prog="tickscope ab", allow_abbrev=False)
    ab.arguments(parser)
    return trial_config(parser.parse_args(["--model", model, *argv]))


def state(*ratios: float, rounds: int = 20, floors: dict[str, float] | None = None, same: bool = False) -> ABTestState:
    """A trial that is over."""
    runs = synthetic_trial(ratios, rounds=rounds, layer_ratios=(1, 1, 0.5, 1), floors=floors)
    configs = tuple(run.config if not same else runs[0].config for run in runs)
    part = runs[0].facts.trial
    assert part is not None
    return ABTestState(ABTestConfig(configs), runs, part.order, judge(runs, floors or {}), floors or {}, "decided")


# -- switches -------------------------------------------------------------------------------------------------------------


def test_a_pass_for_b_and_none_for_a() -> None:
    config = asked("--b", "bfloat16")
    assert [[one.id for one in side.passes] for side in config.sides] == [[], ["bfloat16"]]
    assert config.sides[0].workload.new_tokens == 16
    assert config.sides[0].workload.repeats is None
    assert (config.most_rounds, config.most_seconds) == (60, 300.0)
    assert not config.same


def test_sides_have_their_own_passes_weights_and_threads_and_share_the_rest() -> None:
    config = asked(
        *("--a", "bfloat16", "--b", "layer_drop:layers=0", "bfloat16", "--c", "--dtype-c", "bfloat16"),
        *("--threads", "2", "--threads-b", "1", "--new-tokens", "4", "--most-rounds", "8", "--most-seconds", "5"),
    )
    a, b, c = config.sides
    assert [[one.id for one in side.passes] for side in (a, b, c)] == [["bfloat16"], ["layer_drop", "bfloat16"], []]
    assert b.passes[0].options.layers == "0"
    assert [side.target.threads for side in (a, b, c)] == [2, 1, 2]
    assert [side.model.dtype for side in (a, b, c)] == ["float32", "float32", "bfloat16"]
    assert a.workload == c.workload == WorkloadConfig(new_tokens=4)
    assert (config.most_rounds, config.most_seconds) == (8, 5.0)


def test_a_switch_may_come_again() -> None:
    assert [one.id for one in asked("--b", "bfloat16", "--b", "layer_drop").sides[1].passes] == ["bfloat16", "layer_drop"]


def test_a_against_itself_has_the_same_side_twice() -> None:
    config = asked("--aa", "--a", "bfloat16")
    assert config.same
    assert config.sides[0] == config.sides[1]
    assert [one.id for one in config.sides[1].passes] == ["bfloat16"]


@pytest.mark.parametrize(
    ("texts", "ids", "options"),
    [
        ((), [], {}),
        (("none",), [], {}),
        (("bfloat16,layer_drop",), ["bfloat16", "layer_drop"], {}),
        (("bfloat16,layer_drop:layers=3,5",), ["bfloat16", "layer_drop"], {"layers": "3,5"}),
        (("bfloat16", "layer_drop:layers=1"), ["bfloat16", "layer_drop"], {"layers": "1"}),
    ],
)
def test_passes_of_a_side(texts: tuple[str, ...], ids: list[str], options: dict[str, str]) -> None:
    found = parse_passes(texts, "--b")
    assert [one.id for one in found] == ids
    assert options.items() <= (by_name(found[-1].options) if found else {}).items()


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        ((), "--b with its passes"),
        (("--aa", "--b", "bfloat16"), "--aa runs side A against itself"),
        (("--c", "bfloat16"), "--c is given without the sides before it"),
        (("--b", "none", "bfloat16"), "--b names none beside other passes"),
        (("--b", "nonsense"), "nonsense"),
        (("--b", "bfloat16,bfloat16"), "named twice"),
        (("--b", "bfloat16,"), "names no pass"),
        (("--b", "layer_drop:depth=1"), "depth"),
        (("--b", "--threads-b", "0"), "0 threads"),
        (("--b", "--most-rounds", "1"), "at least two rounds"),
        (("--b", "--new-tokens", "0"), "new tokens is 0"),
        (("--b", "--profiler", "nonsense"), "nonsense"),
        (("--b", "--target", "abacus"), "abacus"),
        (("--b", "--dtype-b", "float7"), "float7"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(argv: tuple[str, ...], part: str) -> None:
    with pytest.raises(Refusal, match=re.escape(part)):
        asked(*argv)


# -- the running line and the report --------------------------------------------------------------------------------------


def test_the_running_line_tells_round_ratio_and_word() -> None:
    running = replace(state(1.0, 0.8, 1.2), stopped=None)
    said = standing(Status("running", (of_text("round 20 of at most 60"), of_text("A")), 0.3), running)
    assert said.text.startswith("round 20 of at most 60: B/A 0.8")
    assert "faster · C/A 1." in said.text
    assert said.text.endswith("slower")
    assert said.fraction == 0.3


@pytest.mark.parametrize(("status", "trial"), [("loading", state(1.0, 0.8, rounds=2)), ("running", None)])
def test_before_the_first_verdict_the_program_speaks(status: str, trial: ABTestState | None) -> None:
    assert standing(Status(status, (of_text("warm-up of A"),)), trial).text == "warm-up of A"


def test_json_holds_sides_verdicts_layers_and_floors() -> None:
    found = trial_json(state(1.0, 0.8, 1.0, floors={"tpot_ns": 0.01}))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found) == {"schema", "trial", "sides", "verdicts", "layers", "kernels", "floors", "stopped"}
    assert found["trial"]["id"] == "trial-1"
    assert found["trial"]["rounds"] == 20
    assert found["trial"]["order"][:6] == [0, 1, 2, 2, 1, 0]
    for side in found["sides"]:
        check_run_json(side)
    assert [(one["side"], one["name"]) for one in found["verdicts"]] == [(1, "B"), (2, "C")]
    assert found["verdicts"][0]["metrics"]["tpot_ns"]["word"] == "faster"
    assert {row["side"] for row in found["layers"]} == {1, 2}
    assert found["floors"] == {"tpot_ns": 0.01}


def test_the_report_names_the_verdict_its_reason_and_the_layers() -> None:
    said = text(trial_json(state(1.0, 0.8, floors={"tpot_ns": 0.01})))
    for part in (
        "A  A (finished)",
        "B/A TPOT",
        "faster",
        "1.0 %",
        "below 1 ± 1 %",
        "model.layers.0.mlp",
        "Ended after 20 rounds",
    ):
        assert part in said
    assert "8 of 8 told apart" in said
    assert "None" not in said


def test_a_trial_of_equals_reports_its_floor_and_no_winner() -> None:
    runs = synthetic_trial((1.0, 1.0), rounds=24)
    equal = replace(state(1.0, 1.0, rounds=24, same=True), runs=runs, floors=floors_of(runs))
    said = text(trial_json(equal))
    assert "Noise floor of this machine" in said
    assert "± 0." in said
    assert "faster" not in said
    assert "slower" not in said
    none = text(trial_json(replace(equal, floors={})))
    assert "No noise floor was found" in none


def test_a_trial_cut_short_before_anything_was_measured_says_what_there_is() -> None:
    said = text(trial_json(replace(state(1.0, 0.5, rounds=1), stopped=None)))
    assert "Ended after 1 round: cut short." in said
    assert "The first look is after" in said
    assert "can't tell" not in said  # nobody has looked yet


def test_kernels_are_told_apart_only_where_all_sides_were_named() -> None:
    def with_kernels(trial: ABTestState, *kernels: tuple[str, ...]) -> list[dict[str, Any]]:
        reports = [(PassReport("x", "x", {}, 1, of_text(""), names),) if names else () for names in kernels]
        runs = [replace(run, facts=replace(run.facts, passes=one)) for run, one in zip(trial.runs, reports, strict=True)]
        return list(trial_json(replace(trial, runs=tuple(runs)))["kernels"])

    both = with_kernels(state(1.0, 0.9), ("aten::mm", "shared"), ("onednn::linear", "shared"))
    assert [one["only_here"] for one in both] == [["aten::mm"], ["onednn::linear"]]
    one_sided = with_kernels(state(1.0, 0.9), (), ("onednn::linear",))
    assert [one["only_here"] for one in one_sided] == [[], []]
    assert one_sided[1]["names"] == ["onednn::linear"]


# -- driving a program ----------------------------------------------------------------------------------------------------


class FakeProgram:
    """A program whose trial is over at the second look."""

    made: list[FakeProgram]
    ending = Notice("job_finished", "The A/B test is over: decided.", job="ab_test")
    result: ABTestState | None = None

    def __init__(self, session: Path | None = None, *, keep_session: bool = True, executor: str = "local") -> None:
        self.notices: queue.SimpleQueue[Notice] = queue.SimpleQueue()
        self.status = Status("running", (of_text("round 1 of at most 60 · A"),))
        self.trial: ABTestState | None = None
        self.asked: ABTestConfig | None = None
        self.kept = keep_session
        self.closed = False
        self.store = None
        self.looks = 0
        self.made.append(self)

    def start_trial(self, config: ABTestConfig) -> None:
        self.asked = config

    def join(self, timeout_s: float | None = None) -> bool:
        self.looks += 1
        if self.looks < 2:
            return False
        self.trial = self.result
        self.notices.put(self.ending)
        return True

    def cancel(self) -> None:
        raise AssertionError("nobody cancelled")

    def close(self, limit_s: float | None = None) -> None:
        self.closed = True


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeProgram]:
    class Fresh(FakeProgram):
        pass

    Fresh.made = []
    monkeypatch.setattr(program_module, "Program", Fresh)
    return Fresh


@pytest.mark.parametrize(("kind", "status"), [("job_finished", 0), ("job_cancelled", 130), ("job_failed", 1), ("refused", 2)])
def test_notices_of_a_trial_decide_the_exit_status(fake: type[FakeProgram], kind: str, status: int, capsys: Capture) -> None:
    fake.ending, fake.result = Notice(kind, f"About {kind}.", job="ab_test"), state(1.0, 0.8)
    config = ABTestConfig((RunConfig(ModelConfig(TINY)),) * 2)
    assert ab.carry_out(config, None, threading.Event()) == (status, fake.result, "")
    (program,) = fake.made
    assert (program.asked, program.kept, program.closed) == (config, False, True)
    assert f"About {kind}." in capsys.readouterr().err


def test_report_on_stdout_and_json_beside_it(fake: type[FakeProgram], capsys: Capture, tmp_path: Path) -> None:
    fake.result = state(1.0, 0.8)
    parser = Parser(prog="tickscope ab", allow_abbrev=False)
    ab.arguments(parser)
    out = tmp_path / "trial.json"
    store = SessionStore.open(tmp_path / "s.tickscope")  # nothing but the file itself says that a run is kept
    fake.result = replace(fake.result, runs=tuple(replace(run, id=store.add(run)) for run in fake.result.runs))
    store.close()
    argv = ["--model", TINY, "--b", "bfloat16"]
    assert ab.ab(parser.parse_args([*argv, "--json", str(out), "--out", str(tmp_path / "s.tickscope")])) == 0
    said = capsys.readouterr()
    assert "B/A TPOT" in said.out
    assert "as runs 1, 2." in said.err
    assert json.loads(out.read_text(encoding="utf-8"))["stopped"] == "decided"
    assert ab.ab(parser.parse_args([*argv, "--json"])) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == 1


# -- the real thing -------------------------------------------------------------------------------------------------------


def test_a_real_trial_of_a_tiny_model(tmp_path: Path) -> None:
    """Dropping one of two blocks is plain in a few rounds; both sides are kept as runs of one trial."""
    out = tmp_path / "trial.tickscope"
    argv = ["ab", "--model", TINY, "--b", "layer_drop:layers=1", "--prompt-tokens", "8", "--new-tokens", "8", "--warmup", "1"]
    argv += ["--threads", "1", "--most-rounds", "16", "--out", str(out), "--json"]
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_QT, *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "QT []"
    result = json.loads(done.stdout)
    promised_json.check("JSON of `ab`", [result])
    promised_json.check("JSON of a run", result["sides"])
    assert result["trial"]["rounds"] <= 16
    for side in result["sides"]:
        check_run_json(side)
        assert side["status"] == "finished"
    assert result["trial"]["rounds"] >= 2
    assert result["trial"]["order"][:4] == [0, 1, 1, 0]
    (verdict,) = result["verdicts"]
    assert verdict["metrics"]["tpot_ns"]["n"] >= 2
    assert verdict["metrics"]["tpot_ns"]["ratio"] > 0
    assert result["stopped"]
    assert "as runs 1, 2." in done.stderr
