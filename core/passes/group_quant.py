"""Grouped int8 or int4: weights in groups of 32, activations rounded to 8 bits in the same groups, by kernels of our own."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, ClassVar

from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.model_parts.linears import as_linear, linear_paths, output_head, replace
from core.native import available
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import Group
from core.pass_api.subject import Subject
from core.quantization.grouped import GROUP, MOST_ROWS, grouped_linear

if TYPE_CHECKING:
    import torch

KEEP = "as it is"


@dataclass(frozen=True)
class GroupQuantOptions:
    """How many bits, and which layers."""

    bits: str = field(
        default="8",
        metadata={
            "label": "Bits",
            "help": "Per weight; 4 bits keep a scale and a shift per group, 8 bits a scale",
            "choices": ("8", "4"),
        },
    )
    head: str = field(
        default="8",
        metadata={
            "label": "Output head",
            "help": "Bits of the projection to the vocabulary; a head that shares the embedding's weight gets a copy",
            "choices": ("8", "4", KEEP),
        },
    )
    skip: str = field(
        default="",
        metadata={
            "label": "Leave as they are",
            "help": "Layers whose path contains one of these words, such as down_proj; separate them by a space or +",
        },
    )


@passes.register
class GroupQuant(Pass):
    """Replaces every linear layer by one whose weights are integers in groups."""

    id = "group_quant"
    title = "Grouped int8 / int4"
    summary = "Integer products by Tickscope's own kernels; weights and activations in groups of 32"
    phase = Phase.QUANTIZE
    options: ClassVar[type | None] = GroupQuantOptions
    changes_weights = True
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.QUANTIZES, Group.NEEDS_TORCH})

    def check(self, context: PassContext) -> Reason | None:
        if context.target.id != "cpu":
            return Reason("passes.cpu-kernels")
        return available()

    def apply(self, subject: Subject, options: GroupQuantOptions) -> PassReport:
        model = subject.model
        head = output_head(model)
        paths = [path for path in linear_paths(model, options.head != KEEP, options.skip) if path]
        if not paths:
            raise Refusal(Reason("passes.group-quant-finds-nothing"))
        tied = head is not None and _shares_embedding(model, head)
        for path in paths:
            module = model.get_submodule(path)
            bits = int(options.head if module is head else options.bits)
            replace(model, path, grouped_linear(as_linear(module), bits))
        notes = [
            worded(
                "pass.group_quant.rows",
                "Products of up to {most} rows are of integers; more rows expand the weights to bfloat16 on every call.",
                most=MOST_ROWS,
            )
        ]
        if tied and options.head != KEEP:
            notes.append(
                worded(
                    "pass.group_quant.head-copied",
                    "The output head shared its weight with the embedding; it has a copy of its own now.",
                )
            )
        summary = worded(
            "pass.group_quant.done",
            "{count} layers → int{bits} in groups of {group}",
            count=len(paths),
            bits=options.bits,
            group=GROUP,
        )
        return PassReport(self.id, self.title, asdict(options), len(paths), summary, notes=tuple(notes))


def _shares_embedding(model: torch.nn.Module, head: torch.nn.Module) -> bool:
    find = getattr(model, "get_input_embeddings", None)
    return find is not None and getattr(find(), "weight", None) is getattr(head, "weight", model)
