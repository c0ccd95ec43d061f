"""int8 weights: weights kept in int8 with one scale per row, multiplied by torch's own int8 kernel, eager or compiled."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import ClassVar

from core.messages.reason import Reason, worded
from core.model_parts.linears import LayerChoice, chosen, head_note, left_out, swap
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import Group
from core.pass_api.subject import Subject
from core.quantization.int8_rows import int8_linear


@dataclass(frozen=True)
class Int8WeightOnlyOptions(LayerChoice):
    """Which layers, and in what their products are computed."""

    activations: str = field(
        default="bfloat16",
        metadata={
            "label": "Activations inside",
            "help": "bfloat16 lets the fast int8 kernel run; float32 is exact but dequantises the weight on every call",
            "choices": ("bfloat16", "float32"),
        },
    )


@passes.register
class Int8WeightOnly(Pass):
    """Replaces every linear layer by one that holds int8 weights."""

    id = "int8_weight_only"
    title = "int8 weights"
    summary = "Weights in int8, activations not: a quarter of the memory to read per token"
    phase = Phase.QUANTIZE
    options: ClassVar[type | None] = Int8WeightOnlyOptions
    changes_weights = True
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.QUANTIZES, Group.NEEDS_TORCH})

    def check(self, context: PassContext) -> Reason | None:
        return None

    def apply(self, subject: Subject, options: Int8WeightOnlyOptions) -> PassReport:
        model = subject.model
        paths = chosen(model, self.title, options, options.include_head)
        notes = head_note(model, paths, "int8")
        on_cpu = all(model.get_submodule(path).weight.device.type == "cpu" for path in paths)
        rounded = options.activations == "bfloat16"
        swap(model, paths, lambda linear: int8_linear(linear, rounded), subject.progress.check)
        summary = worded("pass.int8_weight_only.done", "{count} layers → int8 weights", count=len(paths))
        if not on_cpu:
            words = "{what}; dequantised on every call, the int8 kernel is the CPU's"
            summary = worded("pass.int8_weight_only.dequantised", words, what=summary)
        return PassReport(self.id, self.title, asdict(options), len(paths), summary, notes=(*notes, *left_out(model)))
