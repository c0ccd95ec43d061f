"""The carrier of this process: one worker thread owns model, tokenizer, passes and instruments."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from core.clock.gate import Gate
from core.config import ABTestConfig, ModelConfig, RunConfig, TargetConfig
from core.execution import outcome
from core.execution.ab_test import ABTest, ABTestState
from core.execution.carriers.base import Listener
from core.execution.foresight import Foresight
from core.execution.job_status import ab_test_status, run_status
from core.execution.libraries import import_libraries
from core.execution.model_slot import ModelSlot
from core.execution.preparation import prepare, probed, recording
from core.execution.recording import Recording
from core.execution.worker import Worker
from core.models.base import ModelFacts
from core.notices import Notice, Status
from core.pass_api.options import typed_run
from core.private_folders import keep_compiler_private
from core.progress import Progress
from core.records.noise_floors import NoiseFloors
from core.surroundings import kept
from core.units import duration, size
from profilers import noise


class LocalCarrier:
    """See ``Carrier``.

    Args:
        gate: who may come in between two moments.
        listener: is told on the worker thread.
    """

    id = "local"

    def __init__(self, gate: Gate, listener: Listener) -> None:
        # Kineto prints a line whenever a profiler starts or stops, at every level below this one.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        keep_compiler_private()
        self._gate = gate
        self._listener = listener
        self.loaded: ModelFacts | None = None
        self.load_ns: int | None = None
        self._slot = ModelSlot()
        self._progress = Progress()
        self._pending: list[Progress] = []
        self._state = "idle"
        self._recording: Recording | None = None
        self._ab_test: ABTest | None = None
        self._last_ab_test: ABTestState | None = None
        self._told: set[str] = set()  # about models, which need not be said again with every run
        self._worker = Worker(self._failed)
        self.foresight = Foresight(self._worker, self._slot)

    # -- any thread -------------------------------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        recording, ab_test = self._recording, self._ab_test
        if self._state in ("running", "cancelling"):
            if ab_test is not None:
                return ab_test_status(self._state, ab_test)
            if recording is not None:
                return run_status(self._state, recording)
        return Status(self._state, self._progress.text, self._progress.fraction)

    @property
    def busy(self) -> bool:
        return self._worker.busy

    @property
    def shown(self) -> Recording | None:
        ab_test = self._ab_test
        return ab_test.shown if ab_test is not None else self._recording

    @property
    def ab_test(self) -> ABTestState | None:
        ab_test = self._ab_test
        return ab_test.state() if ab_test is not None else self._last_ab_test

    def load(self, model: ModelConfig, target: TargetConfig) -> None:
        self.submit(lambda: self._load(model, target))

    def unload(self) -> None:
        self.submit(self._unload)

    def start(self, config: RunConfig) -> None:
        self.submit(lambda: self._run(config))

    def start_ab_test(self, config: ABTestConfig) -> None:
        self.submit(lambda: self._carry_out_ab_test(config))

    def cancel(self) -> None:
        self.foresight.stop()
        pending = list(self._pending)
        if pending:
            self._state = "cancelling"
        for progress in pending:
            progress.cancel()
        ab_test = self._ab_test
        recording = ab_test.active if ab_test is not None else self._recording
        if recording is not None:
            recording.cancel()

    def skip_warm_up(self) -> None:
        ab_test, recording = self._ab_test, self._recording
        for one in ab_test.recordings if ab_test is not None else (recording,) if recording is not None else ():
            one.warming.skip()

    def import_ahead(self) -> None:
        """Import on the worker, while it has nothing else to do, what the first model will need: seconds that nobody waits."""
        self._worker.submit(lambda: import_libraries(lambda: self._worker.closing), awaited=False)

    def join(self, timeout_s: float | None = None) -> bool:
        return self._worker.join(timeout_s)

    def close(self, limit_s: float | None = None) -> bool:
        self._worker.submit(self._slot.unload)
        return self._worker.close(limit_s)

    def give_up(self) -> None:
        doing = self._ab_test or self._recording
        if doing is not None:
            doing.give_up()

    def aside(self, job: Callable[[], None]) -> None:
        """Do something on the worker that nobody waits for and that is no job of its own."""
        self._worker.submit(job, awaited=False)

    def submit(self, job: Callable[[], None]) -> None:
        """Queue a job for the worker."""
        self.foresight.stop()
        progress = Progress(self._deaf)
        self._pending.append(progress)  # from now on, so that a cancel before the job begins is not lost

        def job_with_progress() -> None:
            self._progress = progress
            try:
                progress.check()
                job()
            finally:
                progress.end()
                if progress.interruptible.insisted:  # in the middle of whatever it was: begin afresh
                    self._slot.start_over()
                self._pending.remove(progress)
                self._recording = self._ab_test = None
                self.loaded = self._slot.loaded.facts if self._slot.loaded else None
                self._state = "ready" if self.loaded else "idle"

        self._worker.submit(job_with_progress)

    # -- on the worker ----------------------------------------------------------------------------------------------------

    def begin_reading(self, text: str) -> Progress:
        """A job that reads something says so; returns its progress."""
        self._state = "loading"
        self._progress.report(text, None)
        return self._progress

    def _load(self, model: ModelConfig, target: TargetConfig) -> None:
        self._state = "loading"
        self._progress.report("Loading", None)
        facts = probed(target)
        loaded_before = self._slot.loaded
        model_facts = self._slot.load(model, facts.id, self._progress)
        loaded = self._slot.loaded
        assert loaded is not None
        if loaded is not loaded_before:
            self.loaded, self.load_ns = model_facts, loaded.load_ns
            grown = max(0, loaded.rss_after_bytes - loaded.rss_before_bytes)
            sentence = f"Loaded {model_facts.name} in {duration(loaded.load_ns)}; memory grew by {size(grown)}."
            self._listener.tell(Notice("loaded", sentence))

    def _unload(self) -> None:
        self._slot.unload()
        self._listener.tell(Notice("unloaded", "The model was unloaded."))

    def _run(self, config: RunConfig) -> None:
        config = typed_run(config)
        self._load(config.model, config.target)
        self._state = "preparing"
        prepared = prepare(config, self._slot, self._progress)
        self._warn_if_busy(config)
        under_way = recording(config, prepared, self._gate, self._progress)
        self._begin(under_way)
        try:
            under_way.carry_out(prepared)
        finally:
            self._end(under_way)

    def _begin(self, recording: Recording) -> None:
        """The run becomes visible."""
        self._listener.began(recording)
        self._recording = recording
        self._state = "running" if not self._progress.cancelled.is_set() else "cancelling"
        self._listener.tell(Notice("run_started", f"Running {recording.run().name}.", run=recording.number))

    def _end(self, recording: Recording) -> None:
        (run,) = self._listener.ended([recording.run()])
        self._listener.tell(outcome.of_run(run))
        for words in outcome.worth_telling(run, self._told):
            self._warn(words)

    def _carry_out_ab_test(self, config: ABTestConfig) -> None:
        config = replace(config, sides=tuple(typed_run(side) for side in config.sides))
        self._state = "loading"
        self._warn_if_busy(config.sides[0])
        ab_test = ABTest(config, self._slot, self._gate, self._progress, self._listener.began, NoiseFloors())
        try:
            ab_test.load()
            self._ab_test, self._last_ab_test = ab_test, None
            self._state = "running" if not self._progress.cancelled.is_set() else "cancelling"
            self._listener.tell(Notice("trial_started", "The sides take turns now."))
            try:
                with kept(threads=False) as changes:  # each side has its own number of them
                    ab_test.carry_out()
                for sentence in changes.sentences("a side"):
                    self._warn(sentence)
            finally:
                self._end_ab_test(ab_test)
        finally:
            ab_test.unload()

    def _end_ab_test(self, ab_test: ABTest) -> None:
        if ab_test.trouble:
            self._warn(ab_test.trouble)
        state = ab_test.state()
        self._last_ab_test = state = replace(state, runs=tuple(self._listener.ended(state.runs)))
        self._listener.tell(outcome.of_ab_test(state.runs[0].facts.status, ab_test.stopped))

    def _warn_if_busy(self, config: RunConfig) -> None:
        """Look for a moment whether somebody else computes; the run goes on, but people should know."""
        if "noise" in config.profilers:
            why = noise.busy_now()
            if why:
                self._listener.tell(Notice("busy", why))

    def _deaf(self) -> None:
        self._warn("What is going on does not react to the cancel. What was measured is saved; close the window to end it.")

    def _failed(self, error: BaseException) -> None:
        """A job raised."""
        self._listener.tell(outcome.of_error(error))

    def _warn(self, sentence: str) -> None:
        self._listener.tell(Notice("warning", sentence))
