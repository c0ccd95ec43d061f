"""How long does it take to import a trace of a million events, and with how much memory? Promised: 2 s and 500 MB.

    python -m benchmarks.import_trace [--events 1000000] [--rounds 3]

Three files of the same steps, modules, operators, launches and kernels: compact as many tools write (126 MB), packed, and with
Kineto's line breaks and shapes as ``torch.profiler`` writes today (larger). Each import runs in a process of its own, which
tells its peak resident memory.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HEAD = '{"schemaVersion": 1, "deviceProperties": [], "displayTimeUnit": "ms", "baseTimeNanoseconds": 1790857026000000000'
NAMES = (
    "aten::linear",
    "aten::t",
    "aten::transpose",
    "aten::as_strided",
    "aten::addmm",
    "aten::mul",
    "aten::view",
    "aten::silu",
)


def events(count: int) -> Iterator[tuple[str, str, int, int, int, str]]:
    """Category, name, thread, start and duration in ns, and arguments of ``count`` slices: steps of modules of operators."""
    rng = random.Random(0)
    now = 4_453_914_635_876_000
    number = 0
    step = 0
    while True:
        step += 1
        inside: list[tuple[str, str, int, int, int, str]] = []
        began = now
        for module in range(210):
            opened = now
            for name in NAMES[: 3 + module % 6]:
                now += rng.randint(200, 2_000)
                length = rng.randint(300, 30_000)
                number += 1
                arguments = f'"External id": {number}'
                inside.append(("cpu_op", name, 17801, now, length, arguments))
                if name == "aten::addmm":
                    inside.append(("cuda_runtime", "cudaLaunchKernel", 17801, now + 100, 150, f'"correlation": {number}'))
                    inside.append(("kernel", "sm80_gemm", 7, now + 5_000, 9_000, f'"stream": 7, "correlation": {number}'))
                now += length
            inside.append(("python_function", f"nn.Module: Linear_{module}", 17801, opened, now - opened, '"Python id": 5'))
        inside.append(("user_annotation", f"ProfilerStep#{step}", 17801, began, now - began, '"External id": 1'))
        for one in inside:
            yield one
            count -= 1
            if not count:
                return


def write(path: Path, count: int, *, pretty: bool) -> None:
    """A trace file in one of the two styles."""
    with path.open("w", encoding="utf-8") as file:
        file.write(HEAD + ', "traceEvents": [\n')
        for category, name, thread, start, length, arguments in events(count):
            times = start / 1000, length / 1000
            if pretty:
                shapes = ', "Input Dims": [[4, 576], [576, 1536], []]' if category == "cpu_op" else ""
                file.write(
                    f'  {{\n    "ph": "X",\n    "cat": "{category}",\n    "name": "{name}",\n    "pid": 17801,\n'
                    f'    "tid": {thread},\n    "ts": {times[0]:.3f},\n    "dur": {times[1]:.3f}\n    ,\n    "args": {{\n'
                    f"      {arguments}{shapes}\n    }}\n  }},\n"
                )
            else:
                file.write(
                    f'{{"ph":"X","cat":"{category}","name":"{name}","pid":1,"tid":{thread},"ts":{times[0]:.3f},'
                    f'"dur":{times[1]:.3f},"args":{{{arguments}}}}},\n'
                )
        file.write('{"ph":"i","s":"g","name":"Record Window End","pid":"","tid":"","ts":4453914635876.0}\n], "traceName": "x"}')


def measure(path: Path) -> dict[str, float]:
    """Import once, in this process."""
    from core.imports.kineto import read_trace

    began = time.perf_counter()
    run = read_trace(path)
    took = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": took,
        "peak_mb": peak,
        "operators": len(run.trace.operators["name"]),
        "spans": len(run.trace.spans["layer"]),
    }


def main() -> None:
    """Write the files, import each in processes of their own, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        files = {"compact": Path(folder) / "compact.json", "Kineto's style": Path(folder) / "kineto.json"}
        write(files["compact"], asked.events, pretty=False)
        write(files["Kineto's style"], asked.events, pretty=True)
        files["compact, packed"] = Path(folder) / "compact.json.gz"
        files["compact, packed"].write_bytes(gzip.compress(files["compact"].read_bytes(), 6))
        for name, path in files.items():
            found = []
            for _ in range(asked.rounds):
                command = [sys.executable, "-m", "benchmarks.import_trace", "--measure", str(path)]
                found.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
            times = [one["seconds"] for one in found]
            print(
                f"{name:16} {path.stat().st_size / 1e6:4.0f} MB: median {statistics.median(times):.2f} s of "
                f"{[round(one, 2) for one in times]}, peak {max(one['peak_mb'] for one in found):.0f} MB, "
                f"{found[0]['operators']:,} operators, {found[0]['spans']:,} layer calls"
            )


if __name__ == "__main__":
    main()
