"""bfloat16: half the bytes for the weights, and the processor's bfloat16 units where it has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from core.errors import Refusal
from core.passes.base import PassContext, PassReport, Phase, Subject, passes

if TYPE_CHECKING:
    import torch


@passes.register
class Bfloat16:
    """Casts weights to bfloat16, exactly as loading in that dtype would."""

    id = "bfloat16"
    title = "bfloat16"
    summary = "Weights and arithmetic in 16 bits: half the memory to read"
    phase = Phase.PRECISION
    options: ClassVar[type | None] = None
    changes_weights = True
    lossless: ClassVar[bool] = False

    def check(self, context: PassContext) -> str | None:
        if context.model is not None and context.model.dtype == "bfloat16":
            return "the model is already bfloat16"
        return None

    def apply(self, subject: Subject, options: Any) -> PassReport:
        import torch

        model = subject.model
        changed = 0
        for _, module in _castable(model):
            mine = [tensor for tensor in _tensors(module) if tensor.is_floating_point() and tensor.dtype != torch.bfloat16]
            for tensor in mine:
                tensor.data = tensor.data.to(torch.bfloat16)  # the same Parameter object, so tied weights stay tied
            changed += bool(mine)
        if changed == 0:
            raise Refusal("The bfloat16 pass found nothing to cast: the model is already bfloat16; switch the pass off.")
        if hasattr(model, "config"):
            model.config.dtype = torch.bfloat16
        return PassReport(self.id, self.title, {}, changed, f"{changed} modules → bfloat16")


def _castable(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """All modules but those that the architecture wants in float32 whatever the dtype."""
    kept = tuple(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    for path, module in model.named_modules():
        if not any(name in path.split(".") for name in kept):
            yield path, module


def _tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    """The module's own parameters and saved buffers.

    Buffers that are not saved (rotary frequencies) are computed, and stay float32 as when loading in bfloat16: rounding
    them would move every position.
    """
    buffers = [buffer for name, buffer in module.named_buffers(recurse=False) if name not in module._non_persistent_buffers_set]
    return [*module.parameters(recurse=False), *buffers]
