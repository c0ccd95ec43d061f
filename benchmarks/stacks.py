"""How fast is a stack of passes against plain float32, and what does it cost in quality?

    python -m benchmarks.stacks --pass bfloat16 --pass merge_projections --pass group_quant --pass compile_decode [--rounds 20]

The sides of one A/B test take turns moment by moment in one process: A is the model as loaded, eager and float32, B has the
passes. Prints A over B (the gain in decode speed) by clean moments and by TPOT, with 95 % intervals over rounds, the
stack's quality figures, and the gain that its reports predict.
"""

from __future__ import annotations

import numpy as np

from benchmarks.arguments import work_arguments
from benchmarks.observer import decode_medians, taken_turns, told
from core.analysis.samples import request_times
from core.analysis.statistics import spread
from core.commands.configure import parse_pass
from core.config import ABTestConfig, ModelConfig, QualityConfig, RunConfig, TargetConfig, WorkloadConfig


def main() -> None:
    """Measure and print."""
    parser = work_arguments()
    parser.add_argument("--rounds", type=int, default=20)
    parser.set_defaults(new_tokens=32)
    asked = parser.parse_args()
    workload = WorkloadConfig(asked.prompt, chat=False, new_tokens=asked.new_tokens, warmup=asked.warmup)
    target = TargetConfig("cpu", asked.threads)
    plain = RunConfig(ModelConfig(asked.model), (), target, workload, ("noise",))
    stack = RunConfig(
        ModelConfig(asked.model),
        tuple(parse_pass(text) for text in asked.passes),
        target,
        workload,
        ("noise",),
        quality=QualityConfig(),
    )
    runs = taken_turns(ABTestConfig((plain, stack), most_rounds=asked.rounds, most_seconds=3600.0, early=False))
    medians = [decode_medians(run) for run in runs]
    print(f"decode moments, plain over stack: {told(spread(medians[0] / medians[1]))}, n {asked.rounds}")
    tpot = [np.array(request_times(run).tpot_ns) for run in runs]
    print(f"TPOT, plain over stack: {told(spread(tpot[0] / tpot[1]))}")
    for name, values in zip(("plain", "stack"), tpot, strict=True):
        print(f"{name}: {1e9 / np.nanmedian(values):.1f} tok/s")
    quality = runs[1].facts.quality
    if quality is not None:
        for name, figure in quality.figures.items():
            print(f"  {name} {figure.value:.5f}" + (f" ± {figure.error:.5f}" if figure.error is not None else ""))
    for report in runs[1].facts.passes:
        print(f"  {report.id}: {report.summary}; kernels {', '.join(report.kernels)}; predicted {dict(report.predicted)}")


if __name__ == "__main__":
    main()
