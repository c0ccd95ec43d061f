"""Our decode and prefill against llama.cpp's, on the same weights: two processes take turns, one always idle.

    python -m venv rival; CMAKE_ARGS=-DGGML_NATIVE=ON rival/bin/pip install llama-cpp-python
    python -m benchmarks.rival --rival rival/bin/python --gguf FILE.gguf --pass bfloat16 --pass group_quant:bits=4 \
        --pass compile_decode [--rounds 12] [--tokens 64] [--prefill 512]

Compared are forward passes without sampling, as llama-bench counts them: so many decode steps of one token, and one prefill.
Ours are the moments of Tickscope's own engine (`generate`'s work between them is printed beside). Prints the ratio of speeds,
ours over theirs: median over rounds with a 95 % interval.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.arguments import work_arguments
from benchmarks.observer import told
from core.analysis.statistics import spread
from core.commands.configure import parse_pass
from core.config import ModelConfig, PassConfig, RunConfig, TargetConfig, WorkloadConfig
from core.program import Program
from profilers.trace import KINDS


def main() -> None:
    """Measure and print; with ``--serve`` be our side."""
    parser = work_arguments()
    parser.add_argument("--rival", default=sys.executable, help="an interpreter that has llama-cpp-python")
    parser.add_argument("--gguf")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--plain", action="store_true", help="llama.cpp without repacked weights (0.3.36 crashes with AMX)")
    parser.add_argument("--no-prefill", action="store_true")
    asked = parser.parse_args()
    passes = tuple(parse_pass(text) for text in asked.passes)
    if asked.serve:
        serve(asked.model, passes, asked.threads)
        return
    ours = [sys.executable, "-m", "benchmarks.rival", "--serve", "--model", asked.model, "--threads", str(asked.threads)]
    ours += [part for text in asked.passes for part in ("--pass", text)]
    theirs = [asked.rival, str(Path(__file__).with_name("llama_side.py")), asked.gguf, str(asked.threads)]
    theirs += ["plain"] if asked.plain else []
    sides = [subprocess.Popen(one, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for one in (ours, theirs)]
    print("llama.cpp:", _line(sides[1]))
    for kind, count in (("decode", asked.tokens), ("prefill", asked.prefill))[: 1 if asked.no_prefill else 2]:
        times: list[list[float]] = [[], []]
        between = []
        for number in range(asked.rounds + 1):
            for side in (0, 1) if number % 2 == 0 else (1, 0):
                _ask(sides[side], f"{kind} {count}")
                answer = _line(sides[side]).split()
                if number:  # the first warms up, and compiles
                    times[side].append(float(answer[0]))
                    between += [float(answer[1])] if side == 0 else []
        a, b = np.array(times)
        ratio = spread(b / a)
        speeds = [count / (np.median(side) / 1e9) for side in (a, b)]
        print(
            f"{kind} {count}: ours {speeds[0]:.1f} tok/s, llama.cpp {speeds[1]:.1f} tok/s, "
            f"ratio {told(ratio)}, n {ratio.n}; "
            f"with generate's own work {count / (np.median(a + np.array(between)) / 1e9):.1f} tok/s"
        )
    for side in sides:
        assert side.stdin is not None
        side.stdin.close()
        side.wait()


def serve(model: str, passes: tuple[PassConfig, ...], threads: int) -> None:
    """For each line ``decode N`` or ``prefill N``: nanoseconds inside its moments, and between them."""
    program = Program(keep_session=False)
    for line in sys.stdin:
        kind, count = line.split()
        decoding = kind == "decode"
        prompt, new = (4, int(count) + 1) if decoding else (int(count), 2)
        workload = WorkloadConfig(prompt_tokens=prompt, new_tokens=new, repeats=1, warmup=1)
        program.start(RunConfig(ModelConfig(model), passes, TargetConfig("cpu", threads), workload, ()))
        program.join()
        run = program.live()
        if run is None or run.facts.status != "finished":
            raise SystemExit("\n".join(program.notices.get().text for _ in range(program.notices.qsize())))
        moments = run.trace.moments
        chosen = (moments["request"] == 1) & (moments["kind"] == KINDS.index(kind))
        inside, whole = moments["duration_ns"][chosen].sum(), moments["latency_ns"][chosen].sum()
        print(int(inside), int(whole - inside), flush=True)
    program.close()


def _ask(side: subprocess.Popen[str], line: str) -> None:
    assert side.stdin is not None
    side.stdin.write(line + "\n")
    side.stdin.flush()


def _line(side: subprocess.Popen[str]) -> str:
    assert side.stdout is not None
    line = side.stdout.readline()
    if not line:
        raise SystemExit(f"{json.dumps(side.args)} ended")
    return line.strip()


if __name__ == "__main__":
    main()
