"""Predicted gains: what each pass alone should gain for a model, a machine and a workload, before anything is run.

The pass's own code changes a copy of the model's first blocks, whose layers are then counted and tried as those of a run are
(``prediction/layer_costs.py``); the whole model is put together from them. The model itself is not touched.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import psutil

from core.config import PassConfig
from core.errors import Cancelled, Refusal
from core.machine_facts import BUSY, TICK_S, others_s, remembered
from core.messages.reason import Reason
from core.model_parts.blocks import find_blocks
from core.model_parts.weights import weight_bytes
from core.models.base import LoadedModel
from core.pass_api.base import Pass, PassReport, Phase
from core.pass_api.options import by_name, typed
from core.pass_api.subject import Execution, Subject
from core.passes.layer_drop import drop
from core.planning import plan
from core.prediction.ceilings import ceilings
from core.prediction.layer_costs import COUNTED, NOT_HERE, LayerCosts, on_cpu, steps_of
from core.prediction.work import work_of
from core.progress import Progress
from core.records import roofline
from core.records.roofline import ForwardCost, MatMul, ModelState, Step
from profilers.forward_patch import has_own_forward

VERSION = 2
"""Raised when gains that an older Tickscope predicted must be predicted anew."""

APPLIED = (Phase.PROCESS, Phase.STRUCTURE, Phase.MASK, Phase.KERNEL, Phase.PRECISION, Phase.QUANTIZE)
"""Phases whose passes are applied to the copy. What others do is told by their kind, or depends on the text."""

COPIED_BYTES = 256 << 20  # of blocks: more than caches hold
LEAST_BLOCKS = 10  # of which a pass that takes a share of the blocks can take a tenth
ROOM = 3  # times the copy's bytes that must be free: the copy, what a pass makes of it, and what it needs on the way

NO_ROOM = Reason("planning.no-room-to-try")
OWN_FORWARD = Reason("planning.own-forward")
IN_USE = Reason("planning.carries-passes")


@dataclass(frozen=True)
class Prediction:
    """What one pass should gain, alone, against the model as it was loaded. Never a measurement of the run itself.

    ``gain`` is the time of a whole request before over after, ``by_kind`` that of each kind of moment; ``rests_on`` says on
    which bytes, operations and tried layers. ``gain`` None: ``why`` says why none can be given.
    """

    pass_id: str
    gain: float | None = None
    by_kind: Mapping[str, float] = field(default_factory=dict)
    rests_on: Reason | None = None
    why: Reason | None = None
    rough: bool = False  # others computed while layers were tried


@dataclass(frozen=True)
class Asked:
    """The workload that gains are predicted for."""

    input_tokens: int
    new_tokens: int
    batch: int
    threads: int


def predictions(
    loaded: LoadedModel,
    choices: Iterable[PassConfig],
    asked: Asked,
    refused: Mapping[str, Reason | None],
    progress: Progress,
) -> Iterator[Prediction]:
    """A prediction for each choice, one after another; ``Cancelled`` comes through within about a second.

    Args:
        loaded: a model to which nothing was done.
        choices: passes with their options, each predicted by itself.
        asked: the workload.
        refused: by pass why it cannot be used; such passes are not tried.
        progress: asked between all steps whether to stop.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(asked.threads)
    try:
        predictor = GainPredictor(loaded, asked, progress)
        for choice in choices:
            progress.check()
            reason = refused.get(choice.id)
            yield (
                Prediction(choice.id, why=Reason("planning.not-available", why=reason)) if reason else predictor.predict(choice)
            )
    finally:
        torch.set_num_threads(threads)


class GainPredictor:
    """Predicts passes for one model and workload. The copy of the model and its first look are made when they are needed."""

    def __init__(self, loaded: LoadedModel, asked: Asked, progress: Progress) -> None:
        self._loaded = loaded
        self._asked = asked
        self._progress = progress
        self._steps: tuple[Step, ...] = ()
        self._plain: ModelState | None = None  # of the copy
        self._blocks: tuple[str, int, int] | None = None  # their path, how many are copied, of how many

    def predict(self, choice: PassConfig) -> Prediction:
        """What this pass should gain; from what is remembered of this machine where it was predicted before."""
        one = plan.get(choice.id)
        why = self._unpredictable(one)
        if why:
            return Prediction(choice.id, why=why)
        facts = self._loaded.facts
        model = (facts.spec, facts.architecture, facts.parameters, facts.layers, facts.dtype, facts.stored_as)
        key = repr((VERSION, model, self._asked, choice.id, sorted(by_name(choice.options).items())))
        digest = hashlib.sha256(key.encode()).hexdigest()[:24]
        start, others = time.perf_counter(), others_s()
        try:
            found = remembered(f"gain {digest}", lambda: _kept(self._predicted(one, choice)))
        except Refusal as refusal:
            return Prediction(choice.id, why=refusal.reason)
        except Cancelled:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a model's or a pass's code raises, the others are predicted
            return Prediction(choice.id, why=Reason("planning.not-tried", error=type(error).__name__))
        busy = others_s() - others > BUSY * (time.perf_counter() - start) + TICK_S
        said = {name: Reason.from_json(found[name]) if found[name] else None for name in ("rests_on", "why")}
        return Prediction(**found | said | {"rough": busy and found["gain"] is not None and one.phase not in COUNTED})

    def _unpredictable(self, one: Pass) -> Reason | None:
        """Why nothing can be told before the pass has run; None where something can."""
        if not on_cpu(self._loaded.model):
            return _clean(NOT_HERE)
        if one.unpredictable:
            return _clean(one.unpredictable)
        if one.phase == Phase.ENGINE:
            return _clean(roofline.OTHER_ENGINE)
        return None if one.phase in APPLIED or one.phase == Phase.COMPILE else _clean(roofline.UNCHANGED)

    def _predicted(self, one: Pass, choice: PassConfig) -> Prediction:
        plain = self._first_look()
        if one.phase == Phase.COMPILE:
            return self._prediction(one.id, *self._compiled(plain))
        subject = self._copy()
        ledger = LayerCosts(subject, self._asked.input_tokens, plain)
        try:
            ledger.before(one)
            report = one.apply(subject, typed(choice).options)
            report = ledger.after(one, report)
            return self._prediction(one.id, *self._of_whole(one, report, plain, ledger))
        finally:
            subject.undo.close()

    def _of_whole(
        self, one: Pass, report: PassReport, plain: ModelState, ledger: LayerCosts
    ) -> tuple[Mapping[str, float], Reason | None]:
        """The gains of the whole model; a pass's own prediction is one of the copy, which has fewer blocks."""
        whole = self._blocks is None or self._blocks[1] == self._blocks[2]
        if not report.predicted or (one.phase in COUNTED and (whole or set(report.predicted.values()) == {1.0})):
            return report.predicted, report.prediction
        if one.phase in COUNTED:
            before, after = ForwardCost(plain.work.products, None), ForwardCost(tuple(work_of(ledger.model)), None)
            limits = ceilings()
            return roofline.predict(
                self._whole(ModelState(before, limits)), self._whole(ModelState(after, limits)), self._steps
            )
        assert ledger.state is not None
        return roofline.predict(self._whole(plain), self._whole(ledger.state), self._steps)

    def _compiled(self, plain: ModelState) -> tuple[Mapping[str, float], Reason | None]:
        step = next((step for step in self._steps if step.kind in ("decode", "forward")), None)
        return ({}, roofline.UNCHANGED) if step is None else roofline.compiled_gain(self._whole(plain), step)

    def _prediction(self, pass_id: str, by_kind: Mapping[str, float], told: Reason | None) -> Prediction:
        mine = {step.kind: by_kind[step.kind] for step in self._steps if step.kind in by_kind}
        if not mine:
            return Prediction(pass_id, why=_clean(told or roofline.UNCHANGED))
        assert self._plain is not None
        gain = request_gain(self._whole(self._plain), self._steps, mine, self._asked)
        return Prediction(pass_id, gain, mine, told)

    # -- the copy ---------------------------------------------------------------------------------------------------------

    def _first_look(self) -> ModelState:
        """The copy as it is, counted and tried once."""
        if self._plain is None:
            subject = self._copy()
            self._steps = steps_of(subject, self._asked.input_tokens)
            self._plain = LayerCosts(subject, self._asked.input_tokens).look()
        return self._plain

    def _copy(self) -> Subject:
        """A subject with a copy of the model's first blocks and of all that is no block."""
        self._progress.check()
        model = self._loaded.model
        if any(has_own_forward(part) for part in model.modules()):
            raise Refusal(OWN_FORWARD)
        try:
            path, blocks = find_blocks(model)
        except Refusal:
            path, blocks = "", []
        kept = _blocks_to_copy([weight_bytes(block) for block in blocks])
        left_out = list(blocks)[kept:]
        size = weight_bytes(model) - sum(map(weight_bytes, left_out))
        if ROOM * size > psutil.virtual_memory().available:
            raise Refusal(NO_ROOM)
        import torch

        copied = copy.deepcopy(model, {id(block): torch.nn.Identity() for block in left_out})
        if left_out:
            drop(copied, path, copied.get_submodule(path), list(range(kept, len(blocks))))
        self._blocks = (path, kept, len(blocks)) if blocks else None
        asked, task = self._asked, self._loaded.facts.task
        subject = Subject(copied, task, Execution(asked.threads), asked.input_tokens + asked.new_tokens, asked.batch)
        subject.progress, subject.tokenizer = self._progress, self._loaded.tokenizer
        return subject

    def _whole(self, state: ModelState) -> ModelState:
        """The model that the copy was taken from: each of its blocks as often as it takes to have as many as there are."""
        if self._blocks is None or self._blocks[1] == self._blocks[2]:
            return state
        path, kept, count = self._blocks
        here = {number for product in state.work.products if (number := _block_of(product.path, path)) is not None}
        if not here:
            return state
        wanted = round(count * len(here) / kept)  # where a pass dropped some of the copy's, the whole loses the same share
        products: list[MatMul] = []
        for product in state.work.products:
            number = _block_of(product.path, path)
            times = 1 if number is None else wanted // len(here) + (number < wanted % len(here))
            products += itertools.repeat(product, times)
        operators = state.work.operators
        counted = None if operators is None else round(operators * wanted / len(here))
        return replace(state, work=ForwardCost(tuple(products), counted))


def request_gain(plain: ModelState, steps: Sequence[Step], by_kind: Mapping[str, float], asked: Asked) -> float:
    """Time of a whole request before over after, each kind of moment as often as it comes."""
    before = after = 0.0
    for step in steps:
        taken = roofline.step_ns(plain, step) * (max(0, asked.new_tokens - 1) if step.kind == "decode" else 1)
        before, after = before + taken, after + taken / by_kind.get(step.kind, 1.0)
    return before / after if after > 0 else 1.0


def _blocks_to_copy(sizes: Sequence[int]) -> int:
    """How many of the first blocks: as many as caches do not hold, and enough to take a share of."""
    held = itertools.accumulate(sizes)
    enough = next((number + 1 for number, size in enumerate(held) if size >= COPIED_BYTES), len(sizes))
    return min(len(sizes), max(enough, LEAST_BLOCKS))


def _block_of(product: str, path: str) -> int | None:
    """The number of the block that a layer is in; None: in none."""
    if not product.startswith(f"{path}."):
        return None
    number = product[len(path) + 1 :].partition(".")[0]
    return int(number) if number.isdecimal() else None


def _kept(found: Prediction) -> dict[str, Any]:
    """The prediction as JSON, for what is remembered of this machine."""
    said = {name: None if one is None else one.as_json() for name, one in (("rests_on", found.rests_on), ("why", found.why))}
    return {one.name: getattr(found, one.name) for one in fields(found)} | said


def _clean(told: Reason) -> Reason:
    """Why nothing is predicted, without the word that says so in a pass's report."""
    why, basis = told.facts.get("why"), told.facts.get("basis")
    if isinstance(why, Reason):
        return Reason("planning.sentence", why=why)
    return Reason("planning.not-from", basis=basis) if isinstance(basis, Reason) else told
