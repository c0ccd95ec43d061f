"""Does the live window show the latency that the bare `generate` loop has? Interleaved pairs of two processes.

    python -m benchmarks.headline [--pairs 12] [--pass int8_dynamic] [--executor child]

Both processes load the model first and stay; then they measure in turns, one at a time, while the other waits. Prints each pair
and the median of the pairs' ratios (window over bare); the promise is 0.98 to 1.02.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any


class Served:
    """A benchmark process that measures when asked."""

    def __init__(self, module: str, arguments: list[str]) -> None:
        command = [sys.executable, "-m", module, "--serve", *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure(self) -> dict[str, Any]:
        """One measurement."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a benchmark process ended; its error stands above")
        result: dict[str, Any] = json.loads(line)
        return result

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=12)
    asked, passed_on = parser.parse_known_args()
    passed_on = ["--repeats", "2", "--warmup", "1", *passed_on]
    bare, window = Served("benchmarks.bare", passed_on), Served("benchmarks.in_window", passed_on)
    bare.measure()  # loading and first requests
    window.measure()
    ratios, medians = [], []
    for number in range(asked.pairs):
        if number % 2:
            seen, plain = window.measure(), bare.measure()
        else:
            plain, seen = bare.measure(), window.measure()
        ratios.append(seen["tpot_ns"] / plain["tpot_ns"])
        medians.append(seen["itl_ns"] / plain["itl_ns"])
        effect = seen["observer_effect"]
        print(
            f"bare {plain['tpot_ns'] / 1e6:.3f} ms, window {seen['tpot_ns'] / 1e6:.3f} ms, ratio {ratios[-1]:.4f} "
            f"(ITL {medians[-1]:.4f}), observer effect {effect['decode']['ratio']:.4f}, "
            f"perturbed {effect['perturbed_share']:.3f}",
            flush=True,
        )
    bare.close()
    window.close()
    print(f"median ratio of TPOT {statistics.median(ratios):.4f}, of ITL {statistics.median(medians):.4f}")


if __name__ == "__main__":
    main()
