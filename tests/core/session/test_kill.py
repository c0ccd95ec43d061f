"""A killed process loses nothing that was in the file: the session opens, and the run says that it was interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from core.session.store import SessionStore
from tests.support.folders import ROOT
from tests.support.tiny import TINY_LLAMA

# Says how many moments the file has; a reader on the store's own connection sees what is committed, and nothing else.
CHILD = """
import sys
from pathlib import Path
from core.config import ModelConfig, RunConfig, TargetConfig, WorkloadConfig
from core.program import Program
program = Program(Path(sys.argv[1]))
workload = WorkloadConfig(prompt_tokens=5, new_tokens=500, repeats=100, warmup=0)
program.start(RunConfig(ModelConfig(sys.argv[2]), (), TargetConfig("cpu", 1), workload))
while not program.join(0.1):
    if program.live() is not None and program.live().facts.status == "running":
        print(len(program.store.read(1).trace.moments["kind"]), flush=True)
"""


def test_kill_9_during_a_run(tmp_path: Path) -> None:
    path = tmp_path / "killed.tickscope"
    command = [sys.executable, "-c", CHILD, str(path), TINY_LLAMA]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        acknowledged = 0
        for line in child.stdout:
            acknowledged = int(line)
            if acknowledged > 300:
                child.send_signal(signal.SIGKILL)
                break
    assert acknowledged > 300
    store = SessionStore.open(path, create=False)
    try:
        run = store.read(1)
    finally:
        store.close()
    assert run.facts.status == "interrupted"
    moments, spans = run.trace.moments, run.trace.spans
    assert len(moments["kind"]) >= acknowledged
    assert moments["step"][:500].tolist() == list(range(min(500, len(moments["step"]))))
    assert np.unique(spans["moment"]).max() < len(moments["kind"])
    assert run.trace.layers
