"""The job that carries out one run."""

from __future__ import annotations

from core.config import RunConfig
from core.execution import outcome
from core.execution.job_status import run_status
from core.execution.jobs.base import Job, JobContext, JobKind, Recorded, job_kinds
from core.execution.jobs.load import load
from core.execution.preparation import prepare, recording
from core.execution.recording import Recording
from core.messages.reason import Reason, as_reason
from core.notices import Notice, Status
from core.pass_api.options import typed_run
from profilers import noise


def warn_if_busy(context: JobContext, config: RunConfig) -> None:
    """Look for a moment whether somebody else computes; the run goes on, but people should know."""
    if "noise" in config.profilers:
        why = noise.busy_now()
        if why:
            context.listener.tell(Notice("busy", as_reason(why)))


class RunOnce(Job):
    """Loads the model where needed, prepares it, and measures."""

    kind = "run"

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._recording: Recording | None = None

    @property
    def shown(self) -> Recorded | None:
        return self._recording

    def status(self, state: str) -> Status | None:
        return None if self._recording is None else run_status(state, self._recording)

    def cancel(self) -> None:
        if self._recording is not None:
            self._recording.cancel()

    def skip_warm_up(self) -> None:
        if self._recording is not None:
            self._recording.warming.skip()

    def give_up(self) -> None:
        if self._recording is not None:
            self._recording.give_up()

    def carry_out(self, context: JobContext) -> None:
        config = typed_run(self._config)
        load(context, config.model, config.target)
        context.stage("preparing")
        prepared = prepare(config, context.slot, context.progress)
        warn_if_busy(context, config)
        under_way = recording(config, prepared, context.gate, context.progress)
        context.listener.began(under_way)
        self._recording = under_way
        context.started(Reason("execution.running", name=under_way.run().name), under_way.number)
        try:
            under_way.carry_out(prepared)
        finally:
            (run,) = context.listener.ended([under_way.run()])
            context.ended(run.facts.status, outcome.of_run(run), run.id)
            for told in outcome.worth_telling(run, context.known):
                context.warn(told)


job_kinds.register(lambda: JobKind(RunOnce.kind, RunConfig, RunOnce))
