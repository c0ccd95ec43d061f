"""int8 by row: the rounding, and the layer that holds int8 weights and computes in floating point.

The layer is our own, so that the kernel that runs is known: ``aten::_weight_int8pack_mm`` for few rows (decode), where reading
weights is what takes the time, and a dequantised product for many (prefill). Measured on a Xeon with AMX, 2 threads,
1536 × 576: the kernel takes 35 µs for one row in bfloat16 (bfloat16 linear: 66) and grows by 16 µs a row; with float32
activations it is not vectorised and takes 680 µs (float32 linear: 50). Hence the rounding to bfloat16.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from core import torch_private
from core.quantization.product_form import ProductForm

if TYPE_CHECKING:
    import torch

MOST_KERNEL_ROWS = 8
"""Up to so many rows the int8 kernel is faster than dequantising; the measurement is above."""


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
    """The layer with its weight in int8; ``round_activations``: to bfloat16, which the fast kernel needs."""
    import torch

    dtype = linear.weight.dtype
    module: torch.nn.Module = _int8_linear_class()(linear, torch.bfloat16 if round_activations else dtype)
    return module.train(linear.training)


@lru_cache(maxsize=1)
def _int8_linear_class() -> Any:
    """The layer's class, made when torch is there."""
    import torch

    multiply = torch_private.int8_weight_product()

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
                product = multiply(rows.contiguous(), self.weight, self.scale)
            else:
                product = torch.nn.functional.linear(rows, self.weight.to(rows.dtype)) * self.scale
            product = product.to(x.dtype).view(*x.shape[:-1], self.out_features)
            return product if self.bias is None else product + self.bias

        def as_product(self) -> ProductForm:
            """How it multiplies."""
            few = MOST_KERNEL_ROWS if self.has_kernel else 0
            dtype = str(self.scale.dtype).removeprefix("torch.")
            return ProductForm("int8 weights", dtype, direct_rows=few, unpacks_to=dtype)

        def extra_repr(self) -> str:
            return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    return Int8Linear
