"""bfloat16: half the bytes for the weights, and the processor's bfloat16 units where it has them."""

from __future__ import annotations

from typing import Any, ClassVar

from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.model_parts.weights import cast
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import Group
from core.pass_api.subject import Subject


@passes.register
class Bfloat16(Pass):
    """Casts weights to bfloat16, exactly as loading in that dtype would."""

    id = "bfloat16"
    title = "bfloat16"
    summary = "Weights and arithmetic in 16 bits: half the memory to read"
    phase = Phase.PRECISION
    options: ClassVar[type | None] = None
    changes_weights = True
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.CASTS})

    def check(self, context: PassContext) -> Reason | None:
        if context.model is not None and context.model.dtype == "bfloat16":
            return Reason("passes.already-bfloat16")
        return None

    def apply(self, subject: Subject, options: Any) -> PassReport:
        import torch

        changed = cast(subject.model, torch.bfloat16)
        if changed == 0:
            raise Refusal(Reason("passes.nothing-to-cast-bfloat16"))
        return PassReport(
            self.id, self.title, {}, changed, worded("pass.bfloat16.done", "{count} modules → bfloat16", count=changed)
        )
