"""What does looking cost? Moments with every instrument that works here against moments with none.

    python -m benchmarks.observer [--traced] [--pass int8_dynamic] [--rounds 40] [--new-tokens 16]

Two sides of one A/B test take turns moment by moment (A B B A ...) in one process: A has no instruments, B all but the operator
profiler. Without `--traced` all of B's moments are clean, as those that headline numbers come from; with it all are traced,
every module timed, and blocks counted in every other one. Prints B over A: per round the median decode moment, over the rounds
the median ratio with a 95 % interval.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.arguments import work_arguments
from core.analysis.statistics import spread
from core.config import ABTestConfig, ModelConfig, PassConfig, RunConfig, TargetConfig, WorkloadConfig
from core.execution import ab_test
from core.program import Program
from core.records.run import Run
from profilers.base import instruments
from profilers.trace import Array, Tag


def main() -> None:
    """Measure and print."""
    parser = work_arguments()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--traced", action="store_true")
    parser.set_defaults(new_tokens=16)
    asked = parser.parse_args()
    everything = tuple(name for name, one in instruments().items() if name != "kernels" and one.check() is None)
    workload = WorkloadConfig(asked.prompt, chat=False, new_tokens=asked.new_tokens, warmup=asked.warmup)
    passes = tuple(PassConfig(name) for name in asked.passes)
    bare = RunConfig(ModelConfig(asked.model), passes, TargetConfig("cpu", asked.threads), workload, ())
    # Another seed, which nothing here draws from, keeps it from being an A/A test, which has a length of its own.
    watched = replace(bare, profilers=everything, model=replace(bare.model, seed=1))
    # every round of one sort, where an A/B test has one traced round in four
    ab_test.turns = lambda number, sides: (tuple(range(sides))[:: 1 if number % 2 == 0 else -1], asked.traced)
    runs = taken_turns(ABTestConfig((bare, watched), most_rounds=asked.rounds, most_seconds=3600.0, early=False))
    medians = [decode_medians(run) for run in runs]
    found = spread(medians[1] / medians[0])
    print(f"instruments: {', '.join(everything)}")
    print(f"{'traced' if asked.traced else 'clean'} decode moments, all instruments over none: {told(found)}, n {found.n}")
    print(f"median moment without instruments: {np.median(medians[0]) / 1e6:.1f} ms")


def taken_turns(config: ABTestConfig) -> tuple[Run, ...]:
    """The runs of an A/B test carried out to its end."""
    program = Program(keep_session=False)
    try:
        program.start_trial(config)
        program.join()
        state = program.trial
    finally:
        program.close()
    if state is None or state.runs[0].facts.status != "finished":
        raise SystemExit("\n".join(program.notices.get().text for _ in range(program.notices.qsize())))
    return state.runs


def decode_medians(run: Run) -> Array:
    """Median decode moment of each measured request, in ns, without those that the machine disturbed."""
    moments = run.trace.moments
    out = []
    for request in np.unique(moments["request"][(moments["tags"] & int(Tag.WARMUP)) == 0]):
        mine = (moments["request"] == request) & (moments["step"] > 0)
        calm = mine & ((moments["tags"] & int(Tag.PERTURBED | Tag.GC)) == 0)
        out.append(np.median(moments["duration_ns"][calm if calm.sum() > 3 else mine]))
    return np.array(out)


def told(found: Any) -> str:
    """A spread of ratios in words: with its interval, or with its range where there are too few for one."""
    if found.low is None:
        return f"{found.median:.4f} (range {found.least:.4f} to {found.most:.4f})"
    return f"{found.median:.4f} ({found.low:.4f} to {found.high:.4f})"


if __name__ == "__main__":
    main()
