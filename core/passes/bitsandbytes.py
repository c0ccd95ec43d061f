"""bitsandbytes: its 4-bit and 8-bit linear layers in the place of the model's own. Saves memory; made for GPUs first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.model_parts.linears import LayerChoice, as_linear, chosen, head_note, left_out, swap
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import Group
from core.pass_api.extras import missing
from core.pass_api.subject import Subject

if TYPE_CHECKING:
    import torch

BLOCK = 64  # weights that share a scale
OUTPUTS_MULTIPLE = 32  # what its CPU packing of 4-bit weights takes
OUTLIER = 6.0
"""Inputs of the 8-bit layers above this are multiplied in floating point, as LLM.int8() does."""


@dataclass(frozen=True)
class BitsandbytesOptions(LayerChoice):
    """Which layers, and in what numbers."""

    include_head: bool = field(
        default=False,
        metadata={
            "label": "Also the output head",
            "help": "Off, as in transformers; a head that shares its weight with the embedding would get a copy of its own",
        },
    )
    kind: str = field(
        default="nf4",
        metadata={
            "label": "Numbers",
            "help": "nf4: 16 levels spaced for normally distributed weights; fp4: 4-bit floating point; int8: LLM.int8()",
            "choices": ("nf4", "fp4", "int8"),
        },
    )


@passes.register
class Bitsandbytes(Pass):
    """Replaces linear layers by bitsandbytes' own."""

    id = "bitsandbytes"
    title = "bitsandbytes"
    summary = "The library's nf4, fp4 or int8 layers: less memory, slower on the CPU"
    phase = Phase.QUANTIZE
    options: ClassVar[type | None] = BitsandbytesOptions
    changes_weights = True
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.QUANTIZES, Group.NEEDS_TORCH})

    def check(self, context: PassContext) -> Reason | None:
        if context.target.id not in ("cpu", "cuda", "xpu"):
            return Reason("passes.no-bitsandbytes-kernels", target=context.target.title)
        return missing("bitsandbytes", "bitsandbytes")

    def apply(self, subject: Subject, options: BitsandbytesOptions) -> PassReport:
        if (reason := missing("bitsandbytes", "bitsandbytes")) is not None:
            raise Refusal(Reason("passes.bitsandbytes-missing", reason=reason))
        model = subject.model
        paths = chosen(model, self.title, options, options.include_head)
        unfit = {} if options.kind == "int8" else _unfit(model, paths)
        fits = [path for path in paths if path not in unfit]
        if not fits:
            raise Refusal(Reason("passes.bitsandbytes-fits-nothing", why=next(iter(unfit.values()))))
        notes = head_note(model, fits, options.kind)
        subject.undo.callback(_quiet())
        swap(model, fits, lambda linear: _bnb_linear(linear, options.kind), subject.progress.check)
        memory = worded(
            "pass.bitsandbytes.memory-only",
            "Memory only on the CPU: bitsandbytes' kernels there are simple ones, and quality is that of its number format.",
        )
        summary = worded("pass.bitsandbytes.done", "{count} layers → {kind} (bitsandbytes)", count=len(fits), kind=options.kind)
        return PassReport(
            self.id, self.title, asdict(options), len(fits), summary, notes=(memory, *notes, *left_out(model, unfit))
        )


def _unfit(model: torch.nn.Module, paths: list[str]) -> dict[str, Reason]:
    """Reasons, by path, for layers that the 4-bit kernel for the CPU cannot take (it would fail at the first call)."""
    found: dict[str, Reason] = {}
    for path in paths:
        linear = as_linear(model.get_submodule(path))
        if linear.in_features % BLOCK:
            found[path] = Reason("passes.inputs-no-multiple", size=BLOCK)
        elif linear.out_features % OUTPUTS_MULTIPLE:
            found[path] = Reason("passes.outputs-no-multiple", size=OUTPUTS_MULTIPLE)
    return found


def _bnb_linear(linear: torch.nn.Linear, kind: str) -> torch.nn.Module:
    """The layer as bitsandbytes', quantised and in the form that its kernel wants."""
    import bitsandbytes
    import torch

    sizes, dtype = (linear.in_features, linear.out_features, linear.bias is not None), linear.weight.dtype
    weight, device = linear.weight.detach(), linear.weight.device
    nn: Any = bitsandbytes.nn
    if kind == "int8":
        new = nn.Linear8bitLt(*sizes, has_fp16_weights=False, threshold=OUTLIER, device="meta")
        new.weight = nn.Int8Params(weight.cpu(), requires_grad=False, has_fp16_weights=False).to(device)
    else:
        settings = {"quant_type": kind, "compress_statistics": False}
        new = nn.Linear4bit(*sizes, compute_dtype=dtype, device="meta", **settings)
        new.weight = nn.Params4bit(weight.clone(), requires_grad=False, module=new, **settings).to(device)
    new.bias = linear.bias
    new = new.train(linear.training)
    with torch.no_grad():  # the first call packs the weight; not in a moment, and not inside a graph
        new(torch.zeros(1, linear.in_features, dtype=dtype, device=device))
    module: torch.nn.Module = new
    return module


def _quiet() -> Callable[[], None]:
    """Without its log, which speaks at every call of an 8-bit layer; returns what gives it back its level."""
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    return lambda: logger.setLevel(level)
