"""The carrier of this process: one worker thread owns model, tokenizer, passes and instruments."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from core.clock.gate import Gate
from core.execution import outcome
from core.execution.ab_test_state import ABTestState
from core.execution.foresight import Foresight
from core.execution.jobs.base import Job, JobContext, Listener, Recorded, job_kinds
from core.execution.libraries import import_libraries
from core.execution.model_slot import ModelSlot
from core.execution.worker import Worker
from core.messages.reason import Reason
from core.models.base import ModelFacts
from core.notices import Notice, Status
from core.private_folders import keep_compiler_private
from core.progress import Progress


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
        self._job: Job | None = None
        self._last_ab_test: ABTestState | None = None
        self._known: set[Reason] = set()  # sentences about models, which need not be said again with every run
        self._worker = Worker(self._failed)
        self.foresight = Foresight(self._worker, self._slot)

    # -- any thread -------------------------------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        job = self._job
        measuring = job is not None and self._state in ("running", "cancelling")
        found = job.status(self._state) if job is not None and measuring else None
        return found or Status(self._state, self._progress.said, self._progress.fraction)

    @property
    def busy(self) -> bool:
        return self._worker.busy

    @property
    def shown(self) -> Recorded | None:
        job = self._job
        return None if job is None else job.shown

    @property
    def ab_test(self) -> ABTestState | None:
        job = self._job
        return (None if job is None else job.ab_test) or self._last_ab_test

    @property
    def process(self) -> int | None:
        return None

    def do(self, kind: str, config: Any) -> None:
        self.carry(job_kinds.get(kind).make(config))

    def carry(self, job: Job) -> None:
        """Queue a job that is made already, as one that works on what is in memory here."""
        self.foresight.stop()
        progress = Progress(self._deaf)
        self._pending.append(progress)  # from now on, so that a cancel before the job begins is not lost
        self._worker.submit(lambda: self._carry_out(job, progress))

    def cancel(self) -> None:
        self.foresight.stop()
        pending = list(self._pending)
        if pending:
            self._state = "cancelling"
        for progress in reversed(pending):  # what waits first, or it would begin as soon as what goes on has ended
            progress.cancel()
        job = self._job
        if job is not None:
            job.cancel()

    def skip_warm_up(self) -> None:
        job = self._job
        if job is not None:
            job.skip_warm_up()

    def import_ahead(self) -> None:
        """Import on the worker, while it has nothing else to do, what the first model will need: seconds that nobody waits."""
        self._worker.submit(lambda: import_libraries(lambda: self._worker.closing), awaited=False)

    def join(self, timeout_s: float | None = None) -> bool:
        return self._worker.join(timeout_s)

    def close(self, limit_s: float | None = None) -> bool:
        self._worker.submit(self._slot.unload)
        return self._worker.close(limit_s)

    def give_up(self) -> None:
        job = self._job
        if job is not None:
            job.give_up()

    def aside(self, work: Callable[[], None]) -> None:
        """Do something on the worker that nobody waits for and that is no job."""
        self._worker.submit(work, awaited=False)

    # -- on the worker ----------------------------------------------------------------------------------------------------

    def _carry_out(self, job: Job, progress: Progress) -> None:
        """A job from its beginning to its end, whatever it is and however it ends."""
        self._progress = progress
        context = JobContext(
            job.kind, self._slot, self._gate, progress, self._listener, self._on_loaded, self._known, self._on_stage
        )
        self._job = job
        try:
            progress.check()
            job.carry_out(context)
            if not context.said_end:
                context.ended("finished")
        except BaseException as error:  # noqa: BLE001 - whatever a model's code raises, the app lives on
            if not (context.said_end and progress.cancelled.is_set()):
                self._listener.tell(outcome.of_error(error, job.kind))
        finally:
            progress.end()
            if progress.interruptible.insisted:  # in the middle of whatever it was: begin afresh
                self._slot.start_over()
            self._pending.remove(progress)
            self._last_ab_test = job.ab_test or self._last_ab_test
            self._job = None
            self.loaded = self._slot.loaded.facts if self._slot.loaded else None
            self._state = "ready" if self.loaded else "idle"

    def _on_loaded(self, facts: ModelFacts, took_ns: int) -> None:
        self.loaded, self.load_ns = facts, took_ns

    def _on_stage(self, state: str) -> None:
        self._state = state

    def _deaf(self) -> None:
        self._listener.tell(Notice("warning", Reason("execution.deaf-to-cancel")))

    def _failed(self, error: BaseException) -> None:
        """Something beside the jobs raised."""
        self._listener.tell(outcome.of_error(error))
