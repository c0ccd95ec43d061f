"""Does each pass alone gain what its report predicts from bytes and operations?

    python -m benchmarks.predictions [--pass int8_weight_only --pass bfloat16] [--rounds 8] [--prompt-tokens 64]

For each pass an A/B test of its own: the model as loaded and the model with this pass alone take turns, request by request.
Prints by kind of moment the predicted gain, the measured one with a 95 % interval over the rounds, and predicted over
measured; where that is outside 1/1.5 to 1.5, also what the report says about it. Without `--pass` all that suit SmolLM2 run.
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.arguments import work_arguments
from benchmarks.observer import taken_turns, told
from core.analysis.statistics import spread
from core.commands.configure import parse_pass
from core.config import ABTestConfig, ModelConfig, RunConfig, TargetConfig, WorkloadConfig
from core.errors import Refusal
from core.models.base import generates
from core.pass_api.base import PassReport
from core.records.run import Run
from profilers.trace import Array, Tag

PASSES = (
    "threads:count=1",
    "allocator",
    "layer_drop",
    "mlp_width",
    "head_removal",
    "sparse_mask",
    "attention",
    "merge_projections",
    "bfloat16",
    "float16",
    "autocast",
    "mixed_precision",
    "int8_dynamic",
    "int8_weight_only",
    "int4_weight_only",
    "float8_weight_only",
    "group_quant",
    "bitsandbytes",
    "kv_cache",
    "chunked_prefill",
    "prompt_lookup",
    "compile_decode",
    "onnxruntime",
    "openvino",
)
NEAR = 1.5


def main() -> None:
    """Measure and print."""
    parser = work_arguments()
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int)
    parser.set_defaults(new_tokens=24, warmup=1)
    asked = parser.parse_args()
    far = 0
    for text in asked.passes or PASSES:
        try:
            runs = taken_turns(_trial(asked, text))
        except (Refusal, SystemExit) as error:
            print(f"{text}: not measured: {error}", flush=True)
            continue
        far += _print(text, runs)
    print(f"{far} figures farther than {NEAR} from their prediction")


def _trial(asked: argparse.Namespace, text: str) -> ABTestConfig:
    workload = WorkloadConfig(asked.prompt, asked.prompt_tokens, chat=False, new_tokens=asked.new_tokens, warmup=asked.warmup)
    plain = RunConfig(ModelConfig(asked.model), (), TargetConfig("cpu", asked.threads), workload, ("noise",))
    changed = RunConfig(plain.model, (parse_pass(text),), plain.target, workload, ("noise",))
    return ABTestConfig((plain, changed), most_rounds=asked.rounds, most_seconds=3600.0, early=False)


def _print(text: str, runs: tuple[Run, ...]) -> int:
    """One pass's lines; returns how many of its figures are far from their prediction."""
    (report,) = runs[1].facts.passes
    print(f"{text}: {report.summary}")
    model = runs[1].facts.model
    kinds = ("prefill", "decode") if model is None or generates(model.task) else ("forward",)
    far = sum([_figure(report, kind, *(_medians(run, kind) for run in runs)) for kind in kinds])
    if far or not report.predicted:
        print(f"  its report: {' '.join((str(report.prediction or ''), *report.notes))}")
    print(end="", flush=True)
    return far


def _figure(report: PassReport, kind: str, plain: Array, changed: Array) -> bool:
    """One kind of moment's line; returns whether it is far from what was predicted."""
    gain = spread(plain / changed if len(plain) == len(changed) else np.array([]))
    if gain.median is None:
        print(f"  {kind}: not measured")
        return False
    if kind not in report.predicted:
        print(f"  {kind}: measured {told(gain)}, not predicted")
        return False
    ratio = report.predicted[kind] / gain.median
    far = not 1 / NEAR <= ratio <= NEAR
    mark = "  FAR" if far else ""
    print(f"  {kind}: predicted {report.predicted[kind]:.2f}, measured {told(gain)}, ratio {ratio:.2f}{mark}")
    return far


def _medians(run: Run, kind: str) -> Array:
    """Median first moment ("prefill", "forward") or later one ("decode") of each measured request, in ns.

    Of calm ones where there are more than three. A moment that gives several tokens counts as one.
    """
    moments = run.trace.moments
    found = []
    steps = moments["step"] > 0 if kind == "decode" else moments["step"] == 0
    for request in np.unique(moments["request"][(moments["tags"] & int(Tag.WARMUP)) == 0]):
        mine = (moments["request"] == request) & steps
        calm = mine & ((moments["tags"] & int(Tag.PERTURBED | Tag.GC)) == 0)
        found.append(np.median(moments["duration_ns"][calm if calm.sum() > 3 else mine]))
    return np.array(found)


if __name__ == "__main__":
    main()
