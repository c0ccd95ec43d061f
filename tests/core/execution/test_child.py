"""A run in a process of its own: the same figures, and whatever happens there costs the run at worst."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from core.clock.gate import Gate
from core.config import ABTestConfig, ModelConfig, PassConfig, QualityConfig, RunConfig, TargetConfig, WorkloadConfig
from core.execution.carriers import child
from core.execution.carriers.child_process import status_message
from core.execution.carriers.worker_process import ERROR_LINES, LINE_BYTES, WorkerProcess
from core.execution.link import Link, LinkError
from core.messages.reason import Reason
from core.notices import Status
from core.program import Program
from core.records.run import Run
from core.session.store import SessionStore
from tests.support.folders import ROOT
from tests.support.tiny import TINY_LLAMA

MODELS = ROOT / "tests" / "support" / "child_models.py"
NOTHING = threading.Event()


def asked(model: str, repeats: int | None = 40, passes: tuple[PassConfig, ...] = ()) -> RunConfig:
    workload = WorkloadConfig(repeats=repeats, warmup=1)
    spec = f"py:{MODELS}:{model}"
    return RunConfig(ModelConfig(spec, trust_remote_code=True), passes, TargetConfig("cpu", 1), workload)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    program = Program(tmp_path / "it.tickscope", executor="child")
    yield program
    assert program.close()


def notices(program: Program) -> list[tuple[str, str]]:
    found = []
    while not program.notices.empty():
        notice = program.notices.get_nowait()
        found.append((notice.kind, notice.text))
    return found


def kept(program: Program) -> Run:
    store = program.store
    assert store is not None
    return store.read(store.runs()[-1].id)


def until(true: Callable[[], bool], limit_s: float = 60.0) -> None:
    deadline = time.perf_counter() + limit_s
    while not true():
        assert time.perf_counter() < deadline
        NOTHING.wait(0.02)


def test_a_run_elsewhere_is_the_same_run(program: Program) -> None:
    program.start(asked("sound"))
    assert program.join(120)
    there = kept(program)
    program.use("local")
    program.start(asked("sound"))
    assert program.join(120)
    here = kept(program)
    assert there.facts.status == here.facts.status == "finished"
    assert [output.token_ids for output in there.trace.outputs] == [output.token_ids for output in here.trace.outputs]
    assert there.trace.layers == here.trace.layers
    for column in ("kind", "step", "request", "tokens", "context", "kv_bytes"):
        assert there.trace.moments[column].tolist() == here.trace.moments[column].tolist()
    assert len(there.trace.spans["layer"]) == len(here.trace.spans["layer"])
    assert there.config == here.config
    assert there.facts.weights_bytes == here.facts.weights_bytes


def test_an_ab_test_elsewhere_ends_with_verdicts(program: Program) -> None:
    sides = asked("sound"), asked("sound", passes=(PassConfig("bfloat16"),))
    program.start_trial(ABTestConfig(sides, most_rounds=4))
    assert program.join(180)
    state = program.trial
    assert state is not None
    assert [run.facts.status for run in state.runs] == ["finished", "finished"]
    assert state.verdicts[0].main is not None
    assert len(state.order) >= 8
    store = program.store
    assert store is not None
    assert [head.facts.trial is not None for head in store.runs()] == [True, True]
    assert {"job_started", "job_finished"} <= {kind for kind, _ in notices(program)}


def test_whatever_a_status_says_reaches_the_window(program: Program) -> None:
    said, then = (Reason("execution.measuring-quality"),), (Reason("execution.starting-process"),)
    status = Status("running", said, 0.5, 12.0, warming=True, compiling=True, at_most=True, then=then)
    assert not [one.name for one in fields(Status) if getattr(status, one.name) == one.default]  # nothing is left out here
    stream = io.BytesIO()
    Link(io.BytesIO(), stream).send("status", **status_message(status), live_text="", shown=0)
    stream.seek(0)
    carrier = child.ChildCarrier(Gate(), program)
    message = Link(stream, io.BytesIO()).receive()
    assert isinstance(message, dict)
    carrier._on_status(message)
    assert carrier.status == status


def test_a_run_elsewhere_whose_quality_is_measured_comes_to_its_end(program: Program) -> None:
    workload = WorkloadConfig(prompt_tokens=5, new_tokens=4, repeats=2, warmup=1)
    program.start(
        RunConfig(ModelConfig(TINY_LLAMA), (PassConfig("bfloat16"),), TargetConfig("cpu", 1), workload, quality=QualityConfig())
    )
    assert program.join(120)
    assert kept(program).facts.status == "finished"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("segfault", "crashed in native code (SIGSEGV)"),
        ("leave", "ended itself with exit status 3"),
        ("abort", "given up by its own native code (SIGABRT)"),
        ("out_of_memory", "was killed (SIGKILL)"),
    ],
)
def test_whatever_ends_the_process_costs_the_run_alone(program: Program, model: str, said: str) -> None:
    program.start(asked(model, repeats=100_000))
    assert program.join(120)
    run = kept(program)
    assert run.facts.status == "failed"
    assert said in str(run.facts.error)
    assert len(run.trace.moments["kind"]) > 0
    assert [kind for kind, _ in notices(program) if kind == "job_failed"]
    program.start(asked("sound"))
    assert program.join(120)
    assert kept(program).facts.status == "finished"


def test_what_hangs_with_pythons_lock_is_ended_by_a_cancel(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "GRACE_S", 1.0)
    program.start(asked("hang", repeats=100_000))
    until(lambda: program.status.state == "running" and len(kept(program).trace.moments["kind"]) > 5)
    NOTHING.wait(1.0)
    program.cancel()
    assert program.join(20)
    assert kept(program).facts.status == "cancelled"
    assert [kind for kind, _ in notices(program) if kind == "job_cancelled"]


def test_a_refusal_there_is_a_sentence_here(program: Program) -> None:
    program.start(asked("missing"))
    assert program.join(120)
    assert any(kind == "refused" and "no function 'missing'" in text for kind, text in notices(program))


def test_whatever_the_process_sends_costs_the_run_alone(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even an error that nobody thought of must neither end the reader nor leave anybody waiting."""
    monkeypatch.setattr(child.ChildCarrier, "_on_facts", lambda _, message: message["no such"].anything)
    program.start(asked("sound"))
    assert program.join(60)
    run = kept(program)
    assert run.facts.status == "failed"
    assert "sent what makes no sense (KeyError" in str(run.facts.error)
    monkeypatch.undo()
    program.start(asked("sound"))
    assert program.join(120)
    assert kept(program).facts.status == "finished"


STATUS = {
    "state": "running",
    "said": [],
    "fraction": None,
    "seconds_left": None,
    "warming": False,
    "compiling": False,
    "at_most": False,
    "then": [],
}
TURNS = {"keys": [1, 2], "order": [0, 1], "floors": {}, "verdicts": "[]", "stopped": None}


@pytest.mark.parametrize(
    ("hear", "message"),
    [
        ("_on_status", {**STATUS, "state": "dancing"}),
        ("_on_status", {**STATUS, "fraction": "half"}),
        ("_on_status", {**STATUS, "said": [3]}),
        ("_on_status", {**STATUS, "then": [{}]}),
        ("_on_ab_test", {**TURNS, "order": [0, 2]}),
        ("_on_ab_test", {**TURNS, "floors": {"tpot_ns": "low"}}),
        ("_on_ab_test", {**TURNS, "keys": 2}),
        ("_on_done", {"loaded": None, "load_ns": "long", "job": 1}),
    ],
)
def test_a_message_of_other_types_is_refused(hear: str, message: dict[str, object]) -> None:
    carrier = child.ChildCarrier(None, None)  # type: ignore[arg-type]
    with pytest.raises((LinkError, ValueError)):
        getattr(carrier, hear)({**message, "live_text": "", "shown": 0})


def test_nobody_waits_for_a_process_that_does_not_read(program: Program) -> None:
    carrier = program._carrier
    assert isinstance(carrier, child.ChildCarrier)
    carrier._started()
    number = carrier.process
    assert number is not None
    os.kill(number, signal.SIGSTOP)
    much = replace(asked("sound"), workload=WorkloadConfig(prompt="much " * 200_000, repeats=1))
    asking = threading.Thread(target=lambda: (carrier.do("run", much), carrier.cancel()), daemon=True)
    asking.start()
    asking.join(30)
    waits = asking.is_alive()
    os.kill(number, signal.SIGKILL)
    assert not waits
    assert program.join(30)


def test_an_endless_line_of_a_process_takes_no_memory_here() -> None:
    process = WorkerProcess.__new__(WorkerProcess)
    process.said = deque(maxlen=ERROR_LINES)
    process._popen = SimpleNamespace(stderr=io.BytesIO(b"first\n" + b"x" * 50_000_000 + b"\nlast"))  # type: ignore[assignment]
    process._listen()
    assert [line[:5] for line in process.said] == ["first", "xxxxx", "last"]
    assert max(map(len, process.said)) <= LINE_BYTES


def test_a_spare_process_is_there_again_after_a_crash(program: Program) -> None:
    program.import_ahead()
    first = program.process
    program.start(asked("segfault", repeats=100_000))
    assert program.join(120)
    assert kept(program).facts.status == "failed"
    until(lambda: program.process not in (None, first))


def test_a_run_after_a_cancelled_one_is_not_called_cancelling(program: Program) -> None:
    program.start(asked("sound", repeats=100_000))
    until(lambda: program.status.state == "running")
    program.cancel()
    until(lambda: program.status.state == "cancelling")
    assert program.join(60)
    program.start(asked("sound", repeats=100_000))
    until(lambda: program.status.state == "running")
    program.cancel()
    assert program.join(60)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no process groups and no pipe that outlives both")
@pytest.mark.parametrize("model", ["sound", "hang"])
def test_nothing_outlives_a_window_that_was_killed(tmp_path: Path, model: str) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom core.program import Program\n"
        "from tests.core.execution.test_child import asked\n"
        f"program = Program(Path({str(tmp_path / 'it.tickscope')!r}), executor='child')\n"
        f"program.start(asked({model!r}, repeats=100_000))\n"
        "while program.status.state != 'running' or not len(program.live().trace.moments['kind']): time.sleep(0.05)\n"
        "time.sleep(2.5)\nprint(program._carriers['child'].process, flush=True)\ntime.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "TICKSCOPE_TEST_AT": "300"}
    window = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True)
    assert window.stdout is not None
    worker = int(window.stdout.readline())
    group = [one.pid for one in psutil.process_iter() if _in_group(one.pid, worker)]
    assert worker in group
    window.send_signal(signal.SIGKILL)
    window.wait()
    until(lambda: not any(_alive(one) for one in group), 10)
    until(lambda: not list(tmp_path.glob("tickscope-*")), 10)
    store = SessionStore.open(tmp_path / "it.tickscope", create=False)
    assert len(store.read(1).trace.moments["kind"]) > 0
    store.close()


def _in_group(process: int, group: int) -> bool:
    try:
        return os.getpgid(process) == group
    except ProcessLookupError:
        return False


def _alive(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_command_line_runs_there_and_says_so(tmp_path: Path) -> None:
    tiny = "arch:llama?hidden_size=64&intermediate_size=128&num_hidden_layers=2&num_attention_heads=4&vocab_size=256"
    command = [
        sys.executable,
        "-m",
        "gui",
        "run",
        "--model",
        tiny,
        "--prompt-tokens",
        "8",
        "--new-tokens",
        "8",
        "--threads",
        "1",
    ]
    out = tmp_path / "it.tickscope"
    command += ["--repeats", "2", "--warmup", "1", "--executor", "child", "--out", str(out), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["status"], told["target"]["executor"]) == ("finished", "child")
    assert told["metrics"]["tpot_ns"]["median"] > 0
    store = SessionStore.open(out, create=False)
    assert store.runs()[0].facts.executor == "child"
    store.close()


def test_the_command_line_tells_how_a_process_ended(tmp_path: Path) -> None:
    out = tmp_path / "it.tickscope"
    command = [
        sys.executable,
        "-m",
        "gui",
        "run",
        "--model",
        f"py:{MODELS}:segfault",
        "--trust-remote-code",
        "--executor",
        "child",
    ]
    command += ["--repeats", "100000", "--threads", "1", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1, done.stderr
    assert "crashed in native code (SIGSEGV)" in done.stderr
    assert f"Kept in {out}" in done.stderr
