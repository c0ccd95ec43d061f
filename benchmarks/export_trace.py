"""How long does the Chrome trace of a run with a million spans take to write? Promised: 3 s.

python -m benchmarks.export_trace [--spans 1000000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from core.export.chrome_trace import write_trace
from core.records.run import Run
from profilers.trace import KINDS, Recorder, Tag
from tests.support.synthetic import llama_layers, synthetic_run


def large_run(spans: int) -> Run:
    """A run of a model with 397 layers with about so many spans, nested as an eager model calls them, some with cycles."""
    base = synthetic_run(repeats=1, warmup=0, new_tokens=4)
    traced = next(row for row, tags in enumerate(base.trace.moments["tags"]) if tags & Tag.TRACED)
    rows = base.trace.spans["moment"] == traced
    pattern = {name: column[rows] for name, column in base.trace.spans.items()}
    count = max(1, spans // int(rows.sum()))
    period, begin = 13_000_123, int(base.trace.moments["start_ns"][traced])
    recorder = Recorder()
    recorder.set_layers(llama_layers())
    moment = np.repeat(np.arange(count), int(rows.sum()))
    tiled = {name: np.tile(column, count) for name, column in pattern.items()}
    tiled["moment"] = moment
    tiled["start_ns"] = tiled["start_ns"] - begin + moment * period
    tiled["cycles"] = np.where(tiled["layer"] % 13 == 4, tiled["duration_ns"] * 3, -1)
    recorder.spans.extend(tiled)
    length = int(base.trace.moments["duration_ns"][traced])
    for number in range(count):
        recorder.moments.append(
            request=0,
            kind=KINDS.index("decode"),
            step=number,
            tags=int(Tag.TRACED),
            start_ns=number * period,
            duration_ns=length,
        )
    return replace(base, trace=recorder.snapshot())


def main() -> None:
    """Write, time and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    run = large_run(asked.spans)
    print(f"{len(run.trace.spans['layer']):,} spans in {len(run.trace.moments['kind']):,} moments")
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("json", "json.gz"):
            path = Path(folder) / f"run.{suffix}"
            times = []
            for _ in range(asked.rounds):
                began = time.perf_counter()
                write_trace(run, path)
                times.append(time.perf_counter() - began)
            print(
                f"{suffix:8} best {min(times):.2f} s of {[round(one, 2) for one in times]}, {path.stat().st_size / 1e6:.0f} MB"
            )


if __name__ == "__main__":
    main()
