"""Traces of the torch at hand, made in a process of its own: python -m tests.support.real_traces FOLDER

With stacks, torch has every thread of the process traced, and two traced threads hand CPython 3.11's lock to and fro for
ever (seen with tqdm's monitor beside the main thread); a process that only makes the traces has one.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

from tests.support.folders import ROOT


def make(folder: Path) -> Path:
    """``plain.json`` and ``stack.json``, as torch exports them, and ``…-list.json``, as its list of events exports them."""
    subprocess.run([sys.executable, "-m", "tests.support.real_traces", str(folder)], check=True, cwd=ROOT, timeout=120)
    return folder


def main() -> None:
    """Two steps of two forwards each, after one of warm-up."""
    import torch
    from torch.profiler import ProfilerActivity, profile, record_function, schedule

    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8))

    def ready(name: str, done: profile) -> None:
        done.events().export_chrome_trace(str(folder / f"{name}-list.json"))
        done.export_chrome_trace(str(folder / f"{name}.json"))

    for name, stack in (("plain", False), ("stack", True)):
        plan = schedule(wait=0, warmup=1, active=2, repeat=1)
        with (
            torch.no_grad(),
            profile(
                activities=[ProfilerActivity.CPU],
                schedule=plan,
                on_trace_ready=partial(ready, name),
                with_stack=stack,
                record_shapes=True,
                profile_memory=True,
                with_flops=True,
            ) as running,
        ):
            for _ in range(3):
                for _ in range(2):
                    with record_function("forward"):
                        model(torch.ones(2, 8))
                running.step()


if __name__ == "__main__":
    main()
