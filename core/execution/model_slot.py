"""The slot of the model: keeps one model in memory and brings it into the state a run asks for."""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import psutil

from core import torch_private
from core.config import ModelConfig, PassConfig, RunConfig
from core.errors import Refusal
from core.execution import layer_error
from core.execution.baseline import Baseline, Tolerate, baseline
from core.execution.eval_data import EvalData
from core.execution.reference_model import pristine
from core.execution.workload import check_length
from core.messages.reason import Reason
from core.models import catalog
from core.models.base import LoadedModel, ModelFacts
from core.pass_api.base import PassReport, any_pass, passes
from core.pass_api.subject import Execution, Subject
from core.planning import plan
from core.progress import Progress
from core.targets.base import TargetFacts, targets


@dataclass(frozen=True)
class QualityReference:
    """What a run's quality is measured against. ``baseline`` None: ``why`` says why there is none.

    ``places`` are the paths of this model's modules before its passes, ``passes`` tells results against the baseline apart.
    """

    baseline: Baseline | None
    why: Reason | None
    places: Mapping[Any, str]
    passes: object


@dataclass(frozen=True)
class PreparedModel:
    """A subject ready to run: what passes did to it and how long they took. ``standard`` None: quality was not asked for."""

    loaded: LoadedModel
    subject: Subject
    reports: tuple[PassReport, ...]
    apply_ns: int
    fresh: bool  # nothing has run on it since it was loaded or changed
    standard: QualityReference | None = None


@dataclass(frozen=True)
class _Shape:
    """What a compiled or otherwise prepared subject was made for."""

    passes: tuple[PassConfig, ...]
    threads: int
    max_length: int
    batch: int
    material: EvalData | None  # what its quality is measured on


class ModelSlot:
    """Lives on the worker thread. Passes that change weights are undone by loading the original again.

    So the original need not be kept beside the changed model, and memory shown for an optimized run is that of the optimized
    model alone.
    """

    def __init__(self) -> None:
        self.loaded: LoadedModel | None = None
        self._target = ""
        self._prepared: tuple[_Shape, PreparedModel] | None = None
        self._baseline: tuple[object, Baseline] | None = None

    def load(self, config: ModelConfig, target_id: str, progress: Progress) -> ModelFacts:
        """Load a model, after what is loaded was let go; the pristine one of the same configuration stays.

        Raises:
            Refusal: it cannot be loaded, or will not fit (``can_override``) and ``config.force`` is not set.
        """
        with progress.interruptible:
            return self._load(config, target_id, progress)

    def _load(self, config: ModelConfig, target_id: str, progress: Progress) -> ModelFacts:
        again = self.loaded is not None and (self.loaded.config, self._target) == (config, target_id)
        if self.loaded is not None and again and not self._weights_changed():
            return self.loaded.facts
        facts = catalog.describe(config)
        if not config.force:
            fit = catalog.fit(facts, config.dtype, psutil.virtual_memory().available + self._bytes_to_come_free())
            if not fit.fits:
                raise Refusal(fit.sentence, can_override=True)
        self._let_go() if again else self.unload()  # the same model's baseline stays
        self.loaded = catalog.load(config, targets.get(target_id).device, progress)
        self._target = target_id
        return self.loaded.facts

    @property
    def untouched(self) -> LoadedModel | None:
        """The model, while nothing is done to it; None where there is none, or where passes are applied."""
        applied = self._prepared is not None and self._prepared[0].passes
        return None if applied else self.loaded

    def unload(self) -> None:
        """Let the model go, and what is known of it, and give its memory back to the system."""
        if self._baseline is not None:
            self._baseline[1].close()
            self._baseline = None
        self._let_go()

    def start_over(self) -> None:
        """As ``unload``, after something was interrupted in the middle: neither it nor torch's compiler is relied on."""
        try:
            self.unload()
        except Exception:
            logging.getLogger("tickscope").exception("A pass could not be undone.")
            self._prepared = self.loaded = None
        torch_private.forget_compiled()

    def _let_go(self) -> None:
        if self._prepared is not None:
            self._prepared[1].subject.undo.close()
        self._prepared = None
        self.loaded = None
        give_memory_back()

    def prepare(
        self, config: RunConfig, target: TargetFacts, input_tokens: int, progress: Progress, material: EvalData | None = None
    ) -> PreparedModel:
        """The model of ``config`` with exactly its passes; as little as possible is done anew.

        ``material``: what quality is to be measured on, for which the model is first asked without its passes.
        """
        with progress.interruptible:
            return self._prepare(config, target, input_tokens, progress, material)

    def _prepare(
        self, config: RunConfig, target: TargetFacts, input_tokens: int, progress: Progress, material: EvalData | None
    ) -> PreparedModel:
        assert self.loaded is not None
        threads = config.target.threads or target.threads or 1
        in_windows = any_pass(config.passes, lambda one: one.reads_in_windows)
        length = check_length(self.loaded.facts, config.workload, input_tokens, in_windows=in_windows)
        shape = _Shape(tuple(plan.order(config.passes)), threads, length, config.workload.batch, material)
        if self._prepared is not None and self._prepared[0] == shape:
            return replace(self._prepared[1], fresh=False)
        self._undo(progress)
        import torch

        torch.set_num_threads(threads)
        known = self._baseline
        standard = self._standard(shape, progress)
        untouched = self._baseline is known
        progress.report(Reason("execution.applying-passes") if shape.passes else Reason("execution.getting-ready"), None)
        subject = Subject(self.loaded.model, self.loaded.facts.task, Execution(threads), length, config.workload.batch)
        subject.progress = progress
        subject.tokenizer = self.loaded.tokenizer
        subject.original = pristine(self.loaded, targets.get(target.id).device, progress)
        # Known to the holder before the passes apply, so that a pass that fails half-way is undone too.
        self._prepared = (shape, PreparedModel(self.loaded, subject, (), 0, fresh=True))
        try:
            reports = plan.apply_all(subject, shape.passes, prompt=input_tokens)
        except BaseException:
            self._undo(Progress())
            raise
        give_memory_back()  # what passes replaced; else it would look as if the run held it
        took_ns = sum(report.apply_ns for report in reports)  # without our own trying of layers, which predictions need
        prepared = PreparedModel(self.loaded, subject, reports, took_ns, untouched, standard)
        self._prepared = (shape, prepared)
        return prepared

    def _standard(self, shape: _Shape, progress: Progress) -> QualityReference | None:
        """What quality is measured against; the model is pristine."""
        loaded, material = self.loaded, shape.material
        assert loaded is not None
        if material is None:
            return None
        room = (shape.max_length, shape.batch)
        key = (loaded.config, self._target, material, room)
        part = Tolerate()
        if self._baseline is None or self._baseline[0] != key:
            if self._baseline is not None:
                self._baseline[1].close()
                self._baseline = None
            with part:
                self._baseline = (key, baseline(loaded, material, room, targets.get(self._target).device, progress))
            give_memory_back()
        found = self._baseline[1] if self._baseline is not None else None
        return QualityReference(found, part.why, layer_error.places(loaded.model), shape)

    def _weights_changed(self) -> bool:
        return self._prepared is not None and any(passes.get(choice.id).changes_weights for choice in self._prepared[0].passes)

    def _undo(self, progress: Progress) -> None:
        """Back to the model as its source gives it."""
        if self._prepared is None:
            return
        changed = self._weights_changed()
        self._prepared[1].subject.undo.close()
        self._prepared = None
        if changed:
            assert self.loaded is not None
            config = self.loaded.config
            self._let_go()
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
