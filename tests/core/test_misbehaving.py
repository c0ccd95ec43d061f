"""Models whose code asks the program to end, never returns or never looks: the program lives on, or ends within its limits."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import ending, progress
from core.config import ModelConfig, RunConfig, TargetConfig, WorkloadConfig
from core.errors import Cancelled
from core.interrupting import Region, kill_compilers
from core.program import Program
from core.progress import Progress
from core.session.store import SessionStore

MODULE = """
import os, signal, sys, threading, time, torch
HELD = threading.Event()
class M(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.n = torch.nn.Linear(8, 8), 0
    def forward(self, x):
        self.n += 1
        if self.n > 3:
            {}
        return self.a(x)
def make():
    return M(), (torch.randn(2, 8),)
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(progress, "PATIENCE_S", 0.2)
    yield
    ending.hanging.clear()


def config(folder: Path, line: str) -> RunConfig:
    file = folder / "model.py"
    file.write_text(MODULE.format(line))
    model = ModelConfig(f"py:{file}:make", trust_remote_code=True)
    return RunConfig(model, (), TargetConfig("cpu", 1), WorkloadConfig(repeats=5, warmup=0), ("layer_clock",))


def said(program: Program) -> str:
    texts = []
    while not program.notices.empty():
        texts.append(program.notices.get().text)
    return " ".join(texts)


def ended(folder: Path, line: str) -> tuple[str, str]:
    """The run's status, and what was said."""
    program = Program(folder / "x.tickscope")
    program.start(config(folder, line))
    assert program.join(60)
    run, words = program.live(), said(program)
    assert program.close()
    assert run is not None
    return run.facts.status, words


@pytest.mark.parametrize("line", ["raise KeyboardInterrupt", "sys.exit(3)", "os._exit(7)"])
def test_code_that_asks_the_program_to_end_does_not_end_it(tmp_path: Path, line: str) -> None:
    status, words = ended(tmp_path, line)
    assert status == "failed"
    assert "asked the whole program to end" in words


def test_endless_recursion_is_an_error_of_the_model(tmp_path: Path) -> None:
    status, words = ended(tmp_path, "self.forward(x)")
    assert status == "failed"
    assert "RecursionError" in words


def until(happened: object, limit_s: float = 60.0) -> None:
    deadline = time.perf_counter() + limit_s
    while not happened():
        assert time.perf_counter() < deadline
        threading.Event().wait(0.02)


def measured(program: Program) -> int:
    run = program.live()
    return 0 if run is None else len(run.trace.moments["kind"])


def test_a_loop_in_python_is_interrupted_and_what_was_measured_stays(tmp_path: Path) -> None:
    program = Program(tmp_path / "x.tickscope")
    program.start(config(tmp_path, "while True: pass"))
    until(lambda: measured(program) == 3)
    program.cancel()
    assert program.join(60)
    run = program.live()
    assert run is not None
    assert (run.facts.status, len(run.trace.moments["kind"])) == ("cancelled", 3)
    program.start(config(tmp_path, "pass"))  # and the program is as good as new
    assert program.join(60)
    again = program.live()
    assert again is not None
    assert again.facts.status == "finished"
    assert program.close()


def test_what_hangs_below_python_is_left_behind_with_its_run_saved(tmp_path: Path) -> None:
    path = tmp_path / "x.tickscope"
    program = Program(path)
    program.start(config(tmp_path, "sys.modules['held'] = HELD; HELD.wait()"))
    until(lambda: measured(program) == 3)
    assert not program.close(0.5)
    assert ending.hanging.is_set()
    store = SessionStore.open(path, create=False)
    try:
        (head,) = store.runs()
        kept = store.read(head.id)
    finally:
        store.close()
    assert (head.status, len(kept.trace.moments["kind"])) == ("cancelled", 3)
    assert "did not react" in str(kept.facts.error)
    sys.modules.pop("held").set()  # so that the test leaves no thread behind
    assert program._local._worker.close(60)


def test_the_window_says_that_a_cancel_is_not_heard() -> None:
    heard = threading.Event()
    made = Progress(heard.set)
    made.cancel()
    assert heard.wait(60)
    made.end()


def spin(region: Region) -> None:
    """Insist from the very thread that is inside, and go on."""
    region.insist()
    for _ in range(1000):
        pass


def test_only_marked_regions_are_interrupted() -> None:
    region = Region()
    region.insist()  # nobody is inside
    assert not region.insisted
    with pytest.raises(Cancelled), region:
        spin(region)
    with pytest.raises(Cancelled), region:  # an error that insisting has caused, as of a compiler that was killed
        raise RuntimeError("g++ died")


def test_modules_are_never_imported_by_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    region = Region()
    (tmp_path / "imported_late.py").write_text("import sys\nsys.modules['its_spin'](sys.modules['its_region'])\nWHOLE = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "its_spin", spin)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "its_region", region)  # type: ignore[arg-type]
    with region:
        whole = importlib.import_module("imported_late")
    assert whole.WHOLE
    assert not region.insisted
    del sys.modules["imported_late"]
    monkeypatch.setattr("core.interrupting.IMPORTING_S", 0.0)  # but a module that hangs is not waited for without end
    with pytest.raises(Cancelled), region:
        importlib.import_module("imported_late")


def test_compilers_are_killed_and_other_children_are_not(tmp_path: Path) -> None:
    compiler = tmp_path / "cc1plus"
    compiler.symlink_to(sys.executable)
    sleeping = "import sys; print('up', flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    children = [subprocess.Popen([program, "-c", sleeping], **pipes) for program in (str(compiler), sys.executable)]
    for child in children:
        child.stdout.readline()
    kill_compilers()
    assert children[0].wait(60) == -signal.SIGKILL
    assert children[1].poll() is None
    children[1].communicate(b"")
    children[0].communicate()


def test_threads_of_a_model_do_not_hold_up_the_end(tmp_path: Path) -> None:
    code = (
        "import sys, threading; from core import ending; from core.private_folders import temporary_folder as t; print(t('a'));"
        "ending.LIMIT_S = 0.2; threading.Thread(target=threading.Event().wait).start(); sys.exit(ending.leave(3))"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "ends without them" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("body", ["raise LookupError('mute')", "return 5", "sys.exit(3)"])
def test_an_error_that_cannot_say_what_it_is_is_told_by_its_name(tmp_path: Path, body: str) -> None:
    name = f"mute{len(body)}"  # a module of that name stays in memory
    kind = "type('Mute', (RuntimeError,), {'__str__': say, '__repr__': say})"
    (tmp_path / f"{name}.py").write_text(f"import sys\ndef say(*_):\n    {body}\nMute = {kind}\n")
    line = f"sys.path.insert(0, {str(tmp_path)!r}); import {name}; raise {name}.Mute"
    status, words = ended(tmp_path, line)
    assert status == "failed"
    assert "Mute in the model itself: no message" in words
