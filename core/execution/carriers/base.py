"""What a carrier is: it carries jobs out wherever the model is, and tells what happens there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from core.config import ABTestConfig, ModelConfig, RunConfig, TargetConfig
from core.execution.ab_test import ABTestState
from core.models.base import ModelFacts
from core.notices import Notice, Status
from core.records.run import Run, RunFacts
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


class Carrier(Protocol):
    """Carries one job out after another. Every method returns at once unless it says otherwise; all are for any thread."""

    id: str

    @property
    def status(self) -> Status:
        """What is going on, as of now; cheap enough for every tick."""

    @property
    def busy(self) -> bool:
        """Whether there is something to do that somebody waits for."""

    @property
    def loaded(self) -> ModelFacts | None:
        """The model that is in memory there."""

    @property
    def load_ns(self) -> int | None:
        """How long loading it took."""

    @property
    def shown(self) -> Recorded | None:
        """The run under way that is on show; of an A/B test its last side. None while there is none."""

    @property
    def ab_test(self) -> ABTestState | None:
        """The A/B test under way, or the last one."""

    def load(self, model: ModelConfig, target: TargetConfig) -> None:
        """Load a model onto a target."""

    def unload(self) -> None:
        """Let the model go."""

    def start(self, config: RunConfig) -> None:
        """Carry out a run, loading its model first where needed."""

    def start_ab_test(self, config: ABTestConfig) -> None:
        """Carry out an A/B test."""

    def cancel(self) -> None:
        """Cancel what is going on; what was measured is kept."""

    def skip_warm_up(self) -> None:
        """Let what is under way measure as soon as it can; nothing where nothing warms up."""

    def import_ahead(self) -> None:
        """Get ready, while nobody waits, for the first model."""

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until there is nothing to do; False if ``timeout_s`` passed first."""

    def close(self, limit_s: float | None = None) -> bool:
        """Let go of the model and end; waits, no longer than ``limit_s``. False: what goes on does not end."""

    def give_up(self) -> None:
        """What goes on does not end: complete the facts of the runs under way, as cancelled."""
