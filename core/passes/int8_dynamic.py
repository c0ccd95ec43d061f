"""int8 dynamic: weights and activations in int8, activations rounded on the fly.

Our own layer rounds each token by its own largest value. torch's older ``quantize_dynamic`` rounds all tokens of a call by one
and only to seven bits, which ruins text (KLD of about 3 for SmolLM2); it is kept to show just that, and for its eager speed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, ClassVar

from core import torch_private
from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.model_parts.linears import LayerChoice, as_linear, chosen, head_note, left_out, replace, swap
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import Group
from core.pass_api.subject import Subject
from core.quantization.int8_tokens import LEVELS, int8_token_linear, levels

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Int8DynamicOptions(LayerChoice):
    """Which layers, and whose kernel."""

    kernel: str = field(
        default="int_mm",
        metadata={
            "label": "Kernel",
            "help": "int_mm: a scale for each token; float32 and bfloat16, eager and compiled. "
            "fbgemm: torch's older layers; one scale for all tokens, float32 and eager only",
            "choices": ("int_mm", "fbgemm"),
        },
    )
    activations: str = field(
        default="int8",
        metadata={
            "label": "Activations (int_mm)",
            "help": "int16: what int8 leaves is rounded to int8 again and multiplied too; more exact, twice the products",
            "choices": ("int8", "int16"),
        },
    )
    granularity: str = field(
        default="channel",
        metadata={
            "label": "Weight scales per (fbgemm)",
            "help": "One scale per output channel (more exact) or per weight matrix; int_mm always has one per channel",
            "choices": ("tensor", "channel"),
        },
    )


@passes.register
class Int8Dynamic(Pass):
    """Replaces every linear layer by one that multiplies whole numbers."""

    id = "int8_dynamic"
    title = "int8 dynamic"
    summary = "Weights and activations in int8, multiplied as whole numbers (CPU)"
    phase = Phase.QUANTIZE
    options: ClassVar[type | None] = Int8DynamicOptions
    changes_weights = True
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.QUANTIZES, Group.NEEDS_TORCH})

    def check(self, context: PassContext) -> Reason | None:
        return Reason("passes.cpu-kernels") if context.target.id != "cpu" else None

    def apply(self, subject: Subject, options: Int8DynamicOptions) -> PassReport:
        model = subject.model
        paths = chosen(model, self.title, options, options.include_head)
        notes = list(head_note(model, paths, "int8"))
        if options.kernel == "fbgemm":
            how = _torchs_own(model, paths, options.granularity)
        else:
            fine = options.activations == "int16"
            swap(model, paths, lambda linear: int8_token_linear(linear, fine), subject.progress.check)
            how = worded(
                "pass.int8_dynamic.per-token", "activations {activations}, a scale per token", activations=options.activations
            )
            if levels()[0] < LEVELS:
                notes.append(
                    worded(
                        "pass.int8_dynamic.no-vnni",
                        "This processor has no VNNI instructions, so activations are rounded to 7 bits instead of 8.",
                    )
                )
        summary = worded("pass.int8_dynamic.done", "{count} layers → int8 ({how})", count=len(paths), how=how)
        return PassReport(self.id, self.title, asdict(options), len(paths), summary, notes=(*notes, *left_out(model)))


def _torchs_own(model: torch.nn.Module, paths: list[str], granularity: str) -> Reason:
    """``torch.ao.quantization.quantize_dynamic`` on these layers; names the engine that it uses."""
    import torch

    quantize = torch_private.dynamic_quantization()
    if quantize is None:
        raise Refusal(Reason("passes.no-quantize-dynamic"))
    if any(model.get_submodule(path).weight.dtype != torch.float32 for path in paths):
        raise Refusal(Reason("passes.fbgemm-needs-float32"))
    for path in paths:
        if (linear := as_linear(module := model.get_submodule(path))) is not module:
            replace(model, path, linear)
    with _quiet():
        scales = dict.fromkeys(paths, torch_private.dynamic_scales(granularity))
        quantize(model, scales, dtype=torch.qint8, inplace=True)
    return worded("pass.int8_dynamic.torchs-own", "torch's own, {engine}", engine=torch.backends.quantized.engine)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says on this path: that torch.ao and its tensors will go one day, and about observers' ranges."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"torch\.ao\.quantization is deprecated", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor, torch\.", category=UserWarning)
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.script_method` is deprecated", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=r"Please use quant_min and quant_max", category=UserWarning)
        yield
