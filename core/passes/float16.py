"""float16: half the bytes for the weights, where the target multiplies float16 itself."""

from __future__ import annotations

from typing import Any, ClassVar

from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.model_parts.weights import cast
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import Group
from core.pass_api.subject import Subject

INSTRUCTIONS = frozenset({"avx512_fp16", "amx_fp16"})
"""Without one of these torch multiplies float16 element by element: 2.5 GFLOP/s against 99 in float32, measured on an EPYC."""


@passes.register
class Float16(Pass):
    """Casts weights to float16, exactly as loading in that dtype would."""

    id = "float16"
    title = "float16"
    summary = "Weights and arithmetic in 16 bits with a finer step and a smaller range than bfloat16"
    phase = Phase.PRECISION
    options: ClassVar[type | None] = None
    changes_weights = True
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.CASTS})

    def check(self, context: PassContext) -> Reason | None:
        if context.model is not None and context.model.dtype == "float16":
            return Reason("passes.already-float16")
        if context.target.id == "cpu" and not INSTRUCTIONS & context.target.features:
            return Reason("passes.no-float16")
        return None

    def apply(self, subject: Subject, options: Any) -> PassReport:
        import torch

        changed = cast(subject.model, torch.float16)
        if changed == 0:
            raise Refusal(Reason("passes.nothing-to-cast-float16"))
        return PassReport(
            self.id,
            self.title,
            {},
            changed,
            worded("pass.float16.done", "{count} modules → float16", count=changed),
            notes=(
                worded(
                    "pass.float16.overflow",
                    "Values above 65504 overflow in float16: the quality shows whether this model has any.",
                ),
            ),
        )
