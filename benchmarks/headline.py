"""Does the live window show the latency that the bare `generate` loop has? Interleaved pairs, each in a process of its own.

    python -m benchmarks.headline [--pairs 5] [--pass int8_dynamic]

Prints each pair and the median of the pairs' ratios (window over bare); the promise is 0.98 to 1.02.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any


def measured(module: str, arguments: list[str]) -> dict[str, Any]:
    """What one benchmark process printed last."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5)
    asked, passed_on = parser.parse_known_args()
    ratios = []
    for number in range(asked.pairs):
        order = ["benchmarks.bare", "benchmarks.in_window"]
        results = {module: measured(module, passed_on) for module in (order if number % 2 == 0 else order[::-1])}
        bare, window = results["benchmarks.bare"], results["benchmarks.in_window"]
        ratios.append(window["tpot_ns"] / bare["tpot_ns"])
        effect = (window["observer_effect"]["decode"] or {}).get("ratio")
        print(
            f"pair {number + 1}: bare {bare['tpot_ns'] / 1e6:.3f} ms, window {window['tpot_ns'] / 1e6:.3f} ms, "
            f"ratio {ratios[-1]:.4f} (ITL medians {window['itl_ns'] / bare['itl_ns']:.4f}), observer effect {effect}, perturbed {window['observer_effect']['perturbed_share']:.3f}, "
            f"pauses {window['pauses']}",
            flush=True,
        )
    print(f"median ratio {statistics.median(ratios):.4f}")


if __name__ == "__main__":
    main()
