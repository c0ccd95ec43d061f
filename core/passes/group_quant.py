"""Grouped int8 or int4: weights in groups of 32, activations rounded to 8 bits in the same groups, by Tickscope's own kernels.

Torch's own kernels for int8 and int4 weights multiply in floating point: 9 weights a nanosecond and core on a Xeon with AVX-512
VNNI, whatever their size. Multiplying integers, as llama.cpp does, these do 25 and more, so that reading memory is the limit
again. Many rows (prefill) go through weights expanded to bfloat16, for the matrix units.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from core.errors import Refusal
from core.native import available, load
from core.passes.base import PassContext, PassReport, Phase, Subject, passes
from core.passes.linears import as_linear, linear_paths, output_head, replace

if TYPE_CHECKING:
    import torch

GROUP = 32
LANES = 16
MOST_ROWS = 16
"""Up to so many rows the integer kernel is used; more are left to the matrix units."""

_SHRINKS = (1.0, 0.95, 0.9, 0.85)
"""Parts of a group's range that are tried for 4 bits; a narrower one cuts outliers off and divides the rest more finely."""

KEEP = "as it is"


@dataclass(frozen=True)
class GroupQuantOptions:
    """How many bits, and which layers."""

    bits: str = field(
        default="8",
        metadata={
            "label": "Bits",
            "help": "Per weight; 4 bits keep a scale and a shift per group, 8 bits a scale",
            "choices": ("8", "4"),
        },
    )
    head: str = field(
        default="8",
        metadata={
            "label": "Output head",
            "help": "Bits of the projection to the vocabulary; a head that shares the embedding's weight gets a copy",
            "choices": ("8", "4", KEEP),
        },
    )
    skip: str = field(
        default="",
        metadata={
            "label": "Leave as they are",
            "help": "Layers whose path contains one of these words, such as down_proj; separate them by a space or +",
        },
    )


@passes.register
class GroupQuant:
    """Replaces every linear layer by one whose weights are integers in groups."""

    id = "group_quant"
    title = "Grouped int8 / int4"
    summary = "Integer products by Tickscope's own kernels; weights and activations in groups of 32"
    phase = Phase.QUANTIZE
    options: ClassVar[type | None] = GroupQuantOptions
    changes_weights = True
    lossless: ClassVar[bool] = False

    def check(self, context: PassContext) -> str | None:
        if context.target.id != "cpu":
            return "its kernels are for the CPU"
        return available()

    def apply(self, subject: Subject, options: GroupQuantOptions) -> PassReport:
        load()
        model = subject.model
        head = output_head(model)
        paths = [path for path in linear_paths(model, options.head != KEEP, options.skip) if path]
        if not paths:
            raise Refusal("Grouped int8 / int4 found no linear layer to change here; switch the pass off or skip fewer layers.")
        tied = head is not None and _shares_embedding(model, head)
        for path in paths:
            module = model.get_submodule(path)
            bits = int(options.head if module is head else options.bits)
            replace(model, path, grouped_linear(as_linear(module), bits))
        notes = ["Products of up to 16 rows are of integers; more rows expand the weights to bfloat16 on every call."]
        if tied and options.head != KEEP:
            notes.append("The output head shared its weight with the embedding; it has a copy of its own now.")
        summary = f"{len(paths)} layers → int{options.bits} in groups of {GROUP}"
        return PassReport(self.id, self.title, asdict(options), len(paths), summary, notes=tuple(notes))


def _shares_embedding(model: torch.nn.Module, head: torch.nn.Module) -> bool:
    find = getattr(model, "get_input_embeddings", None)
    return find is not None and getattr(find(), "weight", None) is getattr(head, "weight", model)


def quantize_groups(weight: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Integers with a scale (8 bits), or a scale and a shift (4 bits), per group of 32 inputs.

    4 bits are those of GGUF's Q4_1 where a group's range is kept, so that weights that were stored so come out as they were.

    Args:
        weight: [outputs, inputs], floating point.
        bits: 8 or 4.

    Returns:
        Integers from 0 [rows, groups, 32] (uint8), scales and shifts [rows, groups] (float16), with rows a multiple of 16 and
        missing inputs zero; a weight is scale · integer + shift.
    """
    import torch

    outputs, inputs = weight.shape
    rows, groups = -(-outputs // LANES) * LANES, -(-inputs // GROUP)
    padded = torch.zeros(rows, groups * GROUP)
    padded[:outputs, :inputs] = weight.detach().float()
    grouped = padded.view(rows, groups, GROUP)
    if bits == 8:
        scale = (grouped.abs().amax(-1) / 127).half()
        values = _divided(grouped, scale).round().clamp(-127, 127) + 128
        return values.to(torch.uint8), scale, scale * -128
    low, high = grouped.amin(-1), grouped.amax(-1)
    middle, reach = (low + high) / 2, (high - low) / 2
    best = torch.full_like(low, torch.inf)
    found = [torch.zeros_like(grouped, dtype=torch.uint8), low.half(), low.half()]
    for part in _SHRINKS:
        scale, shift = (reach * part * 2 / 15).half(), (middle - reach * part).half()
        values = _divided(grouped - shift.float()[..., None], scale).round().clamp(0, 15)
        error = (values * scale.float()[..., None] + shift.float()[..., None] - grouped).square().sum(-1)
        better = error < best
        best = torch.where(better, error, best)
        found = [
            torch.where(better[..., None], values.to(torch.uint8), found[0]),
            torch.where(better, scale, found[1]),
            torch.where(better, shift, found[2]),
        ]
    return found[0], found[1], found[2]


def _divided(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """``values`` [rows, groups, 32] over their groups' scales; 0 where the scale is 0."""
    inverse = scale.float().reciprocal().nan_to_num(posinf=0.0)
    return values * inverse[..., None]


def lay_out(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Integers [rows, groups, 32] in the order in which the kernel reads them (see ``resources/native``)."""
    rows, groups, _ = values.shape
    vectors = values.view(rows // LANES, LANES, groups, 8, 4).permute(0, 2, 3, 1, 4)
    if bits == 4:
        vectors = vectors[:, :, :4] | (vectors[:, :, 4:] << 4)
    return vectors.contiguous()


def side_by_side(numbers: torch.Tensor) -> torch.Tensor:
    """Scales or shifts [rows, groups] in the kernel's order: [rows / 16, groups, 16]."""
    rows, groups = numbers.shape
    return numbers.view(rows // LANES, LANES, groups).permute(0, 2, 1).contiguous()


def grouped_linear(linear: torch.nn.Linear, bits: int) -> torch.nn.Module:
    """The layer with its weight in integers of so many bits."""
    module: torch.nn.Module = _grouped_linear_class()(linear, bits)
    return module.train(linear.training)


@lru_cache(maxsize=1)
def _grouped_linear_class() -> Any:
    """The layer's class, made when torch is there."""
    import torch

    class GroupedLinear(torch.nn.Module):
        """``y = x @ weight.T + bias`` with integer weights; see the module's docstring for what is rounded when."""

        def __init__(self, linear: torch.nn.Linear, bits: int) -> None:
            super().__init__()
            self.in_features, self.out_features, self.bits = linear.in_features, linear.out_features, bits
            values, scale, shift = quantize_groups(linear.weight, bits)
            self.register_buffer("packed", lay_out(values, bits))
            # some owners (T5's) cast what they give to the type of ``weight``
            self.register_buffer("weight", linear.weight.new_empty(0), persistent=False)
            self.register_buffer("scale", side_by_side(scale))
            self.register_buffer("shift", side_by_side(shift) if bits == 4 else shift.new_empty(0))
            self.register_buffer("like", torch.empty(0, dtype=torch.bfloat16), persistent=False)
            self.bias = linear.bias

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = x.reshape(-1, self.in_features)
            packed = (self.packed, self.scale, self.shift)
            if rows.dtype not in (torch.float32, torch.bfloat16):
                rows = rows.float()
            if rows.shape[0] <= MOST_ROWS:
                product = torch.ops.tickscope.grouped_linear(rows.contiguous(), *packed, self.out_features, self.bits)
            else:
                size = (self.in_features, self.out_features, self.bits)
                weight = torch.ops.tickscope.grouped_weight(*packed, self.like, *size)
                product = torch.nn.functional.linear(rows.to(weight.dtype), weight)
            product = product.to(x.dtype).view(*x.shape[:-1], self.out_features)
            return product if self.bias is None else product + self.bias

        def extra_repr(self) -> str:
            return f"in_features={self.in_features}, out_features={self.out_features}, bits={self.bits}"

    return GroupedLinear
