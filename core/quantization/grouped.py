"""Weights as integers in groups of 32 inputs, and activations rounded to 8 bits in the same groups, by kernels of our own.

Torch's own kernels for int8 and int4 weights multiply in floating point: 9 weights a nanosecond and core on a Xeon with AVX-512
VNNI, whatever their size. Multiplying integers, as llama.cpp does, these do 25 and more, so that reading memory is the limit
again. Many rows (prefill) go through weights expanded to bfloat16, for the matrix units. The kernels, and how the weights lie,
are in ``resources/native/grouped_linear.cpp``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from core.native import load
from core.quantization.product_form import ProductForm

if TYPE_CHECKING:
    import torch

GROUP = 32
LANES = 16
MOST_ROWS = 16
"""Up to so many rows the integer kernel is used; more are left to the matrix units."""


def quantize(weight: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The weight as the kernels read it: integers with a scale (8 bits), or a scale and a shift (4 bits), per group.

    4 bits are those of GGUF's Q4_1 where a group's range is kept, so that weights that were stored so come out as they were;
    narrower ranges, which cut outliers off and divide the rest more finely, are tried and taken where the error is smaller.

    Args:
        weight: [outputs, inputs], float32 or bfloat16, on the CPU.
        bits: 8 or 4.

    Returns:
        Integers [outputs / 16, inputs / 32, bits, 16, 4] (uint8, two to a byte for 4 bits), scales and shifts [outputs / 16,
        inputs / 32, 16] (float16; no shifts for 8 bits), both sizes rounded up.
    """
    import torch

    load()
    outputs, inputs = weight.shape
    blocks, groups = -(-outputs // LANES), -(-inputs // GROUP)
    packed = torch.empty(blocks, groups, bits, LANES, 4, dtype=torch.uint8)
    scale = torch.empty(blocks, groups, LANES, dtype=torch.float16)
    shift = torch.empty_like(scale) if bits == 4 else scale.new_empty(0)
    known = weight.detach() if weight.dtype in (torch.float32, torch.bfloat16) else weight.detach().float()
    torch.ops.tickscope.grouped_quantize(known.contiguous(), packed, scale, shift, bits)
    return packed, scale, shift


def grouped_linear(linear: torch.nn.Linear, bits: int) -> torch.nn.Module:
    """The layer with its weight in integers of so many bits."""
    module: torch.nn.Module = _grouped_linear_class()(linear, bits)
    return module.train(linear.training)


@lru_cache(maxsize=1)
def _grouped_linear_class() -> Any:
    """The layer's class, made when torch is there."""
    import torch

    class GroupedLinear(torch.nn.Module):
        """``y = x @ weight.T + bias`` with integer weights."""

        def __init__(self, linear: torch.nn.Linear, bits: int) -> None:
            super().__init__()
            self.in_features, self.out_features, self.bits = linear.in_features, linear.out_features, bits
            packed, scale, shift = quantize(linear.weight, bits)
            self.register_buffer("packed", packed)
            # some owners (T5's) cast what they give to the type of ``weight``
            self.register_buffer("weight", linear.weight.new_empty(0), persistent=False)
            self.register_buffer("scale", scale)
            self.register_buffer("shift", shift)
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

        def as_product(self) -> ProductForm:
            """How it multiplies."""
            return ProductForm(f"int{self.bits} groups", "int8", direct_rows=MOST_ROWS, unpacks_to="bfloat16")

        def extra_repr(self) -> str:
            return f"in_features={self.in_features}, out_features={self.out_features}, bits={self.bits}"

    return GroupedLinear
