"""The ledger of a stack of passes: what the model does before and after each, and what that pass should gain.

Bytes and operations say what a product takes at least; kernels that are slower than that are found by trying the layers
themselves, of each shape as many as hold enough to be read from memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from core.analysis import roofline
from core.analysis.roofline import Product, State, Step, Timed, Work
from core.models.base import generates
from core.models.sample_inputs import MODEL_ERRORS, sample_inputs
from core.passes.base import Pass, PassReport, Phase, Subject
from core.passes.linears import is_linear
from core.prediction.ceilings import ceilings, operators_of
from core.prediction.remembered import remembered
from core.prediction.work import once_paths, work_of

if TYPE_CHECKING:
    import torch

LOOKED_AT = (Phase.PROCESS, Phase.PRECISION, Phase.QUANTIZE)
"""Phases whose passes leave their prediction to the ledger, which counts and tries the layers before and after them."""

COUNTED = (Phase.STRUCTURE, Phase.MASK, Phase.HEAL, Phase.KERNEL)
"""Phases whose passes predict themselves; where one does not, bytes and operations alone are compared."""

TIMED_BYTES = 256 << 20  # of layers of one shape, tried one after another: more than a cache holds
TIMED_OPERATIONS = 2e9
TIMED_ROWS = 256
ROUNDS = 3
MATTERS = 0.04
"""Shapes with a smaller part of the bytes, and of the operations, are not tried."""

COUNTED_BYTES = 4 << 30
"""Larger models are not called for counting their operators, which takes as long as a token; these are little beside it."""

NOT_HERE = "None: ceilings are measured for the CPU only."


class Ledger:
    """Follows a subject from pass to pass and fills in what each should gain. Only for models on the CPU.

    ``prompt``: positions that go in at once per sequence; None: as many as the whole workload has.
    """

    def __init__(self, subject: Subject, prompt: int | None) -> None:
        self._subject = subject
        self._steps = _steps(subject, prompt)
        self._casts_to: str | None = None
        self._state: State | None = None
        self._plain = Work((), None)
        self._able = _on_cpu(subject.model)

    def before(self, one: Pass) -> None:
        """To be called before a pass applies: looks at the model where this pass needs it, once between two passes."""
        if not self._able:
            return
        if one.phase in COUNTED:
            self._plain = Work(tuple(work_of(self._subject.model)), None)
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
            now = Work(tuple(work_of(self._subject.model)), None)
            states = State(self._plain, ceilings()), State(now, ceilings())
            return _filled(report, *roofline.predict(*states, self._steps))
        if one.phase == Phase.ENGINE:
            return _filled(report, {}, roofline.OTHER_ENGINE)
        before = self._state
        if one.phase == Phase.COMPILE and before is not None:
            kind = "forward" if self._subject.compiles_all else "decode"
            step = next((step for step in self._steps if step.kind == kind), None)
            return report if step is None else _filled(report, *roofline.compiled_gain(before, step))
        if one.phase not in LOOKED_AT or before is None:
            return _filled(report, {}, roofline.UNCHANGED)
        if one.id == "autocast":
            self._casts_to = str(report.options["dtype"])
        self._state = self._look(before)
        return _filled(report, *roofline.predict(before, self._state, self._steps))

    def _look(self, before: State | None) -> State:
        """Count, and try layers; what a pass left as it was is not looked at again."""
        self._subject.progress.check()
        products = tuple(work_of(self._subject.model, self._casts_to))
        limits = ceilings()
        if before is not None and before.work.products == products and before.ceilings == limits:
            return before
        work = Work(products, _operators(self._subject.model, products))
        return State(work, limits, {step.kind: self._timed(work, step) for step in self._steps})

    def _timed(self, work: Work, step: Step) -> tuple[Timed, ...]:
        """Layers of every shape that matters, tried; those that cannot be called alone are left out."""
        found = []
        for products, rows in _shapes(work, step):
            self._subject.progress.check()
            one = products[0]
            numbers = next(self._subject.model.parameters()).dtype
            name = f"{one.form} {one.inputs}x{one.outputs}x{len(products)}, {rows} rows of {numbers} {self._casts_to or ''}"
            try:
                operators, taken_ns = remembered(name, lambda products=products, rows=rows: self._try(products, rows))  # type: ignore[misc]
            except MODEL_ERRORS:
                continue
            limits = ceilings()
            speed = limits.read_per_s(sum(product.read_bytes(rows) for product in products))
            least = sum(roofline.product_ns(product, rows, limits, speed) for product in products)
            least += operators * len(products) * limits.operator_ns
            macs = sum(product.macs for product in products) * rows
            found.append(Timed(tuple(product.path for product in products), one.shape, rows, macs, taken_ns, least))
        return tuple(found)

    def _try(self, products: list[Product], rows: int) -> tuple[int, int]:
        """Operators of one layer, and the shortest time that all of them took, in ns."""
        modules = [self._subject.model.get_submodule(product.path) for product in products]
        inputs = _inputs(self._subject.model, modules[0], rows, products[0].inputs)
        operators = operators_of(lambda: modules[0](inputs))
        with self._casting():
            return operators, _best_ns(lambda: [module(inputs) for module in modules])

    def _casting(self) -> Any:
        import torch

        if self._casts_to is None:
            return nullcontext()
        return torch.autocast("cpu", getattr(torch, self._casts_to))


def _filled(report: PassReport, predicted: Mapping[str, float], prediction: str) -> PassReport:
    """The report with these, unless the pass has its own."""
    if report.predicted or report.prediction:
        return report
    return replace(report, predicted=dict(predicted), prediction=prediction)


def _steps(subject: Subject, prompt: int | None) -> tuple[Step, ...]:
    """The moments that a workload has."""
    rows = subject.batch * max(1, prompt or subject.max_length)
    if not generates(subject.task):
        return (Step("forward", rows, rows),)
    decode = Step("decode", subject.batch, subject.batch)
    if once_paths(subject.model):  # an encoder's rows are not those of the prompt
        return (decode,)
    return (Step("prefill", rows, subject.batch), decode)


def _on_cpu(model: torch.nn.Module) -> bool:
    return {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def _operators(model: torch.nn.Module, products: tuple[Product, ...]) -> int | None:
    """Operators of one decode step, or of one forward where there is no cache; None where the model cannot be asked."""
    size = sum(parameter.nbytes for parameter in model.parameters())
    inputs = sample_inputs(model) if size <= COUNTED_BYTES else None
    if inputs is None:
        return None
    config: Any = getattr(model, "config", None)
    looks = repr((type(model).__qualname__, getattr(config, "_attn_implementation", ""), str(config), products))
    found: int | None = remembered(
        f"operators {hashlib.sha256(looks.encode()).hexdigest()[:24]}", lambda: _counted(model, inputs)
    )
    return found


def _counted(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> int | None:
    import torch

    step: dict[str, Any] = dict(inputs)
    target: Any = model
    try:
        if "input_ids" in inputs:
            step = {name: tensor[:1] for name, tensor in inputs.items()}
            with torch.no_grad():
                cache = getattr(target(**step), "past_key_values", None)
            if cache is not None and "decoder_input_ids" not in step:
                step = {"input_ids": step["input_ids"][:, -1:], "past_key_values": cache}
        return operators_of(lambda: target(**step))
    except MODEL_ERRORS:
        return None


def _shapes(work: Work, step: Step) -> list[tuple[list[Product], int]]:
    """The layers of each shape and form that matters, as many as are quickly tried, and how many rows to try them with."""
    by_shape: dict[roofline.Shape, list[Product]] = {}
    for product in work.products:
        if product.inputs and step.rows_of(product):
            by_shape.setdefault(product.shape, []).append(product)
    least_bytes = MATTERS * sum(product.held_bytes for product in work.products)
    least_macs = MATTERS * sum(product.macs * step.rows_of(product) for product in work.products)
    found = []
    for products in by_shape.values():
        rows = min(step.rows_of(products[0]), TIMED_ROWS)
        if (
            sum(product.held_bytes for product in products) < least_bytes
            and sum(product.macs for product in products) * step.rows_of(products[0]) < least_macs
        ):
            continue
        most = min(TIMED_BYTES / products[0].held_bytes, TIMED_OPERATIONS / (2.0 * products[0].macs * rows))
        found.append((products[: max(1, int(most))], rows))
    return found


def _inputs(model: torch.nn.Module, module: Any, rows: int, width: int) -> torch.Tensor:
    """Rows for a layer, in the numbers that it gets in the model."""
    import torch

    first = next(parameter for parameter in model.parameters() if parameter.is_floating_point())
    dtype = module.weight.dtype if is_linear(module) else first.dtype
    return torch.linspace(-1, 1, rows * width).view(1, rows, width).to(dtype)


def _best_ns(call: Callable[[], object]) -> int:
    import torch

    taken = []
    with torch.no_grad():
        call()  # the first packs, and makes what later ones use again
        for _ in range(ROUNDS):
            start = perf_counter_ns()
            call()
            taken.append(perf_counter_ns() - start)
    return min(taken)
