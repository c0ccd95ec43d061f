"""How long from the start of a process to the first token of a compiled decode, when an earlier run has left its graph?

    python -m benchmarks.second_start [--pass bfloat16 --pass group_quant --pass compile_decode] [--times 3]

Runs in processes of their own: once to compile, which is not counted, then `--times` more. Prints, for each, the seconds until
the first request's second token, which the graph makes: from the start of the process, as on the command line (imports,
loading, passes and prefill included); and from Run in a window that was open for a few seconds, which imports the libraries
while nobody asks for anything.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from benchmarks.arguments import work_arguments

DEFAULT = ("bfloat16", "merge_projections", "group_quant", "compile_decode")
CHILD = """
import json, sys, time
from core.commands.configure import parse_pass
from core.config import ModelConfig, RunConfig, TargetConfig, WorkloadConfig
from core.program import Program
model, threads, tokens, passes, ahead = json.loads(sys.argv[1])
program = Program(keep_session=False)
if ahead:
    program.import_ahead()
    program.join()
start = time.time_ns()
workload = WorkloadConfig(new_tokens=tokens, repeats=1, warmup=1)
config = RunConfig(ModelConfig(model), tuple(map(parse_pass, passes)), TargetConfig("cpu", threads), workload, ())
program.start(config)
while (run := program.live()) is None or len(run.trace.moments["kind"]) < 2:
    if program.join(0.005):
        break
print(json.dumps([start, time.time_ns(), program.live().facts.apply_ns, program.live().facts.load_ns]), flush=True)
program.close()
"""


def main() -> None:
    """Measure and print."""
    parser = work_arguments()
    parser.add_argument("--times", type=int, default=3)
    asked = parser.parse_args()
    passes = asked.passes or list(DEFAULT)
    # warm means with bytecode, whatever this machine's habits are
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for number in range(asked.times + 1):
        for ahead in (False, True) if number else (False,):
            task = json.dumps([asked.model, asked.threads, asked.new_tokens, passes, ahead])
            begun = time.time_ns()
            command = [sys.executable, "-c", CHILD, task]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            pressed, end, apply_ns, load_ns = json.loads(done.stdout)
            since, what = (pressed, "Run in an open window") if ahead else (begun, "the process's start")
            parts = f"load {load_ns / 1e9:.2f}, passes {apply_ns / 1e9:.2f}"
            how = "again" if number else "compiling"
            print(f"{how}: second token {(end - since) / 1e9:.2f} s after {what} ({parts})", flush=True)


if __name__ == "__main__":
    main()
