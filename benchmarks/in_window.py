"""One run of the real window, driven as a script would drive it, in a process of its own.

    python -m benchmarks.in_window [--pass int8_dynamic] [--new-tokens 64] [--repeats 5] [--heartbeat] [--serve]
        [--executor child]

With `--serve` it runs once for each line on its standard input, and stays as it is in between.
Without a display it runs offscreen (QT_QPA_PLATFORM=offscreen), where charts are painted all the same. Prints one JSON line:
TPOT in ns, the observer effect, and with `--heartbeat` how long the GUI thread stalled beside requested paints.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arguments import work_arguments


class Heartbeat:
    """Beats every 2 ms on the GUI thread and notes how late each beat was, outside the pauses in which charts are painted."""

    def __init__(self, window: Any) -> None:
        from PySide6.QtCore import QTimer

        self._bridge = window.bridge
        self._last_ns, self._paused = time.perf_counter_ns(), 0
        self.late_ns: list[int] = []
        self._timer = QTimer(window)
        self._timer.setInterval(2)
        self._timer.timeout.connect(self._beat)
        self._timer.start()

    def _beat(self) -> None:
        now = time.perf_counter_ns()
        painting = self._bridge.painter.inside or self._bridge.pauses != self._paused
        if not painting and self._bridge.program.status.state == "running":
            self.late_ns.append(max(0, now - self._last_ns - 2_000_000))
        self._last_ns, self._paused = now, self._bridge.pauses

    def stop(self) -> dict[str, float]:
        """Longest and 99th percentile lateness, in ms."""
        self._timer.stop()
        late = np.array(self.late_ns or [0]) / 1e6
        return {"longest_ms": float(late.max()), "p99_ms": float(np.percentile(late, 99)), "beats": len(late)}


def main() -> None:
    """Run once and print."""
    parser = work_arguments()
    parser.add_argument("--heartbeat", action="store_true")
    asked = parser.parse_args()
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

    from PySide6.QtCore import QTimer

    from core.config import ModelConfig, PassConfig, RunConfig, TargetConfig, WorkloadConfig
    from gui.app import create

    with tempfile.TemporaryDirectory() as folder:
        app, window = create([str(Path(folder) / "benchmark.tickscope")])
        window.program.use(asked.executor)
        window.resize(1440, 900)
        window.show()
        config = RunConfig(
            ModelConfig(asked.model),
            tuple(PassConfig(name) for name in asked.passes),
            TargetConfig("cpu", asked.threads),
            WorkloadConfig(
                prompt=asked.prompt, chat=False, new_tokens=asked.new_tokens, repeats=asked.repeats, warmup=asked.warmup
            ),
        )
        watch = QTimer(window)
        watch.timeout.connect(lambda: None if window.program.busy else app.exit())  # quit() would close the window
        for _ in sys.stdin if asked.serve else ("once",):
            heartbeat = Heartbeat(window) if asked.heartbeat else None
            window.program.start(config)
            window.bridge.expect()
            watch.start(200)
            app.exec()
            watch.stop()
            run = window.program.live()
            assert run is not None, "the run did not begin"
            print(json.dumps(told(run, window, heartbeat)), flush=True)
        window.ask = lambda *_: True
        window.close()


def told(run: Any, window: Any, heartbeat: Heartbeat | None) -> dict[str, Any]:
    """What is printed of one run."""
    from core.analysis.summary import summarize

    summary = summarize(run)
    return {
        "status": run.facts.status,
        "tpot_ns": summary["metrics"]["tpot_ns"]["median"],
        "itl_ns": summary["metrics"]["itl_ns"]["median"],
        "observer_effect": summary["observer_effect"],
        "pauses": window.bridge.pauses,
        "layer_share": layer_share(run),
        "stall": heartbeat.stop() if heartbeat else None,
    }


def layer_share(run: Any) -> float:
    """Layer self times of a traced moment summed, over the moment; median of all moments, without the model's own rest."""
    from profilers.trace import Tag

    moments, spans = run.trace.moments, run.trace.spans
    layers = spans["layer"] > 0  # row 0 is the model itself, whose self time is what no layer accounts for
    own = np.bincount(spans["moment"][layers], weights=spans["self_ns"][layers], minlength=len(moments["kind"]))
    traced = np.flatnonzero(moments["tags"] & Tag.TRACED)
    return float(np.median(own[traced] / moments["duration_ns"][traced]))


if __name__ == "__main__":
    main()
