"""int8 weight-only: weights kept in int8 with one scale per row, multiplied by torch's own int8 kernel, eager or compiled.

Our own small layer rather than torchao's, so that the kernel that runs is known: ``aten::_weight_int8pack_mm`` for few rows
(decode), where reading weights is what takes the time, and a dequantised product for many (prefill). Measured on a Xeon with
AMX, 2 threads, 1536 × 576: the kernel takes 35 µs for one row in bfloat16 (bfloat16 linear: 66) and grows by 16 µs a row;
with float32 activations it is not vectorised and takes 680 µs (float32 linear: 50). Hence the rounding to bfloat16.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from core.errors import Refusal
from core.passes.base import PassContext, PassReport, Phase, Subject, passes
from core.passes.linears import as_linear, linear_paths, replace

if TYPE_CHECKING:
    import torch

MOST_KERNEL_ROWS = 8
"""Up to so many rows the int8 kernel is faster than dequantising; the measurement is above."""


@dataclass(frozen=True)
class Int8WeightOnlyOptions:
    """Which layers, and in what their products are computed."""

    include_head: bool = field(
        default=True,
        metadata={
            "label": "Also the output head",
            "help": "A head that shares its weight with the embedding gets an int8 copy; the embedding stays as it is",
        },
    )
    skip: str = field(
        default="",
        metadata={
            "label": "Leave as they are",
            "help": "Layers whose path contains one of these words, such as down_proj; separate them by a space or +",
        },
    )
    activations: str = field(
        default="bfloat16",
        metadata={
            "label": "Activations inside",
            "help": "bfloat16 lets the fast int8 kernel run; float32 is exact but dequantises the weight on every call",
            "choices": ("bfloat16", "float32"),
        },
    )


@passes.register
class Int8WeightOnly:
    """Replaces every linear layer by one that holds int8 weights."""

    id = "int8_weight_only"
    title = "int8 weights"
    summary = "Weights in int8, activations not: a quarter of the memory to read per token"
    phase = Phase.QUANTIZE
    options: ClassVar[type | None] = Int8WeightOnlyOptions
    changes_weights = True
    lossless: ClassVar[bool] = False

    def check(self, context: PassContext) -> str | None:
        return None

    def apply(self, subject: Subject, options: Int8WeightOnlyOptions) -> PassReport:
        model = subject.model
        paths = [path for path in linear_paths(model, options.include_head, options.skip) if path]
        if not paths:
            raise Refusal("int8 weights found no linear layer to change here; switch the pass off or skip fewer layers.")
        on_cpu = True
        for path in paths:
            linear = as_linear(model.get_submodule(path))
            on_cpu = on_cpu and linear.weight.device.type == "cpu"
            replace(model, path, int8_linear(linear, options.activations == "bfloat16"))
        how = "" if on_cpu else "; dequantised on every call, the int8 kernel is the CPU's"
        return PassReport(self.id, self.title, asdict(options), len(paths), f"{len(paths)} layers → int8 weights{how}")


def quantize_rows(weight: torch.Tensor, scale_dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric int8 with one scale per output row.

    Args:
        weight: [outputs, inputs], floating point.
        scale_dtype: what the scales are rounded to. They are rounded before dividing by them, so that this costs no accuracy.

    Returns:
        int8 values [outputs, inputs] and scales [outputs]; ``values * scales[:, None]`` is within half a scale of the weight.
    """
    import torch

    exact = weight.detach().float()
    smallest = torch.finfo(torch.float32).tiny
    scale = (exact.abs().amax(1) / 127).clamp(min=smallest).to(scale_dtype)
    values = (exact / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
    return values, scale


def int8_linear(linear: torch.nn.Linear, round_activations: bool) -> torch.nn.Module:
    """The layer with its weight in int8; see ``Int8WeightOnlyOptions.activations`` for the rounding."""
    import torch

    dtype = linear.weight.dtype
    module: torch.nn.Module = _int8_linear_class()(linear, torch.bfloat16 if round_activations else dtype)
    return module.train(linear.training)


@lru_cache(maxsize=1)
def _int8_linear_class() -> Any:
    """The layer's class, made when torch is there."""
    import torch

    class Int8Linear(torch.nn.Module):
        """``y = x @ (weight * scale).T + bias`` with ``weight`` int8 [outputs, inputs] and ``scale`` [outputs]."""

        def __init__(self, linear: torch.nn.Linear, compute: torch.dtype) -> None:
            super().__init__()
            self.in_features, self.out_features = linear.in_features, linear.out_features
            values, scale = quantize_rows(linear.weight, compute)
            self.register_buffer("weight", values)
            self.register_buffer("scale", scale)
            self.bias = linear.bias
            self.has_kernel = compute == torch.bfloat16 and values.device.type == "cpu"

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = x.reshape(-1, self.in_features).to(self.scale.dtype)
            if self.has_kernel and rows.shape[0] <= MOST_KERNEL_ROWS:
                product = torch.ops.aten._weight_int8pack_mm(rows.contiguous(), self.weight, self.scale)
            else:
                product = torch.nn.functional.linear(rows, self.weight.to(rows.dtype)) * self.scale
            product = product.to(x.dtype).view(*x.shape[:-1], self.out_features)
            return product if self.bias is None else product + self.bias

        def extra_repr(self) -> str:
            return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    return Int8Linear
