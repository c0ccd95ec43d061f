"""The program without a face: what the window and the command line both drive."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from core import paths
from core.clock.gate import Gate
from core.config import ABTestConfig, ModelConfig, RunConfig, TargetConfig
from core.ending import LIMIT_S, hanging, within
from core.execution import outcome
from core.execution.ab_test import ABTest, ABTestState
from core.execution.foresight import Foresight
from core.execution.job_status import run_status, trial_status
from core.execution.libraries import import_libraries
from core.execution.model_slot import ModelSlot
from core.execution.preparation import prepare, probed, recording
from core.execution.recording import Recording
from core.execution.worker import Worker
from core.machine_cache import sweep_once
from core.models.base import ModelFacts
from core.notices import Notice, Status, Warnings
from core.planning import plan
from core.private_folders import keep_compiler_private
from core.progress import Progress
from core.records.noise_floors import NoiseFloors
from core.records.run import Run
from core.session.current import CurrentSession
from core.surroundings import kept
from core.targets.base import TargetFacts, targets
from core.units import duration, size
from profilers import noise

if TYPE_CHECKING:  # DuckDB takes 85 ms to import, which the window should not wait for
    from core.session.store import SessionStore


class Program:
    """Holds the worker, the gate, the session and the notices. Every method returns at once unless it says otherwise.

    What happens on the worker is told through ``notices``; where it stands, through ``status``.
    """

    def __init__(self, session_path: Path | None = None, *, keep_session: bool = True) -> None:
        # Kineto prints a line whenever a profiler starts or stops, at every level below this one.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        keep_compiler_private()
        self.gate = Gate()
        self.notices: queue.SimpleQueue[Notice] = queue.SimpleQueue()
        self._session = CurrentSession(session_path, keep_session, self.gate, self.notices.put)
        self.loaded: ModelFacts | None = None
        self.load_ns: int | None = None
        self._holder = ModelSlot()
        self._progress = Progress()
        self._pending: list[Progress] = []
        self._state = "idle"
        self._recording: Recording | None = None
        self._last: Run | None = None
        self._trial: ABTest | None = None
        self._last_trial: ABTestState | None = None
        self.abandoned = False
        self._told: set[str] = set()  # about models, which need not be said again with every run
        self._worker = Worker(self._failed)
        self._warnings = Warnings(self._warn)
        self._worker.submit(sweep_once, awaited=False)
        self.foresight = Foresight(self._worker, self._holder)
        if session_path is not None and paths.is_there(session_path):
            self.open_session(session_path)

    # -- what the faces read ----------------------------------------------------------------------------------------------

    @property
    def store(self) -> SessionStore | None:
        """The open session; None until the first run."""
        return self._session.store

    @property
    def status(self) -> Status:
        """What is going on, as of now; cheap enough for every tick."""
        recording, trial = self._recording, self._trial
        if self._state in ("running", "cancelling"):
            if trial is not None:
                return trial_status(self._state, trial)
            if recording is not None:
                return run_status(self._state, recording)
        return Status(self._state, self._progress.text, self._progress.fraction)

    @property
    def busy(self) -> bool:
        """Whether the worker has something to do."""
        return self._worker.busy

    def live(self) -> Run | None:
        """The run under way with a fresh snapshot, or the last one; in a trial, that of its last side."""
        recording = self._shown
        return recording.run() if recording is not None else self._last

    @property
    def live_text(self) -> str:
        """The text of the request under way, as of the last pause."""
        recording = self._shown
        return recording.recorder.live_text if recording is not None else ""

    @property
    def trial(self) -> ABTestState | None:
        """The trial under way with fresh snapshots, or the last one."""
        trial = self._trial
        return trial.state() if trial is not None else self._last_trial

    @property
    def _shown(self) -> Recording | None:
        trial = self._trial
        return trial.shown if trial is not None else self._recording

    @property
    def _active(self) -> Recording | None:
        trial = self._trial
        return trial.active if trial is not None else self._recording

    def probe_targets(self) -> list[TargetFacts]:
        """All targets, with the reason where one is absent (as much as is known before torch is loaded)."""
        return [target.probe() for target in targets]

    # -- what people ask for ----------------------------------------------------------------------------------------------

    def load(self, model: ModelConfig, target: TargetConfig) -> None:
        """Load a model onto a target."""
        self._submit(lambda: self._load(model, target))

    def unload(self) -> None:
        """Let the model go."""
        self._submit(self._unload)

    def start(self, config: RunConfig) -> None:
        """Carry out a run, loading its model first where needed."""
        self._submit(lambda: self._run(config))

    def start_trial(self, config: ABTestConfig) -> None:
        """Carry out a trial; its sides become runs of the session."""
        self._submit(lambda: self._carry_out_trial(config))

    def import_trace(self, path: Path) -> None:
        """Read a Kineto or Chrome trace into a run of the session."""
        self._submit(lambda: self._import(path))

    def cancel(self) -> None:
        """Cancel what is going on; what was measured is kept."""
        self.foresight.stop()
        pending = list(self._pending)
        if pending:
            self._state = "cancelling"
        for progress in pending:
            progress.cancel()
        recording = self._active
        if recording is not None:
            recording.cancel()

    def skip_warm_up(self) -> None:
        """Let what is under way measure as soon as it can; nothing where nothing warms up."""
        trial, recording = self._trial, self._recording
        for one in trial.recordings if trial is not None else (recording,) if recording is not None else ():
            one.warming.skip()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the worker has nothing to do; False if ``timeout_s`` passed first."""
        return self._worker.join(timeout_s)

    def open_session(self, path: Path) -> None:
        """Close the session and open another; ``Refusal`` if that cannot be opened (the present one then stays). Waits."""
        self._session.change(path, create=False)

    def new_session(self, path: Path | None = None) -> None:
        """Close the session and begin another, at ``path`` or (with the first run) in the user's data folder. Waits."""
        if path is None:
            self._session.leave()
        else:
            self._session.change(path, create=True)

    def close(self, limit_s: float | None = None) -> bool:
        """Cancel what is going on, write everything, and end all threads. Waits, for the worker no longer than ``limit_s``.

        Returns whether all threads ended; if not, what was measured was written without them, and the process has to end.
        """
        self.cancel()
        if not self.abandoned:
            self._worker.submit(self._holder.unload)
            if self._worker.close(limit_s):
                self._session.close()
            else:
                self.abandon()
        self._warnings.close()
        return not self.abandoned

    def abandon(self) -> None:
        """What goes on does not end: write what was measured, as cancelled, close the session. Waits ``LIMIT_S`` at most."""
        if self.abandoned:
            return
        self.abandoned = True
        hanging.set()
        doing = self._trial or self._recording

        def write() -> None:
            if doing is not None:
                doing.give_up()
            self._session.close()

        if not within(LIMIT_S, write):
            self.notices.put(Notice("warning", "The last second of what was measured could not be written in time."))

    def import_ahead(self) -> None:
        """Import on the worker, while it has nothing else to do, what the first model will need: seconds that nobody waits."""
        self._worker.submit(lambda: import_libraries(lambda: self._worker.closing), awaited=False)

    # -- on the worker ----------------------------------------------------------------------------------------------------

    def _submit(self, job: Callable[[], None]) -> None:
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
                    self._holder.start_over()
                self._pending.remove(progress)
                self._recording = self._trial = None
                self.loaded = self._holder.loaded.facts if self._holder.loaded else None
                self._state = "ready" if self.loaded else "idle"

        self._worker.submit(job_with_progress)

    def _load(self, model: ModelConfig, target: TargetConfig) -> None:
        self._state = "loading"
        self._progress.report("Loading", None)
        facts = probed(target)
        loaded_before = self._holder.loaded
        model_facts = self._holder.load(model, facts.id, self._progress)
        loaded = self._holder.loaded
        assert loaded is not None
        if loaded is not loaded_before:
            self.loaded, self.load_ns = model_facts, loaded.load_ns
            grown = max(0, loaded.rss_after_bytes - loaded.rss_before_bytes)
            self.notices.put(
                Notice("loaded", f"Loaded {model_facts.name} in {duration(loaded.load_ns)}; memory grew by {size(grown)}.")
            )

    def _unload(self) -> None:
        self._holder.unload()
        self.notices.put(Notice("unloaded", "The model was unloaded."))

    def _run(self, config: RunConfig) -> None:
        config = plan.typed_run(config)
        self._load(config.model, config.target)
        self._state = "preparing"
        prepared = prepare(config, self._holder, self._progress)
        self._warn_if_busy(config)
        under_way = recording(config, prepared, self.gate, self._progress)
        self._begin(under_way)
        try:
            under_way.carry_out(prepared)
        finally:
            self._end(under_way)

    def _carry_out_trial(self, config: ABTestConfig) -> None:
        config = replace(config, sides=tuple(plan.typed_run(side) for side in config.sides))
        self._state = "loading"
        self._warn_if_busy(config.sides[0])
        trial = ABTest(config, self._holder, self.gate, self._progress, self._session.follow, NoiseFloors())
        try:
            trial.load()
            self._trial = trial
            self._last = self._last_trial = None
            self._state = "running" if not self._progress.cancelled.is_set() else "cancelling"
            self.notices.put(Notice("trial_started", "The sides take turns now."))
            try:
                with kept(threads=False) as changes:  # each side has its own number of them
                    trial.carry_out()
                for sentence in changes.sentences("a side"):
                    self._warn(sentence)
            finally:
                self._end_trial(trial)
        finally:
            trial.unload()

    def _end_trial(self, trial: ABTest) -> None:
        if trial.trouble:
            self.notices.put(Notice("warning", trial.trouble))
        state = trial.state()
        self._last_trial = state = replace(state, runs=tuple(self._session.settle(state.runs)))
        self._last = state.runs[-1]
        self.notices.put(outcome.of_trial(state.runs[0].facts.status, trial.stopped))

    def _import(self, path: Path) -> None:
        from core.imports.kineto import read_trace

        self._state = "loading"
        self._progress.report(f"Reading {path.name}", None)
        with self._progress.interruptible:
            run = read_trace(path)
        self._last = run = self._session.add(run)
        self.notices.put(Notice("imported", f"Imported {run.name}.", run=run.id))

    def _warn_if_busy(self, config: RunConfig) -> None:
        """Look for a moment whether somebody else computes; the run goes on, but people should know."""
        if "noise" in config.profilers:
            why = noise.busy_now()
            if why:
                self.notices.put(Notice("busy", why))

    def _begin(self, recording: Recording) -> None:
        """The run becomes visible."""
        self._session.follow(recording)
        self._recording = recording
        self._last = None
        self._state = "running" if not self._progress.cancelled.is_set() else "cancelling"
        self.notices.put(Notice("run_started", f"Running {recording.run().name}.", run=recording.number))

    def _end(self, recording: Recording) -> None:
        (self._last,) = self._session.settle([recording.run()])
        self.notices.put(outcome.of_run(self._last))
        for words in outcome.worth_telling(self._last, self._told):
            self._warn(words)

    def _deaf(self) -> None:
        self._warn("What is going on does not react to the cancel. What was measured is saved; close the window to end it.")

    def _failed(self, error: BaseException) -> None:
        """A job raised."""
        self.notices.put(outcome.of_error(error))

    def _warn(self, sentence: str) -> None:
        self.notices.put(Notice("warning", sentence))
