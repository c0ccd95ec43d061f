"""What a carrier is: it carries jobs out wherever the model is, and tells what happens there."""

from __future__ import annotations

from typing import Any, Protocol

from core.execution.ab_test_state import ABTestState
from core.execution.jobs.base import Recorded
from core.models.base import ModelFacts
from core.notices import Status


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

    @property
    def process(self) -> int | None:
        """The number of the process that the model is in; None while there is none but this one."""

    def do(self, kind: str, config: Any) -> None:
        """Carry out a job of that kind (``jobs.base.job_kinds``); ``config`` is what its kind asks for."""

    def cancel(self) -> None:
        """Cancel what is going on and what waits; what was measured is kept."""

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
