"""A program that plays back a synthetic run through a real gate on a thread: the window driven without a model."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from core.clock.gate import Gate
from core.config import ModelConfig, PassConfig, RunConfig, TargetConfig
from core.errors import Refusal
from core.export.base import exporters
from core.messages.reason import of_text
from core.models.base import ModelFacts
from core.notices import Notice, Status
from core.records.run import Run
from core.targets.base import TargetFacts
from profilers.trace import Trace
from tests.support.synthetic import synthetic_run

MOMENT_S = 0.004
TEXT = " Paris. The country is divided into regions"


def first_moments(run: Run, count: int, status: str) -> Run:
    """The run as it was when ``count`` moments were closed."""
    trace = run.trace
    moments = {name: column[:count] for name, column in trace.moments.items()}
    end_ns = int(moments["start_ns"][-1] + moments["latency_ns"][-1]) if count else 0
    requests = int(moments["request"][-1]) + 1 if count else 0
    spans = int(trace.spans["moment"].searchsorted(count))
    counters = int(trace.counters["time_ns"].searchsorted(end_ns, side="right"))
    cut = Trace(
        layers=trace.layers,
        requests={name: column[:requests] for name, column in trace.requests.items()},
        moments=moments,
        spans={name: column[:spans] for name, column in trace.spans.items()},
        counters={name: column[:counters] for name, column in trace.counters.items()},
        tracks=trace.tracks,
        instants=trace.instants,
        outputs=trace.outputs[:requests],
    )
    return replace(run, trace=cut, facts=replace(run.facts, status=status))


class FakeForesight:
    """The interface of ``core.execution.foresight.Foresight``; a test says what is seen."""

    def __init__(self) -> None:
        self.seen: object = None  # a Foreseen
        self.asked: list[tuple[RunConfig, tuple[PassConfig, ...]]] = []

    def ask(self, config: RunConfig, choices: tuple[PassConfig, ...]) -> None:
        self.asked.append((config, choices))

    def stop(self) -> None:
        pass


class FakeProgram:
    """The interface of ``core.program.Program``; remembers what was asked of it in ``calls``."""

    def __init__(self, session_path: Path | None = None, *, blocks: int = 30, moment_s: float = MOMENT_S) -> None:
        self.gate = Gate()
        self.executor = "local"
        self.process: int | None = None
        self.notices: queue.SimpleQueue[Notice] = queue.SimpleQueue()
        self.status = Status("idle", (of_text("No model is loaded"),))
        self.loaded: ModelFacts | None = None
        self.load_ns: int | None = None
        self.store = None
        self.trial: object = None  # an ABTestState
        self.foresight = FakeForesight()
        self.live_text = ""
        self.session_path = session_path
        self.calls: list[tuple[str, object]] = []
        self.refuse_load: Notice | None = None
        self.fail_run: Notice | None = None
        self.load_s = 0.05
        self._blocks = blocks
        self.moment_s = moment_s
        self._full: Run | None = None
        self._closed = 0
        self._cancel = threading.Event()
        self._thread: threading.Thread | None = None
        self._ids = 0

    # What the window calls

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def load(self, model: ModelConfig, target: TargetConfig) -> None:
        self.calls.append(("load", model))
        self._begin(lambda: self._load(model))

    def use(self, executor: str) -> None:
        self.executor = executor

    def unload(self) -> None:
        self.calls.append(("unload", None))
        self.loaded = None
        self.status = Status("idle", (of_text("No model is loaded"),))
        self.notices.put(Notice("unloaded", "The model was unloaded."))

    def start(self, config: RunConfig) -> None:
        self.calls.append(("start", config))
        self._begin(lambda: self._run(config))

    def start_trial(self, config: object) -> None:
        self.calls.append(("start_trial", config))

    def import_trace(self, path: Path) -> None:
        self.calls.append(("import_trace", Path(path)))

    def export(self, runs: Sequence[Run], format_id: str, path: Path) -> None:
        self.calls.append(("export", path))
        try:
            exporters.get(format_id).write(runs, path)
        except Refusal as refusal:
            self.notices.put(Notice("refused", str(refusal), job="export"))
        else:
            self.notices.put(Notice("job_finished", "It was exported.", job="export"))

    def cancel(self) -> None:
        self.calls.append(("cancel", None))
        if self._thread is not None and self._thread.is_alive():
            self.status = replace(self.status, state="cancelling", said=(of_text("Cancelling"),))
            self._cancel.set()

    def skip_warm_up(self) -> None:
        self.calls.append(("skip_warm_up", None))

    def join(self, timeout_s: float | None = None) -> bool:
        if self._thread is not None:
            self._thread.join(timeout_s)
            return not self._thread.is_alive()
        return True

    def live(self) -> Run | None:
        if self._full is None:
            return None
        return first_moments(self._full, self._closed, "running" if self.status.state == "running" else "finished")

    def open_session(self, path: Path) -> None:
        self.calls.append(("open_session", Path(path)))
        self.session_path = Path(path)
        self.notices.put(Notice("session_changed", f"{Path(path).name} is open."))

    def new_session(self, path: Path | None = None) -> None:
        self.calls.append(("new_session", path))
        self.session_path = path
        self.notices.put(Notice("session_changed", "A new session is open."))

    def probe_targets(self) -> list[TargetFacts]:
        return [
            TargetFacts("cpu", "CPU", "Example CPU", True, None, 24 << 30, 2),
            TargetFacts("cuda", "CUDA", "", False, "no NVIDIA GPU here"),
        ]

    def close(self, limit_s: float | None = None) -> bool:
        self.calls.append(("close", limit_s))
        self._cancel.set()
        return self.join(10)

    # What happens on the worker thread

    def _begin(self, work) -> None:
        assert self.join(0), "the fake does one thing at a time"
        self._cancel.clear()
        self._thread = threading.Thread(target=work, name="fake-worker")
        self._thread.start()

    def _load(self, model: ModelConfig) -> bool:
        self.status = Status("loading", (of_text("Loading"),), 0.5)
        if self._cancel.wait(self.load_s):
            self.status = Status("idle", (of_text("No model is loaded"),))
            self.notices.put(Notice("cancelled", "Loading was cancelled."))
            return False
        if self.refuse_load is not None and not model.force:
            self.status = Status("idle", (of_text("No model is loaded"),))
            self.notices.put(self.refuse_load)
            return False
        self.loaded = replace(synthetic_run(repeats=1, warmup=0, new_tokens=1).facts.model, spec=model.spec)
        self.load_ns = 900_000_000
        self.status = Status("ready", (of_text("Loaded"),))
        self.notices.put(Notice("loaded", "SmolLM2-135M-Instruct was loaded in 0.9 s."))
        return True

    def _run(self, config: RunConfig) -> None:
        if self.loaded is None and not self._load(config.model):
            return
        self.status = Status("preparing", (of_text("Preparing"),))
        work = config.workload
        repeats, warmup = work.repeats or 3, 1 if work.warmup is None else work.warmup
        full = synthetic_run(repeats=repeats, warmup=warmup, new_tokens=work.new_tokens, blocks=self._blocks)
        self._ids += 1
        self._full, self._closed = replace(full, id=self._ids, config=config), 0
        self.notices.put(Notice("job_started", "The run started.", run=self._ids, job="run"))
        total = full.facts.planned_moments
        for done in range(total):
            self.gate.clock_runs = True
            self.status = Status(
                "running", f"repeat 1 of 1 · moment {done + 1} of {total}", done / total, (total - done) * self.moment_s
            )
            if self._cancel.wait(self.moment_s):
                break
            self.gate.clock_runs = False
            self._closed = done + 1
            self.live_text = TEXT[: done + 1]
            if self.gate.wanted:
                self.gate.pause()
        self.gate.clock_runs = False
        self._finish()

    def _finish(self) -> None:
        if self._cancel.is_set():
            notice = Notice("job_cancelled", "The run was cancelled; what was measured is kept.", run=self._ids, job="run")
        else:
            notice = self.fail_run or Notice("job_finished", "The run is finished.", run=self._ids, job="run")
        self.status = Status("ready", (of_text("Ready"),))
        self.notices.put(notice)
