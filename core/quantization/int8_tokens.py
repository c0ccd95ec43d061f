"""int8 on both sides: weights by row, activations by token on the fly, multiplied as whole numbers by ``aten::_int_mm``.

Activations go in as unsigned bytes around 128 and the product is put right by each weight row's sum, as oneDNN has its fast
one-row kernel only for unsigned times signed: measured for 1536 × 576 on a Xeon with AMX, one thread, 12 µs for one row
against 130 µs with signed activations (and 87 µs of ``_weight_int8pack_mm``). From two rows on both take the same.
"""

from __future__ import annotations

import platform
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from core import torch_private
from core.quantization.int8_rows import quantize_rows
from core.quantization.product_form import ProductForm

if TYPE_CHECKING:
    import torch

LEVELS = 127
NARROW_LEVELS = 63
"""Levels on each side of zero. Without VNNI instructions pairs of products are added in 16 bits, which hold 127 × 127 × 2."""


def levels() -> tuple[int, int]:
    """Levels on each side of zero for activations, and the number added to them, on this processor."""
    import torch

    if platform.machine().lower() not in ("x86_64", "amd64"):
        return LEVELS, 0
    able = torch.cpu.get_capabilities()
    wide = any(able.get(name, False) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))
    return (LEVELS, 128) if wide else (NARROW_LEVELS, 64)


def int8_token_linear(linear: torch.nn.Linear, fine: bool = False) -> torch.nn.Module:
    """The layer with its weight in int8, which rounds what it is given to int8 too, a scale for each token.

    ``fine``: what this rounding leaves is rounded to int8 again and multiplied too; 16 bits for twice the products.
    """
    module: torch.nn.Module = _class()(linear, *levels(), fine)
    return module.train(linear.training)


@lru_cache(maxsize=1)
def _class() -> Any:
    """The layer's class, made when torch is there."""
    import torch

    product_of = torch_private.int8_product()

    class Int8TokenLinear(torch.nn.Module):
        """``y = (q - offset) @ weight.T * token_scale * scale + bias``, ``q`` the input in whole numbers around ``offset``.

        ``weight`` is int8 [outputs, inputs], ``scale`` float32 [outputs], ``shift`` = offset × row sums, int32 [outputs].
        """

        def __init__(self, linear: torch.nn.Linear, most: int, offset: int, fine: bool) -> None:
            super().__init__()
            self.in_features, self.out_features = linear.in_features, linear.out_features
            self.most, self.offset, self.fine = most, offset, fine
            values, scale = quantize_rows(linear.weight, torch.float32)
            self.register_buffer("weight", values)
            self.register_buffer("scale", scale)
            self.register_buffer("shift", values.sum(1, dtype=torch.int32) * offset)
            self.bias = linear.bias

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = x.reshape(-1, self.in_features).float()
            largest = rows.abs().amax(1, keepdim=True).clamp(min=1e-30)
            scaled = rows * (self.most / largest)
            whole = scaled.round()
            product = self.multiply(whole)
            if self.fine:  # one product after the other: oneDNN's fast one is for a single row
                product = product + self.multiply(((scaled - whole) * (2 * self.most)).round()) * (0.5 / self.most)
            exact = product * (largest / self.most) * self.scale
            result = exact.to(x.dtype).view(*x.shape[:-1], self.out_features)
            return result if self.bias is None else result + self.bias

        def multiply(self, whole: torch.Tensor) -> torch.Tensor:
            """The exact product of whole numbers, given as floats, with the weight; int32."""
            inside = (whole + self.offset).to(torch.uint8) if self.offset else whole.to(torch.int8)
            return product_of(inside, self.weight.t()) - self.shift

        def as_product(self) -> ProductForm:
            """How it multiplies."""
            return ProductForm("int8", "int8", passes=2 if self.fine else 1)  # the second multiplies what rounding left

        def extra_repr(self) -> str:
            return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    return Int8TokenLinear
