"""What a job is: one thing that somebody asked for and waits for, and how it tells where it stands and how it ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from core.clock.gate import Gate
from core.execution.ab_test_state import ABTestState
from core.execution.model_slot import ModelSlot
from core.messages.reason import Reason
from core.notices import Notice, Status
from core.progress import Progress
from core.records.run import Run, RunFacts
from core.registry import Registry
from profilers.trace import Recorder


class Recorded(Protocol):
    """A run under way, as the window's half sees it: a recording of this process, or the mirror of one elsewhere."""

    number: int  # its id in the session, given once the session file has it
    recorder: Recorder
    facts: RunFacts

    def run(self) -> Run: ...


class Listener(Protocol):
    """Told on a thread of the carrier's, never on the window's, while nothing is measured: each method may take its time."""

    def tell(self, notice: Notice) -> None:
        """Something that people should know."""

    def began(self, recorded: Recorded) -> None:
        """A run is about to begin; nothing is recorded yet. ``Refusal`` where it cannot be kept."""

    def ended(self, runs: Sequence[Run]) -> Sequence[Run]:
        """Runs are over (the sides of one test together); returns them with the ids under which they are kept."""


@dataclass
class JobContext:
    """What a job works with, on the worker thread.

    ``loaded`` is told of each model that comes into memory, with how long that took. ``known`` are sentences about models that
    need not be said again with every run. ``stage`` is told which of ``notices.STATES`` the job is in.
    """

    kind: str
    slot: ModelSlot
    gate: Gate
    progress: Progress
    listener: Listener
    loaded: Callable[[Any, int], None]
    known: set[Reason]
    stage: Callable[[str], None]
    said_end: bool = field(default=False, init=False)

    def started(self, sentence: Reason, run: int | None = None) -> None:
        """What is measured can be seen from now on."""
        self.stage("running" if not self.progress.cancelled.is_set() else "cancelling")
        self.listener.tell(Notice("job_started", sentence, run=run, job=self.kind))

    def ended(self, status: str, sentence: Reason | None = None, run: int | None = None) -> None:
        """The job is over; ``status`` is "finished", "cancelled" (what there is was kept) or "failed"."""
        self.said_end = True
        self.listener.tell(Notice(f"job_{status}", sentence, run=run, job=self.kind))

    def warn(self, sentence: Reason) -> None:
        """It goes on, but people should know."""
        self.listener.tell(Notice("warning", sentence))


class Job(ABC):
    """``carry_out`` is for the worker thread; all the rest is for any thread, at any time from the job's making on."""

    kind: ClassVar[str]

    @abstractmethod
    def carry_out(self, context: JobContext) -> None:
        """Do it to its end; what it raises is told as the reason why it ended."""

    @property
    def shown(self) -> Recorded | None:
        """The run under way that is on show."""
        return None

    @property
    def ab_test(self) -> ABTestState | None:
        """The A/B test that this is, from the moment its sides are known."""
        return None

    def status(self, state: str) -> Status | None:
        """Where it stands, once it measures; None: as its progress says."""
        return None

    def cancel(self) -> None:
        """Stop soon. Its progress was cancelled before."""
        return

    def skip_warm_up(self) -> None:
        """Measure as soon as it can."""
        return

    def give_up(self) -> None:
        """It does not end: complete the facts of its runs, as cancelled."""
        return


@dataclass
class JobKind:
    """How a job of that id is made from ``config``, the type of what is asked: for jobs that can be asked for over a link."""

    id: str
    config: type
    make: Callable[[Any], Job]


job_kinds: Registry[JobKind] = Registry("kind of job", "core.execution.jobs")
