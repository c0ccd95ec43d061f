"""A model's work: the products of its layers, quantised ones included, its operators, and how long the layers really take.

What a pass should gain follows from this before and after it (``core.analysis.roofline``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from core.analysis import roofline
from core.analysis.roofline import Product, State, Step, Timed, Work
from core.engine.ceilings import ceilings, operators_of
from core.models import experts
from core.models.base import generates
from core.models.sample_inputs import MODEL_ERRORS, sample_inputs
from core.passes.base import Pass, PassReport, Phase, Subject
from core.passes.linears import is_linear, output_head
from core.quantization import int4_groups, int8_rows

if TYPE_CHECKING:
    import torch

LOOKED_AT = (Phase.PROCESS, Phase.PRECISION, Phase.QUANTIZE)
"""Phases whose passes leave their prediction to the ledger, which counts and times the layers before and after them."""

COUNTED = (Phase.STRUCTURE, Phase.MASK, Phase.HEAL, Phase.KERNEL)
"""Phases whose passes predict themselves; where one does not, bytes and operations alone are compared."""

GROUPED_ROWS = 16  # group_quant's: more are multiplied by an unpacked weight
TIMED_BYTES = 512 << 20  # of layers timed one after another: more than a cache holds
TIMED_OPERATIONS = 4e9
TIMED_ROWS = 256
ROUNDS = 3
COUNTED_BYTES = 4 << 30
"""Larger models are not called for counting their operators, which takes as long as a token; these are little beside it."""

NOT_HERE = "None: ceilings are measured for the CPU only."

_ONCE = ("vision", "visual", "audio", "image_", "multi_modal", "connector")
"""In paths of what runs once, in models of images or sound and text."""


# -- products -------------------------------------------------------------------------------------------------------------


def work_of(model: torch.nn.Module, casts_to: str | None = None) -> list[Product]:
    """Every layer that multiplies with a weight. Embeddings, which only look rows up, norms and convolutions are left out.

    Args:
        model: with the passes so far.
        casts_to: the dtype into which autocast casts each weight on every call; None: there is no autocast.
    """
    head = output_head(model)
    once = _once(model)
    found = []
    for path, module in model.named_modules():
        product = _product(path, module)
        if product is None:
            continue
        if casts_to is not None and product.form == "float32":
            size = product.held_bytes * 2 // 4
            product = replace(
                product,
                form=f"float32 cast to {casts_to}",
                direct_rows=0,
                unpacked_bytes=size,
                unpacked_arithmetic=casts_to,
            )
        found.append(replace(product, head=module is head, once=path.startswith(once) if once else False))
    return found


def _product(path: str, module: Any) -> Product | None:
    """The layer as a product, by its class; None where it multiplies with no weight."""
    if is_linear(module):
        transposed = hasattr(module, "nx")
        inputs, outputs = (module.nx, module.nf) if transposed else (module.in_features, module.out_features)
        name = _dtype(module.weight)
        return Product(path, inputs, outputs, inputs * outputs, module.weight.nbytes, name, name)
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return _quantised(path, module)
    return _experts(path, module)


def _quantised(path: str, module: Any) -> Product | None:
    """A layer that holds its weight in another form: Tickscope's own, torch's, bitsandbytes'."""
    inputs, outputs = int(module.in_features), int(module.out_features)
    held = sum(tensor.nbytes for name, tensor in _tensors(module) if name != "bias")
    whole = Product(path, inputs, outputs, inputs * outputs, held, "", "")
    origin = type(module).__module__
    if origin.startswith("torch.ao"):  # a scale and a zero point per output; asking for the weight would unpack it
        return replace(whole, held_bytes=whole.macs + 16 * outputs, form="int8 (torch.ao)", arithmetic="int8")
    if origin.startswith("bitsandbytes"):
        return _bitsandbytes(whole, module)
    if (own := _own(whole, module)) is not None:
        return own
    weight = getattr(module, "weight", None)
    if weight is None or weight.dim() != 2:
        return None
    return replace(whole, form=_dtype(weight), arithmetic=_dtype(weight))


def _own(whole: Product, module: Any) -> Product | None:
    """One of Tickscope's layers, by its class's name: classes are made when torch is there. None: it is none."""
    kind = type(module).__name__
    if kind == "Int8Linear":
        few = int8_rows.MOST_KERNEL_ROWS if module.has_kernel else 0
        return _unpacking(whole, "int8 weights", _dtype(module.scale), few)
    if kind == "Int4Linear":
        if not module.in_blocks:
            return replace(whole, form="int4 weights", arithmetic="bfloat16")
        return _unpacking(whole, "int4 weights", "bfloat16", int4_groups.MOST_KERNEL_ROWS)
    if kind == "Float8Linear":
        return _unpacking(whole, "float8 weights", "bfloat16", 0)
    if kind == "GroupedLinear":
        return replace(_unpacking(whole, f"int{module.bits} groups", "bfloat16", GROUPED_ROWS), arithmetic="int8")
    if kind == "Int8TokenLinear":
        times = 2 if module.fine else 1  # what rounding left is multiplied too, right after, from a cache
        return replace(whole, macs=whole.macs * times, form="int8", arithmetic="int8")
    return None


def _bitsandbytes(whole: Product, module: Any) -> Product:
    form = f"bitsandbytes {type(module).__name__}"
    if type(module).__name__ == "Linear8bitLt":
        return replace(whole, held_bytes=whole.macs + 4 * whole.outputs, form=form, arithmetic="int8")
    scales = getattr(getattr(module.weight, "quant_state", None), "absmax", None)
    held = whole.held_bytes + (0 if scales is None else int(scales.nbytes))
    return replace(whole, held_bytes=held, form=form, arithmetic="bfloat16")


def _unpacking(product: Product, form: str, arithmetic: str, few: int) -> Product:
    """With a kernel for ``few`` rows, and for more an unpacked weight in the numbers that it computes with."""
    size = product.inputs * product.outputs * (4 if arithmetic == "float32" else 2)
    return replace(
        product,
        form=form,
        arithmetic=arithmetic,
        direct_rows=few,
        unpacked_bytes=size,
        unpacked_arithmetic=arithmetic,
    )


def _experts(path: str, module: Any) -> Product | None:
    """The stacked weights of experts, of which a row goes through a few; None for any other module."""
    stacked = [weight for weight in module._parameters.values() if weight is not None and weight.dim() == 3]
    count = int(getattr(module, "num_experts", 0) or 0)
    if not stacked or not count:
        return None
    config: Any = getattr(module, "config", None)
    used = (experts.chosen(config.to_dict()) if hasattr(config, "to_dict") else None) or count
    share = min(1.0, used / count)
    numbers, name = sum(weight.numel() for weight in stacked), _dtype(stacked[0])
    size = sum(weight.nbytes for weight in stacked)
    return Product(path, 0, 0, round(share * numbers), size, name, name, share=share)


def _tensors(module: Any) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _once(model: Any) -> tuple[str, ...]:
    """The beginnings of the paths of what runs once and not for each token."""
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False) and hasattr(model, "get_encoder"):
        encoder = model.get_encoder()
        return tuple(f"{path}." for path, module in model.named_modules() if module is encoder)
    if not any(hasattr(config, name) for name in ("vision_config", "audio_config")):
        return ()
    return tuple(f"{path}." for path, _ in model.named_modules() if any(word in path.rpartition(".")[2] for word in _ONCE))


# -- the state between two passes -----------------------------------------------------------------------------------------


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
        """Count, and time layers: the same ones as before where there was a before."""
        subject = self._subject
        subject.progress.check()
        products = tuple(work_of(subject.model, self._casts_to))
        limits = ceilings()
        if before is not None and before.work.products == products and before.ceilings == limits:
            return before
        work = Work(products, _operators(subject.model))
        timed = {}
        for step in self._steps:
            paths = before.timed[step.kind].paths if before is not None and step.kind in before.timed else None
            found = self._timed(work, step, paths)
            if found is not None:
                timed[step.kind] = found
        return State(work, limits, timed)

    def _timed(self, work: Work, step: Step, paths: tuple[str, ...] | None) -> Timed | None:
        """The layers of the shape that holds the most bytes, timed; None where they are gone, or no module is to be called."""
        rows = min(step.rows, TIMED_ROWS)
        products = _largest(work, step, rows) if paths is None else [one for one in work.products if one.path in paths]
        if not products or (paths is not None and len(products) != len(paths)) or len({one.form for one in products}) > 1:
            return None
        self._subject.progress.check()
        modules = [self._subject.model.get_submodule(one.path) for one in products]
        inputs = _inputs(self._subject.model, modules[0], rows, products[0].inputs)
        try:
            operators = operators_of(lambda: modules[0](inputs))
            with self._casting():
                taken = _best_ns(lambda: [module(inputs) for module in modules])
        except MODEL_ERRORS:
            return None
        limits = ceilings()
        speed = limits.read_per_s(sum(one.read_bytes(rows) for one in products))
        least = sum(roofline.product_ns(one, rows, limits, speed) for one in products)
        least += operators * len(products) * limits.operator_ns
        names = tuple(one.path for one in products)
        return Timed(names, products[0].form, rows, sum(one.macs for one in products) * rows, taken, least)

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
    if _once(subject.model):  # an encoder's rows are not those of the prompt
        return (decode,)
    return (Step("prefill", rows, subject.batch), decode)


def _on_cpu(model: torch.nn.Module) -> bool:
    return {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def _operators(model: torch.nn.Module) -> int | None:
    """Operators of one decode step, or of one forward where there is no cache; None where the model cannot be asked."""
    size = sum(parameter.nbytes for parameter in model.parameters())
    inputs = sample_inputs(model) if size <= COUNTED_BYTES else None
    if inputs is None:
        return None
    step: dict[str, Any] = dict(inputs)
    target: Any = model
    try:
        import torch

        if "input_ids" in inputs:
            step = {name: tensor[:1] for name, tensor in inputs.items()}
            with torch.no_grad():
                cache = getattr(target(**step), "past_key_values", None)
            if cache is not None and "decoder_input_ids" not in step:
                step = {"input_ids": step["input_ids"][:, -1:], "past_key_values": cache}
        return operators_of(lambda: target(**step))
    except MODEL_ERRORS:
        return None


def _largest(work: Work, step: Step, rows: int) -> list[Product]:
    """Layers of one shape and form, of those that hold the most bytes together; as many as are quickly timed."""
    fit = [one for one in work.products if one.inputs and step.rows_of(one) == step.rows]
    sizes: Counter[tuple[int, int, str]] = Counter()
    for one in fit:
        sizes[one.inputs, one.outputs, one.form] += one.held_bytes
    if not sizes:
        return []
    shape = max(sizes, key=lambda shape: sizes[shape])
    found: list[Product] = []
    held, operations = 0, 0.0
    for one in fit:
        held, operations = held + one.held_bytes, operations + 2.0 * one.macs * rows
        if (one.inputs, one.outputs, one.form) != shape:
            held, operations = held - one.held_bytes, operations - 2.0 * one.macs * rows
        elif found and (held > TIMED_BYTES or operations > TIMED_OPERATIONS):
            break
        else:
            found.append(one)
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
