"""Attention implementation: which code computes scores, softmax and weighted sum; switched on the loaded model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from core import torch_private
from core.error_text import first_line, said
from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.models.sample_inputs import MODEL_ERRORS, small_call
from core.pass_api.base import Pass, PassContext, PassReport, Phase, none_from, passes
from core.pass_api.exclusions import Group
from core.pass_api.subject import Subject

if TYPE_CHECKING:
    import torch

SDPA_MATH = "sdpa_math"
FLASH = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_3"}
"""Implementations for CUDA GPUs and the package that each needs."""


@dataclass(frozen=True)
class AttentionOptions:
    """Which implementation."""

    implementation: str = field(
        default="eager",
        metadata={
            "label": "Implementation",
            "help": "sdpa is transformers' choice; eager and sdpa_math show what it is worth; flex_attention compiles",
            "choices": ("eager", "sdpa", SDPA_MATH, "flex_attention", *FLASH),
        },
    )


@passes.register
class Attention(Pass):
    """Switches the attention implementation. Not lossless: each sums in another order, so rounding differs."""

    id = "attention"
    title = "Attention implementation"
    summary = "Fused attention kernels or plain matrix products"
    phase = Phase.KERNEL
    options: ClassVar[type | None] = AttentionOptions
    changes_weights = False
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.NEEDS_TORCH})

    def check(self, context: PassContext) -> Reason | None:
        if context.model is not None and context.model.task == "module":
            return Reason("passes.attention-of-transformers")
        return None

    def apply(self, subject: Subject, options: AttentionOptions) -> PassReport:
        model: Any = subject.model
        wanted = options.implementation
        if not hasattr(model, "set_attn_implementation"):
            raise Refusal(Reason("passes.attention-not-of-transformers"))
        before = str(torch_private.attention_implementation(model.config))
        if before == wanted:
            raise Refusal(Reason("passes.attention-in-use", wanted=wanted))
        _refuse_flash(wanted, next(model.parameters()).device.type)
        subject.undo.callback(torch_private.remember_attention(model))
        _switch(model, wanted, before)
        ran = _seen(model, wanted)
        return PassReport(
            self.id,
            self.title,
            asdict(options),
            _attentions(model),
            worded("pass.attention.done", "attention {before} → {wanted}", before=before, wanted=wanted),
            notes=(worded("pass.attention.ran", "What ran on a small input: {ran}.", ran=ran),),
            prediction=none_from(Reason("passes.how-scores-are-kept")),
        )


def _refuse_flash(wanted: str, device: str) -> None:
    if wanted not in FLASH:
        return
    if device != "cuda":
        raise Refusal(Reason("passes.attention-needs-cuda", wanted=wanted))
    if find_spec(FLASH[wanted]) is None:
        raise Refusal(Reason("passes.attention-needs-package", wanted=wanted, flash=FLASH[wanted]))


def _switch(model: Any, wanted: str, before: str) -> None:
    """Set the implementation of the model and all its parts; ``Refusal`` where it does not take it."""
    if wanted == SDPA_MATH:
        _register_math()
    try:
        model.set_attn_implementation(wanted)
    except (ValueError, ImportError) as error:
        reason = said(error).split(". ")[0].rstrip(".")
        raise Refusal(Reason("passes.attention-impossible", wanted=wanted, reason=reason)) from error
    if torch_private.attention_implementation(model.config) != wanted:
        raise Refusal(Reason("passes.only-one-attention", model=type(model).__name__, before=before))


@lru_cache(maxsize=1)
def _register_math() -> None:
    """Make torch's plain attention known to transformers under a name of its own; once in a process.

    Through transformers' table of implementations and not by a context around ``forward``, which a compiled twin of the model
    would call on the wrong model.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def sdpa_math(*args: Any, **kwargs: Any) -> Any:
        with sdpa_kernel(SDPBackend.MATH):
            return sdpa_attention_forward(*args, **kwargs)

    AttentionInterface.register(SDPA_MATH, sdpa_math)
    AttentionMaskInterface.register(SDPA_MATH, sdpa_mask)


def _attentions(model: torch.nn.Module) -> int:
    """How many attention modules the model has; at least the model itself."""
    named = [path for path, module in model.named_modules() if type(module).__name__.endswith("Attention")]
    return max(1, sum(not any(other.startswith(f"{path}.") for other in named) for path in named))


def _seen(model: torch.nn.Module, wanted: str) -> Reason | str:
    """What really computes attention in a small call of the model; ``Refusal`` where that fails."""
    call = small_call(model)
    if call is None:
        return worded(
            "pass.attention.not-looked-at",
            "not looked at, this kind of model has no small input (set to {wanted})",
            wanted=wanted,
        )
    try:
        if wanted == "flex_attention":
            call()
            return worded("pass.attention.flex", "flex_attention, compiled by torch's inductor")
        names = _operators(call)
    except MODEL_ERRORS as error:
        reason = first_line(error).rstrip(".:")[:120]
        raise Refusal(Reason("passes.attention-fails", wanted=wanted, reason=reason)) from error
    found = [what for name, what in torch_private.ATTENTION_OPERATORS.items() if f"aten.{name}.default" in names]
    if not found:
        return worded("pass.attention.no-operator", "no operator that tells (set to {wanted})", wanted=wanted)
    return found[0] if wanted != "eager" else found[-1]


def _operators(call: Callable[[], object]) -> set[str]:
    """Names of all operators that torch dispatches in a call."""
    mode: Any = torch_private.dispatch_mode()
    names: set[str] = set()

    class Listening(mode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.add(str(func))
            return func(*args, **(kwargs or {}))

    with Listening():
        call()
    return names
