"""Foresight: predicts the gain of each pass on the worker while it has nothing else to do, and stops for any job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from core.config import PassConfig, RunConfig
from core.errors import Cancelled, Refusal
from core.execution.model_slot import ModelSlot, give_memory_back
from core.execution.tasks.base import form_of
from core.execution.worker import Worker
from core.messages.reason import Reason
from core.planning import plan
from core.planning.gains import IN_USE, Asked, Prediction, predictions
from core.progress import Progress
from core.targets.base import targets


@dataclass(frozen=True)
class Foreseen:
    """Predictions by pass, so far. ``config`` and ``choices`` are what they are for; ``done``: all of them are known.

    ``why`` is the reason where nothing can be predicted now.
    """

    config: RunConfig
    choices: tuple[PassConfig, ...]
    found: Mapping[str, Prediction] = field(default_factory=lambda: MappingProxyType({}))
    done: bool = False
    why: Reason | None = None


class Foresight:
    """Asked from any thread. ``seen`` is replaced as a whole with each pass that is predicted, so no reader needs a lock."""

    def __init__(self, worker: Worker, holder: ModelSlot) -> None:
        self._worker = worker
        self._holder = holder
        self._progress = Progress()
        self.seen: Foreseen | None = None

    def ask(self, config: RunConfig, choices: Sequence[PassConfig]) -> None:
        """Predict these passes, each alone, for the model, target and workload of ``config``, once the worker is idle."""
        self.stop()
        progress = self._progress = Progress()
        wanted = Foreseen(config, tuple(choices))
        self._worker.submit(lambda: self._predict(wanted, progress), awaited=False)

    def stop(self) -> None:
        """Somebody wants something else of the worker: what is predicted by now stays."""
        self._progress.cancelled.set()

    def _predict(self, wanted: Foreseen, progress: Progress) -> None:
        if progress.cancelled.is_set():
            return
        try:
            self.seen = found = foresee(wanted, self._holder, progress, self._tell)
            self.seen = replace(found, done=True)
        except Cancelled:
            return
        finally:
            give_memory_back()

    def _tell(self, seen: Foreseen) -> None:
        self.seen = seen


def foresee(wanted: Foreseen, holder: ModelSlot, progress: Progress, tell: Callable[[Foreseen], None]) -> Foreseen:
    """Predict, and ``tell`` after each pass; ``Cancelled`` where ``progress`` says so."""
    config, loaded = wanted.config, holder.untouched
    if loaded is None or loaded.config != config.model:
        return replace(wanted, why=IN_USE if holder.loaded is not None else None)
    target = targets.get(config.target.id)
    facts = target.probe()
    try:
        length = form_of(loaded, config.workload, target.device).length()
    except Refusal as refusal:
        return replace(wanted, why=refusal.reason)
    threads = config.target.threads or facts.threads or 1
    asked = Asked(length, config.workload.new_tokens, config.workload.batch, threads)
    refused = plan.reasons(loaded.facts, facts, ())
    for one in predictions(loaded, wanted.choices, asked, refused, progress):
        wanted = replace(wanted, found=MappingProxyType({**wanted.found, one.pass_id: one}))
        tell(wanted)
    return wanted
