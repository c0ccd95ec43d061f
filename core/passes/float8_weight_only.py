"""float8 weights: weights as e4m3 bytes with one scale per row. Saves memory; no processor multiplies them here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

from core.messages.reason import Reason, worded
from core.model_parts.linears import LayerChoice, chosen, head_note, left_out, swap
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import Group
from core.pass_api.subject import Subject
from core.quantization.float8_rows import float8_linear


@dataclass(frozen=True)
class Float8WeightOnlyOptions(LayerChoice):
    """Which layers."""


@passes.register
class Float8WeightOnly(Pass):
    """Replaces every linear layer by one that holds float8 weights."""

    id = "float8_weight_only"
    title = "float8 weights"
    summary = "Weights in 8-bit floating point (e4m3): less memory, slower on the CPU"
    phase = Phase.QUANTIZE
    options: ClassVar[type | None] = Float8WeightOnlyOptions
    changes_weights = True
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.QUANTIZES, Group.NEEDS_TORCH})

    def check(self, context: PassContext) -> Reason | None:
        return None

    def apply(self, subject: Subject, options: Float8WeightOnlyOptions) -> PassReport:
        model = subject.model
        paths = chosen(model, self.title, options, options.include_head)
        notes = head_note(model, paths, "float8")
        swap(model, paths, float8_linear, subject.progress.check)
        memory_only = worded(
            "pass.float8_weight_only.memory-only",
            "Memory only: the weight is dequantised on every call; no float8 product runs, as oneDNN has no fast one here.",
        )
        return PassReport(
            self.id,
            self.title,
            asdict(options),
            len(paths),
            worded("pass.float8_weight_only.done", "{count} layers → float8 weights", count=len(paths)),
            notes=(memory_only, *notes, *left_out(model)),
        )
