"""float8 by row: weights as e4m3 bytes with one scale per row, turned back into numbers on every call.

torch converts float8 on the CPU element by element: 8 ms for 1536 × 576. Here the bits are shifted into a bfloat16's place,
which whole registers do at once; the exponent's other bias is made up for by 2^120. torch's own product takes float8 here,
but oneDNN has only its reference loop for it (136 ms for one row), so there is no float8 product to offer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from core.quantization.product_form import ProductForm

if TYPE_CHECKING:
    import torch

LARGEST = 448.0  # of e4m3
BIAS = 2.0**120  # bfloat16's exponent bias of 127 against e4m3's of 7
BITS = 0x87F0 - 0x10000  # as int16: the sign, and the seven other bits where bfloat16 has its low exponent and high fraction


def float8_rows(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight [outputs, inputs] as e4m3 values of the same shape and float32 scales [outputs]."""
    import torch

    exact = weight.detach().float()
    scale = (exact.abs().amax(1) / LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
    return (exact / scale[:, None]).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scale


def as_bfloat16(values: torch.Tensor) -> torch.Tensor:
    """e4m3 values as bfloat16, exactly (there is no NaN among weights)."""
    import torch

    bits = values.view(torch.int8).to(torch.int16)
    return ((bits << 4) & BITS).view(torch.bfloat16) * BIAS


def float8_linear(linear: torch.nn.Linear) -> torch.nn.Module:
    """The layer with its weight in float8; computes in its own dtype."""
    module: torch.nn.Module = _class()(linear)
    return module.train(linear.training)


@lru_cache(maxsize=1)
def _class() -> Any:
    """The layer's class, made when torch is there."""
    import torch

    class Float8Linear(torch.nn.Module):
        """``y = x @ weight.T * scale + bias`` with ``weight`` e4m3 [outputs, inputs] and ``scale`` float32 [outputs]."""

        def __init__(self, linear: torch.nn.Linear) -> None:
            super().__init__()
            self.in_features, self.out_features = linear.in_features, linear.out_features
            values, scale = float8_rows(linear.weight)
            self.register_buffer("packed", values)
            self.register_buffer("weight", linear.weight.new_empty(0), persistent=False)  # owners such as T5 cast to its type
            self.register_buffer("scale", scale)
            self.bias = linear.bias

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            product = torch.nn.functional.linear(x, as_bfloat16(self.packed).to(x.dtype)) * self.scale.to(x.dtype)
            return product if self.bias is None else product + self.bias

        def as_product(self) -> ProductForm:
            """How it multiplies."""
            return ProductForm("float8 weights", "bfloat16", direct_rows=0, unpacks_to="bfloat16")

        def extra_repr(self) -> str:
            return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    return Float8Linear
