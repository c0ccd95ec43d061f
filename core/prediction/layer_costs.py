"""The layer costs of a stack of passes: what the model does before and after each, and what that pass should gain.

Bytes and operations say what a product takes at least; kernels that are slower than that are found by trying the layers
themselves, one after another as a forward does, so that each has to be read from where it lies then.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from core import torch_private
from core.machine_facts import is_doubtful, remembered
from core.messages.reason import Reason
from core.model_parts.linears import is_linear
from core.models.base import generates
from core.models.sample_inputs import MODEL_ERRORS, sample_inputs
from core.pass_api.base import Pass, PassReport, Phase, none_because
from core.pass_api.subject import Subject
from core.prediction.ceilings import CEILINGS, ceilings, operators_of
from core.prediction.work import once_paths, work_of
from core.records import roofline
from core.records.roofline import Ceilings, ForwardCost, MatMul, ModelState, ShapeTiming, Step

if TYPE_CHECKING:
    import torch

LOOKED_AT = (Phase.PROCESS, Phase.PRECISION, Phase.QUANTIZE)
"""Phases whose passes leave their prediction to the ledger, which counts and tries the layers before and after them."""

COUNTED = (Phase.STRUCTURE, Phase.MASK, Phase.HEAL, Phase.KERNEL)
"""Phases whose passes predict themselves; where one does not, bytes and operations alone are compared."""

TRIED_BYTES = 512 << 20  # of larger models the first layers, more than a cache holds
TRIED_OPERATIONS = 1e10
TRIED_ROWS = 256
ROUNDS = 3

COUNTED_BYTES = 4 << 30
"""Larger models are not called for counting their operators, which takes as long as a token; these are little beside it."""

ROUGH = Reason("prediction.rough")
NOT_HERE = none_because(Reason("prediction.cpu-only"))


class LayerCosts:
    """Follows a subject from pass to pass and fills in what each should gain. Only for models on the CPU.

    ``prompt``: positions that go in at once per sequence; None: as many as the whole workload has. ``state``: how the model was
    found, where that is known already.
    """

    def __init__(self, subject: Subject, prompt: int | None, state: ModelState | None = None) -> None:
        self._subject = subject
        self._steps = steps_of(subject, prompt)
        self._casts_to: str | None = None
        self._state = state
        self._plain = ForwardCost((), None)
        self._able = on_cpu(subject.model)
        self._operator_ns = 0.0 if state is None else state.ceilings.operator_ns
        self._rough = False  # others computed while layers were tried

    @property
    def model(self) -> torch.nn.Module:
        """As the passes so far left it."""
        return self._subject.model

    @property
    def state(self) -> ModelState | None:
        """The model as it was last looked at."""
        return self._state

    def look(self) -> ModelState:
        """Look at the model as it is now."""
        self._state = self._look(None)
        return self._state

    def before(self, one: Pass) -> None:
        """To be called before a pass applies: looks at the model where this pass needs it, once between two passes."""
        if not self._able:
            return
        if one.phase in COUNTED:
            self._plain = ForwardCost(tuple(work_of(self._subject.model)), None)
        elif self._state is None and one.phase in (*LOOKED_AT, Phase.COMPILE):
            self._state = self._look(None)

    def after(self, one: Pass, report: PassReport) -> PassReport:
        """The report with its prediction, where the pass has made none of its own."""
        if not self._able:
            return _filled(report, {}, NOT_HERE)
        if one.phase in COUNTED:
            self._state = None  # of shapes that are no more
        if report.predicted or report.prediction:
            return report
        if one.phase in COUNTED:
            now = ForwardCost(tuple(work_of(self._subject.model)), None)
            states = ModelState(self._plain, ceilings()), ModelState(now, ceilings())
            return _filled(report, *roofline.predict(*states, self._steps))
        if one.phase == Phase.ENGINE:
            return _filled(report, {}, roofline.OTHER_ENGINE)
        before = self._state
        if one.phase == Phase.COMPILE and before is not None:
            compiled = self._subject.execution.step
            kind = "forward" if compiled is not None and compiled.every else "decode"
            step = next((step for step in self._steps if step.kind == kind), None)
            return report if step is None else _filled(report, *roofline.compiled_gain(before, step))
        if one.phase not in LOOKED_AT or before is None:
            return _filled(report, {}, roofline.UNCHANGED)
        if one.casts_on_call:
            self._casts_to = str(report.options["dtype"])
        self._state = self._look(before)
        gains, why = roofline.predict(before, self._state, self._steps)
        return _filled(report, gains, roofline.sentences(why, ROUGH) if gains and self._rough else why)

    def _look(self, before: ModelState | None) -> ModelState:
        """Count, and try layers; what a pass left as it was is not looked at again."""
        self._subject.progress.check()
        products = tuple(work_of(self._subject.model, self._casts_to))
        limits = self._ceilings()
        if before is not None and before.work.products == products and before.ceilings == limits:
            return before
        operators, taken_ns = _operators(self._subject.model, products)
        work = ForwardCost(products, operators)
        state = ModelState(work, limits, {step.kind: self._timed(work, step) for step in self._steps})
        decode = next((step for step in self._steps if step.kind == "decode" and step.rows == 1), None)
        if before is None and operators and decode is not None and state.timed[decode.kind]:
            between_ns = taken_ns - roofline.in_layers_ns(state, decode)
            self._operator_ns = between_ns / max(1, roofline.operators_between(state, decode))
            state = replace(state, ceilings=self._ceilings())
        return state

    def _ceilings(self) -> Ceilings:
        """This machine's, but small operators as slow as they were between the layers of the model as it was first seen."""
        found = ceilings()
        return replace(found, operator_ns=max(found.operator_ns, self._operator_ns))

    def _timed(self, work: ForwardCost, step: Step) -> tuple[ShapeTiming, ...]:
        """Layers of every shape, tried; () where they cannot be called alone."""
        self._subject.progress.check()
        products = _to_try(work, step)
        dtype = next(self._subject.model.parameters()).dtype
        looks = repr((products, step, dtype, self._casts_to, [ROUNDS, TRIED_ROWS]))
        name = f"layers {_digest(looks)}"
        try:
            found = remembered(name, lambda: self._try(products, step))
        except MODEL_ERRORS:
            return ()
        self._rough |= is_doubtful(name) or is_doubtful(CEILINGS)
        limits = ceilings()
        tried = list(itertools.chain.from_iterable(products.values()))
        speed = limits.read_per_s(sum(one.read_bytes(_rows(one, step)) for one in tried))
        made = []
        for (shape, alike), (operators, taken_ns) in zip(products.items(), found, strict=True):
            rows = _rows(alike[0], step)
            least = sum(roofline.product_ns(one, rows, limits, speed) for one in alike)
            least += operators * len(alike) * limits.operator_ns
            macs = sum(one.macs for one in alike) * rows
            made.append(
                ShapeTiming(tuple(one.path for one in alike), shape, rows, macs, taken_ns, least, operators, limits.operator_ns)
            )
        return tuple(made)

    def _try(self, products: Mapping[roofline.Shape, list[MatMul]], step: Step) -> list[tuple[int, int]]:
        """For each shape the operators of one layer, and the shortest time that all of this shape took, in ns."""
        import torch

        model = self._subject.model
        places = {path: number for number, (path, _) in enumerate(model.named_modules())}
        calls, operators = [], []
        with torch.no_grad(), self._casting():
            for number, alike in enumerate(products.values()):
                modules = [model.get_submodule(product.path) for product in alike]
                inputs = _inputs(model, modules[0], _rows(alike[0], step), alike[0].inputs)
                operators.append(operators_of(lambda module=modules[0], x=inputs: module(x)))  # type: ignore[misc]
                calls += [(places[one.path], number, module, inputs) for one, module in zip(alike, modules, strict=True)]
            calls.sort(key=lambda call: call[0])
            taken = [_round(calls, len(products)) for _ in range(ROUNDS + 1)][1:]  # the first packs weights
        return list(zip(operators, map(min, zip(*taken, strict=True)), strict=True))

    def _casting(self) -> Any:
        import torch

        if self._casts_to is None:
            return nullcontext()
        return torch.autocast("cpu", getattr(torch, self._casts_to))


def _filled(report: PassReport, predicted: Mapping[str, float], prediction: Reason) -> PassReport:
    """The report with these, unless the pass has its own."""
    if report.predicted or report.prediction:
        return report
    return replace(report, predicted=dict(predicted), prediction=prediction)


def steps_of(subject: Subject, prompt: int | None) -> tuple[Step, ...]:
    """The moments that a workload has."""
    rows = subject.batch * max(1, prompt or subject.max_length)
    if not generates(subject.task):
        return (Step("forward", rows, rows),)
    decode = Step("decode", subject.batch, subject.batch)
    if once_paths(subject.model):  # an encoder's rows are not those of the prompt
        return (decode,)
    return (Step("prefill", rows, subject.batch), decode)


def on_cpu(model: torch.nn.Module) -> bool:
    """Whether all of it is there, which is where layers are tried."""
    return {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def _operators(model: torch.nn.Module, products: tuple[MatMul, ...]) -> tuple[int | None, int]:
    """Operators of one decode step (or of one forward where there is no cache), and its shortest time in ns.

    None where the model cannot be asked.
    """
    size = sum(parameter.nbytes for parameter in model.parameters())
    inputs = sample_inputs(model) if size <= COUNTED_BYTES else None
    if inputs is None:
        return None, 0
    config: Any = getattr(model, "config", None)
    looks = repr((type(model).__qualname__, torch_private.attention_implementation(config) or "", str(config), products))
    count, taken_ns = remembered(f"step {_digest(looks)}", lambda: _counted(model, inputs))
    return count, taken_ns


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _counted(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> tuple[int | None, int]:
    import torch

    target: Any = model

    def prepared() -> dict[str, Any]:
        """A cache grows with each step, so that each needs one of its own."""
        if "input_ids" not in inputs:
            return dict(inputs)
        step: dict[str, Any] = {name: tensor[:1] for name, tensor in inputs.items()}
        cache = torch_private.cache_left(target(**step))
        if cache is None or "decoder_input_ids" in step:
            return step
        return {"input_ids": step["input_ids"][:, -1:], torch_private.cache_argument(target): cache}

    try:
        with torch.no_grad():
            steps = [prepared() for _ in range(ROUNDS + 1)]
            count = operators_of(lambda: target(**steps[0]))
            taken = []
            for step in steps[1:]:
                start = perf_counter_ns()
                target(**step)
                taken.append(perf_counter_ns() - start)
    except MODEL_ERRORS:
        return None, 0
    return count, min(taken)


def _rows(product: MatMul, step: Step) -> int:
    """With how many rows it is tried."""
    return min(step.rows_of(product), TRIED_ROWS)


def _to_try(work: ForwardCost, step: Step) -> dict[roofline.Shape, list[MatMul]]:
    """The layers of each shape, in the order in which shapes occur; the head, which comes last, even of large models."""
    fit = [one for one in work.products if one.inputs and step.rows_of(one)]
    found: dict[roofline.Shape, list[MatMul]] = {}
    held, operations = 0, 0.0
    for one in fit:
        held, operations = held + one.held_bytes, operations + 2.0 * one.macs * _rows(one, step)
        if one.shape not in found or (held <= TRIED_BYTES and operations <= TRIED_OPERATIONS):
            found.setdefault(one.shape, []).append(one)
    return found


def _round(calls: Sequence[tuple[int, int, Any, Any]], shapes: int) -> list[int]:
    """Nanoseconds by shape of calling each layer once."""
    taken = [0] * shapes
    for _, shape, module, inputs in calls:
        start = perf_counter_ns()
        module(inputs)
        taken[shape] += perf_counter_ns() - start
    return taken


def _inputs(model: torch.nn.Module, module: Any, rows: int, width: int) -> torch.Tensor:
    """Rows for a layer, in the numbers that it gets in the model."""
    import torch

    first = next(parameter for parameter in model.parameters() if parameter.is_floating_point())
    dtype = module.weight.dtype if is_linear(module) else first.dtype
    return torch.linspace(-1, 1, rows * width).view(1, rows, width).to(dtype)
