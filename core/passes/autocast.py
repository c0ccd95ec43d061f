"""Autocast: float32 weights stay, and matrix products are computed in 16 bits, cast on every call."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.model_parts.linears import is_linear
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import Exclusion, Group
from core.pass_api.subject import Subject
from profilers.forward_patch import Forward, ForwardPatch, Order


@dataclass(frozen=True)
class AutocastOptions:
    """In what the products are computed."""

    dtype: str = field(
        default="bfloat16",
        metadata={
            "label": "Products in",
            "help": "float16 has finer steps and a smaller range; on a processor it needs float16 instructions",
            "choices": ("bfloat16", "float16"),
        },
    )


@passes.register
class Autocast(Pass):
    """Puts ``torch.autocast`` around the model's forward."""

    id = "autocast"
    title = "Autocast"
    summary = "Products in 16 bits over float32 weights: faster prompts, but no memory is saved"
    phase = Phase.PRECISION
    options: ClassVar[type | None] = AutocastOptions
    changes_weights = False
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.CASTS, Group.NEEDS_TORCH})
    excludes: ClassVar[tuple[Exclusion, ...]] = (
        Exclusion(frozenset({Group.QUANTIZES, Group.COMPILES}), Reason("passes.autocast-would-cast")),
    )
    casts_on_call: ClassVar[bool] = True

    def check(self, context: PassContext) -> Reason | None:
        if context.model is not None and context.model.dtype != "float32":
            return Reason("passes.for-float32", dtype=context.model.dtype)
        return None

    def apply(self, subject: Subject, options: AutocastOptions) -> PassReport:
        import torch

        model, dtype = subject.model, getattr(torch, options.dtype)
        first = next(model.parameters(), None)
        changed = sum(is_linear(module) for module in model.modules())
        if first is None or not changed:
            raise Refusal(Reason("passes.autocast-finds-nothing"))
        device = first.device.type
        if device == "cpu" and dtype == torch.float16 and not _multiplies_float16():
            raise Refusal(Reason("passes.no-float16-instructions"))
        patch = ForwardPatch(Order.PASS, [(model, lambda forward: _cast(forward, device, dtype))])
        patch.push()
        subject.undo.callback(patch.pop)
        note = worded(
            "pass.autocast.cast-each-call",
            "The float32 weights stay and are cast on every call, which costs most where a moment has few tokens (decode).",
        )
        summary = worded(
            "pass.autocast.done",
            "products of {count} layers → {dtype}, weights stay float32",
            count=changed,
            dtype=options.dtype,
        )
        return PassReport(self.id, self.title, asdict(options), changed, summary, notes=(note,))


def _cast(forward: Forward, device: str, dtype: Any) -> Forward:
    """``forward`` under autocast; its signature stays visible, as ``generate`` reads it."""
    import torch

    @functools.wraps(forward)
    def cast(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, dtype):
            return forward(*args, **kwargs)

    return cast


def _multiplies_float16() -> bool:
    import torch

    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_fp16", False) or able.get("amx_fp16", False))
