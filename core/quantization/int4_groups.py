"""int4 by groups of inputs: the rounding with a search for the best scales, and the layer around torch's CPU kernel.

Measured on a Xeon with AMX, one thread, 1536 × 576, bfloat16: ``aten::_weight_int4pack_mm_for_cpu`` takes 87 µs for one row and
40 µs for each more. For many rows the weight is turned back into bfloat16 once for all, in about 2,700 µs. With float32
activations the kernel is not vectorised (3,700 µs for one row), so they are rounded to bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from core import torch_private
from core.quantization.product_form import ProductForm

if TYPE_CHECKING:
    import torch

GROUPS = (128, 64, 32)
ROWS_MULTIPLE = 16  # what the kernel's packing takes
BLOCK = 64  # outputs that lie together in the packed weight, as AVX512 kernels have them
MOST_KERNEL_ROWS = 64
LAST = 15  # whole numbers 0 to 15; the kernel counts them from 8
MIDDLE = 8
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Parts of a group's range that the search tries: a narrower one clips the ends and has finer steps."""
CHUNK_ELEMENTS = 1 << 17  # of a weight searched at once: what a processor's own cache holds with all its candidates


def group_for(inputs: int, wanted: int) -> int | None:
    """The largest group size of at most ``wanted`` that divides the inputs; None: no size does."""
    return next((size for size in GROUPS if size <= wanted and inputs % size == 0), None)


def quantize_groups(
    weight: torch.Tensor, size: int, search: bool, check: Callable[[], None] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers 0 to 15 with a scale and a zero for each group of inputs of each row.

    Args:
        weight: [outputs, inputs], floating point; inputs divisible by ``size``.
        size: inputs a group.
        search: tries narrower ranges, refits scale and zero to each by least squares (as HQQ does in steps), and keeps for
            each group what leaves the smallest squared error; False: the group's smallest to its largest value.
        check: called now and then; may raise to stop.

    Returns:
        values int32 [outputs, inputs], and bfloat16 [inputs / size, outputs, 2] with scale and zero, as the kernel wants them:
        the weight is about ``(values - 8) * scale + zero``.
    """
    import torch

    rows, inputs = weight.shape
    values, scales = [], []
    step = max(1, CHUNK_ELEMENTS // inputs)
    for start in range(0, rows, step):
        groups = weight[start : start + step].detach().float().view(-1, inputs // size, size)
        whole, scale, zero = _best(groups, search)
        values.append(whole.to(torch.int32).view(-1, inputs))
        scales.append(torch.stack((scale, zero), -1))  # [rows, groups, 2]
        if check is not None:
            check()
    return torch.cat(values), torch.cat(scales).transpose(0, 1).to(torch.bfloat16).contiguous()


def _best(groups: torch.Tensor, search: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Whole numbers (as floats), scales and zeros of groups [rows, groups, size]; the latter two already bfloat16 numbers."""
    low, high = groups.amin(-1), groups.amax(-1)
    middle, half = (low + high) / 2, (high - low) / 2
    best = _rounded(groups, half * 2 / LAST, middle + half / LAST)
    if not search:
        return best
    error = _error(groups, *best)
    for shrink in SHRINKS:
        first = best if shrink == 1 else _rounded(groups, half * shrink * 2 / LAST, middle + half * shrink / LAST)
        candidate = _rounded(groups, *_refit(groups, first[0]))
        for one in (first, candidate):
            its = _error(groups, *one)
            better = its < error
            error = error.where(~better, its)
            best = (
                one[0].where(better[..., None], best[0]),
                one[1].where(better, best[1]),
                one[2].where(better, best[2]),
            )
    return best


def _rounded(groups: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Whole numbers for a scale and a zero, which are rounded to bfloat16 first so that it costs nothing afterwards."""
    import torch

    scale = scale.clamp(min=torch.finfo(torch.float32).tiny).bfloat16().float()
    zero = zero.bfloat16().float()
    whole = ((groups - zero[..., None]) / scale[..., None] + MIDDLE).round_().clamp_(0, LAST)
    return whole, scale, zero


def _refit(groups: torch.Tensor, whole: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale and the zero that fit given whole numbers best: a straight line by least squares in each group."""
    import torch

    steps = whole - MIDDLE
    centre, mean = steps.mean(-1), groups.mean(-1)
    spread = steps - centre[..., None]
    scale = (spread * groups).sum(-1) / spread.square().sum(-1).clamp(min=1e-12)
    scale = scale.clamp(min=torch.finfo(torch.float32).tiny)
    return scale, mean - scale * centre


def _error(groups: torch.Tensor, whole: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    return ((whole - MIDDLE) * scale[..., None] + zero[..., None] - groups).square_().sum(-1)


def int4_linear(linear: torch.nn.Linear, size: int, search: bool, check: Callable[[], None] | None = None) -> torch.nn.Module:
    """The layer with its weight in int4; outputs must be a multiple of 16, inputs of ``size``."""
    module: torch.nn.Module = _class()(linear, size, search, check)
    return module.train(linear.training)


def unpacked(packed: torch.Tensor, inputs: int) -> torch.Tensor:
    """A packed weight uint8 [outputs, inputs / 2] as int8 from -8 to 7 in [blocks, inputs, 64 outputs].

    In each block a byte holds output n in its lower half and output n + 32 in its upper one. Only for layouts that
    ``_in_blocks`` has recognised: they are the kernel's own business and differ between processors.
    """
    import torch

    pairs = packed.view(-1, inputs, BLOCK // 2)
    return torch.cat((pairs & LAST, pairs >> 4), -1).view(torch.int8) - MIDDLE


def _in_blocks(packed: torch.Tensor, values: torch.Tensor) -> bool:
    """Whether the packed weight lies as ``unpacked`` reads it."""
    import torch

    rows, inputs = values.shape
    if rows % BLOCK:
        return False
    back = unpacked(packed, inputs).transpose(1, 2).reshape(rows, inputs)
    return torch.equal(back, (values - MIDDLE).to(torch.int8))


@lru_cache(maxsize=1)
def _class() -> Any:
    """The layer's class, made when torch is there."""
    import torch

    pack, multiply = torch_private.int4_pack(), torch_private.int4_weight_product()

    class Int4Linear(torch.nn.Module):
        """``y = x @ ((weight - 8) * scale + zero).T + bias`` with ``weight`` packed uint8 [outputs, inputs / 2]."""

        def __init__(self, linear: torch.nn.Linear, size: int, search: bool, check: Callable[[], None] | None = None) -> None:
            super().__init__()
            self.in_features, self.out_features, self.size = linear.in_features, linear.out_features, size
            values, scales = quantize_groups(linear.weight, size, search, check)
            packed = pack(values, 1)
            self.register_buffer("packed", packed)
            self.register_buffer("weight", linear.weight.new_empty(0), persistent=False)  # owners such as T5 cast to its type
            self.register_buffer("scales", scales)  # [groups, outputs, 2]: scale and zero
            self.bias = linear.bias
            self.in_blocks = _in_blocks(packed, values)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = x.reshape(-1, self.in_features).to(torch.bfloat16)
            if rows.shape[0] > MOST_KERNEL_ROWS and self.in_blocks:
                product = torch.nn.functional.linear(rows, self.dequantized())
            else:
                product = multiply(rows.contiguous(), self.packed, self.size, self.scales)
            product = product.to(x.dtype).view(*x.shape[:-1], self.out_features)
            return product if self.bias is None else product + self.bias

        def dequantized(self) -> torch.Tensor:
            """The weight in bfloat16, [outputs, inputs]."""
            groups, blocks = self.in_features // self.size, self.out_features // BLOCK
            whole = unpacked(self.packed, self.in_features).view(blocks, groups, self.size, BLOCK)
            scale, zero = self.scales.view(groups, blocks, 1, BLOCK, 2).transpose(0, 1).unbind(-1)
            # in one piece each: with gaps between them this takes ten times as long
            exact = torch.addcmul(zero.contiguous(), whole.to(torch.bfloat16), scale.contiguous())
            return exact.reshape(blocks, self.in_features, BLOCK).transpose(1, 2).reshape(self.out_features, self.in_features)

        def as_product(self) -> ProductForm:
            """How it multiplies."""
            if not self.in_blocks:
                return ProductForm("int4 weights", "bfloat16")
            return ProductForm("int4 weights", "bfloat16", direct_rows=MOST_KERNEL_ROWS, unpacks_to="bfloat16")

        def extra_repr(self) -> str:
            return f"in_features={self.in_features}, out_features={self.out_features}, group={self.size}"

    return Int4Linear
