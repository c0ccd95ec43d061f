"""What a live repaint costs in processor time, beside how many spans a run has: summary, layer clock, stages, latency.

    python -m benchmarks.repaint [--spans 100000 --spans 1000000] [--rounds 9]

A made-up run of the starter model's shape grows by one request between two repaints, as a live one does. Prints for each size
the median processor time (not the clock: others may compute) of each part that the window computes in a pause, in ms.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from core.analysis import series
from core.analysis.summary import summarize
from core.records.run import Run
from profilers.trace import Recorder, Tag
from tests.support.synthetic import llama_layers, record_moment, synthetic_run

MOMENTS = 64  # of a request: a prefill and decode, every other one traced


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--spans", type=int, action="append", default=[])
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    for size in asked.spans or (100_000, 1_000_000):
        recorder, plain, rng = Recorder(), replace_status(synthetic_run(repeats=1, new_tokens=4)), np.random.default_rng(0)
        recorder.set_layers(llama_layers())
        while recorder.spans.count < size:
            grow(recorder, rng)
        parts = parts_of()
        taken: dict[str, list[float]] = {name: [] for name in parts}
        for _ in range(asked.rounds):
            grow(recorder, rng)
            run = replace(plain, trace=recorder.snapshot())
            for name, part in parts.items():
                start = time.thread_time_ns()
                part(run)
                taken[name].append((time.thread_time_ns() - start) / 1e6)
        told = ", ".join(f"{name} {np.median(found[1:]):.1f}" for name, found in taken.items())
        print(f"{recorder.spans.count:,} spans, ms of processor time: {told}", flush=True)


def replace_status(run: Run) -> Run:
    """The run as if it were going on."""
    return replace(run, facts=replace(run.facts, status="running"))


def parts_of() -> dict[str, Callable[[Run], Any]]:
    """What is computed, by its name, as the bridge and the charts compute it."""
    kept = series.heat_sums()
    return {
        "summary": lambda run: summarize(run, intervals=False, newest=series.NEWEST),
        "layer clock": lambda run: series.heat(run, kept=kept),
        "stages": lambda run: series.stages(run, newest=series.NEWEST),
        "latency": series.latency,
    }


def grow(recorder: Recorder, rng: np.random.Generator) -> None:
    """One more request."""
    start = recorder.moments.count * 12_000_000
    request = recorder.requests.append(tags=0, start_ns=start, tokenize_ns=80_000, end_ns=-1, input_tokens=5, output_tokens=0)
    for step in range(MOMENTS):
        tags = Tag.TRACED if step % 2 else Tag.CLEAN
        start = record_moment(recorder, rng, request=request, step=step, tags=tags, start_ns=start, scale=1.0)
    recorder.requests.set(request, end_ns=start, output_tokens=MOMENTS)


if __name__ == "__main__":
    main()
