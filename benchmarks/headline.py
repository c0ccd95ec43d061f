"""Does the live window show the latency that the bare `generate` loop has? Interleaved pairs of two processes.

    python -m benchmarks.headline [--pairs 12] [--pass int8_dynamic] [--executor child] [--before CHECKOUT]

Both processes load the model first and stay; then they measure in turns, one at a time, while the other waits. Prints each pair
and the median of the pairs' ratios (window over bare); the promise is 0.98 to 1.02. With ``--before`` the window of another
checkout (an older commit, what it needs beside on PYTHONPATH) takes turns with them, and is told over bare too:
is what this commit shows no worse?
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

import numpy as np

from benchmarks.observer import told as told_spread
from core.analysis.statistics import spread


class Served:
    """A benchmark process that measures when asked."""

    def __init__(self, module: str, arguments: list[str], checkout: str = ".") -> None:
        command = [sys.executable, "-m", module, "--serve", *arguments]
        paths = os.pathsep.join(filter(None, (os.path.abspath(checkout), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=checkout,
            env=os.environ | {"PYTHONPATH": paths},
        )

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
    parser.add_argument("--before", metavar="CHECKOUT", help="another checkout, whose window takes turns too")
    asked, passed_on = parser.parse_known_args()
    passed_on = ["--repeats", "2", "--warmup", "1", *passed_on]
    served = {"bare": Served("benchmarks.bare", passed_on), "window": Served("benchmarks.in_window", passed_on)}
    if asked.before:
        served["before"] = Served("benchmarks.in_window", passed_on, asked.before)
    for one in served.values():
        one.measure()  # loading and first requests
    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in served if name != "bare"}
    for number in range(asked.pairs):
        order = list(served) if number % 2 == 0 else list(served)[::-1]
        seen = {name: served[name].measure() for name in order}
        for name, pairs in ratios.items():
            pairs.append(tuple(seen[name][key] / seen["bare"][key] for key in ("tpot_ns", "itl_ns")))
            print(told(name, seen["bare"], seen[name]), flush=True)
    for one in served.values():
        one.close()
    for name, pairs in ratios.items():
        tpot, itl = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{name} over bare: median ratio of TPOT {tpot:.4f}, of ITL {itl:.4f}")
    if asked.before:
        against = [mine[0] / theirs[0] for mine, theirs in zip(ratios["window"], ratios["before"], strict=True)]
        print(f"window over before: TPOT {told_spread(spread(np.array(against)))}")


def told(name: str, plain: dict[str, Any], seen: dict[str, Any]) -> str:
    """One pair in words."""
    effect = seen["observer_effect"]
    return (
        f"bare {plain['tpot_ns'] / 1e6:.3f} ms, {name} {seen['tpot_ns'] / 1e6:.3f} ms, "
        f"ratio {seen['tpot_ns'] / plain['tpot_ns']:.4f} (ITL {seen['itl_ns'] / plain['itl_ns']:.4f}), "
        f"observer effect {effect['decode']['ratio']:.4f}, perturbed {effect['perturbed_share']:.3f}"
    )


if __name__ == "__main__":
    main()
