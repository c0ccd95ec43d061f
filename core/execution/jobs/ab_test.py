"""The job that carries out an A/B test."""

from __future__ import annotations

from dataclasses import replace

from core.config import ABTestConfig
from core.execution import outcome
from core.execution.ab_test import ABTest
from core.execution.ab_test_state import ABTestState
from core.execution.job_status import ab_test_status
from core.execution.jobs.base import Job, JobContext, JobKind, Recorded, job_kinds
from core.execution.jobs.run import warn_if_busy
from core.messages.reason import Reason
from core.notices import Status
from core.pass_api.options import typed_run
from core.records.noise_floors import NoiseFloors
from core.surroundings import kept


class RunABTest(Job):
    """Loads every side, lets them take turns, and judges."""

    kind = "ab_test"

    def __init__(self, config: ABTestConfig) -> None:
        self._config = config
        self._test: ABTest | None = None
        self._over: ABTestState | None = None

    @property
    def shown(self) -> Recorded | None:
        return None if self._test is None else self._test.shown

    @property
    def ab_test(self) -> ABTestState | None:
        return self._over or (None if self._test is None else self._test.state())

    def status(self, state: str) -> Status | None:
        return None if self._test is None else ab_test_status(state, self._test)

    def cancel(self) -> None:
        if self._test is not None:
            self._test.cancel()

    def skip_warm_up(self) -> None:
        for recording in self._test.recordings if self._test is not None else ():
            recording.warming.skip()

    def give_up(self) -> None:
        if self._test is not None:
            self._test.give_up()

    def carry_out(self, context: JobContext) -> None:
        config = replace(self._config, sides=tuple(typed_run(side) for side in self._config.sides))
        context.stage("loading")
        warn_if_busy(context, config.sides[0])
        listener = context.listener
        test = ABTest(config, context.slot, context.gate, context.progress, listener.began, NoiseFloors())
        try:
            test.load()
            self._test = test
            context.started(Reason("execution.sides-take-turns"))
            try:
                with kept(threads=False) as changes:  # each side has its own number of them
                    test.carry_out()
                for sentence in changes.sentences(Reason("execution.a-side")):
                    context.warn(sentence)
            finally:
                self._end(test, context)
        finally:
            test.unload()

    def _end(self, test: ABTest, context: JobContext) -> None:
        if test.trouble:
            context.warn(test.trouble)
        state = test.state()
        self._over = state = replace(state, runs=tuple(context.listener.ended(state.runs)))
        status = state.runs[0].facts.status
        context.ended(status, outcome.of_ab_test(status, test.stopped, state.runs))


job_kinds.register(lambda: JobKind(RunABTest.kind, ABTestConfig, RunABTest))
