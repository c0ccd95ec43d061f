"""What does looking cost? Clean moments with all instruments on against none, and traced moments against clean ones.

    python -m benchmarks.observer [--pass int8_dynamic] [--rounds 60] [--new-tokens 24]

Two sides of one trial take turns request by request (A B B A ...) in one process: A has no instruments, B all that work here
but the operator profiler. Prints B over A for the clean rounds, and from B's traced rounds against its clean ones the slowdown
of traced moments.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.arguments import work_arguments
from core.analysis.statistics import median_ratio
from core.analysis.summary import observer_effect
from core.analysis.verdict import judge
from core.config import ModelConfig, PassConfig, RunConfig, TargetConfig, TrialConfig, WorkloadConfig
from core.program import Program
from profilers.base import instruments


def main() -> None:
    """Measure and print."""
    parser = work_arguments()
    parser.add_argument("--rounds", type=int, default=60)
    parser.set_defaults(new_tokens=24)
    asked = parser.parse_args()
    everything = tuple(name for name, one in instruments().items() if name != "kernels" and one.check() is None)
    workload = WorkloadConfig(asked.prompt, new_tokens=asked.new_tokens, warmup=asked.warmup)
    passes = tuple(PassConfig(name) for name in asked.passes)
    bare = RunConfig(ModelConfig(asked.model), passes, TargetConfig("cpu", asked.threads), workload, ())
    # Another seed, which nothing here draws from, keeps it from being an A/A trial of fixed length.
    watched = replace(bare, profilers=everything, model=replace(bare.model, seed=1))
    program = Program(keep_session=False)
    try:
        program.start_trial(TrialConfig((bare, watched), most_rounds=asked.rounds, most_seconds=3600.0, early=False))
        program.join()
        state = program.trial
    finally:
        program.close()
    if state is None:
        raise SystemExit("\n".join(program.notices.get().text for _ in range(program.notices.qsize())))
    print(f"instruments: {', '.join(everything)}")
    for verdict in judge(state.runs, {}, asked.rounds)[0].metrics.values():
        print(
            f"clean {verdict.metric}: all on / none {verdict.ratio:.4f} ({verdict.low:.4f}-{verdict.high:.4f}), n {verdict.n}"
        )
    effect = observer_effect(state.runs[1])["decode"]
    print(f"traced / clean decode moments: {effect['ratio']:.4f} ({effect['low']:.4f}-{effect['high']:.4f})")
    print(f"paused per moment: {np.median(state.runs[1].trace.moments['paused_ns']) / 1e3:.0f} us")
    pooled = [run.trace.moments for run in state.runs]
    calm = [m["duration_ns"][(m["tags"] == 4) & (m["step"] > 0)] for m in pooled]
    ratio = median_ratio(calm[1], calm[0])
    assert ratio is not None
    print(f"clean decode moments pooled: {ratio.ratio:.4f} ({ratio.low:.4f}-{ratio.high:.4f})")


if __name__ == "__main__":
    main()
