"""What does the clock inside compiled graphs cost, and do the blocks sum to the moment?

    python -m benchmarks.ticks [--pass bfloat16 ...] [--option freezing=no] [--new-tokens 64] [--repeats 12]

One run through the program with compiled decode (after bfloat16, unless passes are named); traced decode moments, which run the
graph with ticks, take turns with clean ones, which run the one without. Prints traced over clean, and the share of the traced
moments that the timed pieces (and the blocks alone) sum to. The promise: at most 1.08, and 95 to 105 %.
"""

from __future__ import annotations

import numpy as np

from benchmarks.arguments import work_arguments
from core.analysis.observer import effects
from core.analysis.select import counted, of_kind
from core.analysis.statistics import spread
from core.config import ModelConfig, PassConfig, RunConfig, TargetConfig, WorkloadConfig
from core.models.outline import outline
from core.program import Program
from core.records.run import Run
from profilers.trace import Tag


def main() -> None:
    """Measure and print."""
    parser = work_arguments()
    parser.add_argument("--option", dest="options", action="append", default=[], help="of compile_decode: name=value")
    parser.set_defaults(repeats=12)
    asked = parser.parse_args()
    passes = tuple(PassConfig(name) for name in asked.passes or ["bfloat16"])
    compiled = PassConfig("compile_decode", dict(option.split("=", 1) for option in asked.options))
    workload = WorkloadConfig(asked.prompt, chat=False, new_tokens=asked.new_tokens, repeats=asked.repeats, warmup=asked.warmup)
    target = TargetConfig("cpu", asked.threads)
    program = Program(keep_session=False)
    try:
        program.start(RunConfig(ModelConfig(asked.model), (*passes, compiled), target, workload))
        program.join()
        run = program.live()
    finally:
        program.close()
    if run is None:
        raise SystemExit("\n".join(program.notices.get().text for _ in range(program.notices.qsize())))
    report(run)


def report(run: Run) -> None:
    """Print what the run says about its ticks."""
    trace = run.trace
    moments, decode = trace.moments, of_kind(trace.moments, "decode")
    traced, clean = counted(moments, decode, Tag.TRACED), counted(moments, decode)
    ratio = effects(run).get("decode")
    for missing in run.facts.unavailable:
        print(f"not measured: {missing.what}: {missing.why}")
    if ratio is None:
        raise SystemExit("too few moments to tell")
    print(f"decode moments: {clean.sum()} clean, median {np.median(moments['duration_ns'][clean]) / 1e6:.2f} ms")
    print(f"traced / clean: {ratio.ratio:.4f} ({ratio.low or ratio.least:.4f}-{ratio.high or ratio.most:.4f}), n {ratio.n}")
    pieces = [row for piece in outline(trace.layers, len(trace.layers)) for row in piece.rows]
    blocks = [row for row in pieces if trace.layers[trace.layers[row].parent].type == "ModuleList"]
    for name, rows in (("pieces", pieces), ("blocks alone", blocks)):
        mine = np.isin(trace.spans["layer"], rows)
        sums = np.bincount(trace.spans["moment"][mine], trace.spans["duration_ns"][mine], minlength=len(traced))
        share = spread(sums[traced] / moments["duration_ns"][traced])
        assert share.median is not None
        print(f"{name}: {len(rows)}, together {share.median:.4f} ({share.minimum:.4f}-{share.maximum:.4f}) of the moment")
    spent = run.facts.compile_ns
    print(f"compiling both graphs: {'not in this run' if spent is None else f'{spent / 1e9:.1f} s'}")


if __name__ == "__main__":
    main()
