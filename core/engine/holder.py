"""The holder: keeps one model in memory and brings it into the state a run asks for."""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from dataclasses import dataclass, replace

import psutil

from core.config import ModelConfig, PassConfig, RunConfig
from core.engine.workload import check_length
from core.errors import Refusal
from core.models import catalog
from core.models.base import LoadedModel, ModelFacts
from core.passes import plan
from core.passes.base import PassReport, Subject, passes
from core.progress import Progress
from core.targets.base import TargetFacts, targets


@dataclass(frozen=True)
class Prepared:
    """A subject ready to run: what was done to it and how long that took."""

    loaded: LoadedModel
    subject: Subject
    reports: tuple[PassReport, ...]
    apply_ns: int
    fresh: bool  # nothing has run on it since it was loaded or changed


@dataclass(frozen=True)
class _Shape:
    """What a compiled or otherwise prepared subject was made for."""

    passes: tuple[PassConfig, ...]
    threads: int
    max_length: int
    batch: int


class Holder:
    """Lives on the worker thread. Passes that change weights are undone by loading the original again.

    So the original need not be kept beside the changed model, and memory shown for an optimized run is that of the optimized
    model alone.
    """

    def __init__(self) -> None:
        self.loaded: LoadedModel | None = None
        self._target = ""
        self._prepared: tuple[_Shape, Prepared] | None = None

    def load(self, config: ModelConfig, target_id: str, progress: Progress) -> ModelFacts:
        """Load a model, after what is loaded was let go; the pristine one of the same configuration stays.

        Raises:
            Refusal: it cannot be loaded, or will not fit (``can_override``) and ``config.force`` is not set.
        """
        if self.loaded and (self.loaded.config, self._target) == (config, target_id) and not self._weights_changed():
            return self.loaded.facts
        facts = catalog.describe(config)
        if not config.force:
            fit = catalog.fit(facts, config.dtype, psutil.virtual_memory().available + self._bytes_to_come_free())
            if not fit.fits:
                raise Refusal(fit.sentence, can_override=True)
        self.unload()
        self.loaded = catalog.load(config, targets.get(target_id).device, progress)
        self._target = target_id
        return self.loaded.facts

    def unload(self) -> None:
        """Let the model go and give its memory back to the system."""
        if self._prepared is not None:
            for undo in reversed(self._prepared[1].subject.undo):
                undo()
        self._prepared = None
        self.loaded = None
        give_memory_back()

    def prepare(self, config: RunConfig, target: TargetFacts, input_tokens: int, progress: Progress) -> Prepared:
        """The model of ``config`` with exactly its passes; as little as possible is done anew."""
        assert self.loaded is not None
        threads = config.target.threads or target.threads or 1
        length = check_length(self.loaded.facts, config.workload, input_tokens)
        shape = _Shape(tuple(plan.order(config.passes)), threads, length, config.workload.batch)
        if self._prepared is not None and self._prepared[0] == shape:
            return replace(self._prepared[1], fresh=False)
        self._undo(progress)
        progress.report("Applying passes" if shape.passes else "Getting ready", None)
        import torch

        torch.set_num_threads(threads)
        subject = Subject(self.loaded.model, self.loaded.facts.task, threads, length, config.workload.batch)
        subject.progress = progress
        start = time.perf_counter_ns()
        # Known to the holder before the passes apply, so that a pass that fails half-way is undone too.
        self._prepared = (shape, Prepared(self.loaded, subject, (), 0, fresh=True))
        try:
            reports = plan.apply_all(subject, shape.passes)
        except BaseException:
            self._undo(Progress())
            raise
        give_memory_back()  # what passes replaced; else it would look as if the run held it
        prepared = Prepared(self.loaded, subject, reports, time.perf_counter_ns() - start, fresh=True)
        self._prepared = (shape, prepared)
        return prepared

    def _weights_changed(self) -> bool:
        return self._prepared is not None and any(passes.get(choice.id).changes_weights for choice in self._prepared[0].passes)

    def _undo(self, progress: Progress) -> None:
        """Back to the model as its source gives it."""
        if self._prepared is None:
            return
        changed = self._weights_changed()
        for undo in reversed(self._prepared[1].subject.undo):
            undo()
        self._prepared = None
        if changed:
            assert self.loaded is not None
            config = self.loaded.config
            self.unload()
            self.loaded = catalog.load(config, targets.get(self._target).device, progress)

    def _bytes_to_come_free(self) -> int:
        return (self.loaded.facts.weight_bytes or 0) if self.loaded else 0


def give_memory_back() -> None:
    """Collect what a model left behind and hand freed pages back to the system, so that "unload" shows."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        # glibc keeps freed arenas otherwise; other C libraries have no malloc_trim
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
