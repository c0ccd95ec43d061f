"""int4 weights: weights in four bits by groups of inputs, multiplied by torch's own int4 kernel for the CPU."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, ClassVar

from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.model_parts.linears import LayerPatterns, as_linear, chosen, head_note, head_path, left_out, swap
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import Group
from core.pass_api.subject import Subject
from core.quantization.int4_groups import GROUPS, ROWS_MULTIPLE, group_for, int4_linear
from core.quantization.int8_rows import int8_linear

if TYPE_CHECKING:
    import torch

AS_IT_IS = "as it is"


DONE = "{count} layers → int4 (groups of {groups:and})"
SMALLER = "{count} layers have groups of {size}: {wanted} does not divide their inputs."


@dataclass(frozen=True)
class Int4WeightOnlyOptions(LayerPatterns):
    """Which layers, how large the groups are, and what becomes of the head."""

    group: int = field(
        default=32,
        metadata={
            "label": "Inputs per group",
            "help": "Each group has a scale and a zero: small groups are more exact (32: 5 bits a weight in all, 128: 4.25)",
            "choices": (32, 64, 128),
        },
    )
    scales: str = field(
        default="search",
        metadata={
            "label": "Scales",
            "help": "search: those that leave the smallest squared error in each group; range: from smallest to largest value",
            "choices": ("search", "range"),
        },
    )
    head: str = field(
        default="int8",
        metadata={
            "label": "Output head",
            "help": "Four bits in the head cost much quality; a head shared with the embedding gets a copy of its own",
            "choices": (AS_IT_IS, "int8", "int4"),
        },
    )


@passes.register
class Int4WeightOnly(Pass):
    """Replaces linear layers by ones that hold int4 weights."""

    id = "int4_weight_only"
    title = "int4 weights"
    summary = "Weights in 4 bits by groups: an eighth of the memory to read, at a cost in quality"
    phase = Phase.QUANTIZE
    options: ClassVar[type | None] = Int4WeightOnlyOptions
    changes_weights = True
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.QUANTIZES, Group.NEEDS_TORCH})

    def check(self, context: PassContext) -> Reason | None:
        return Reason("passes.cpu-kernel") if context.target.id != "cpu" else None

    def apply(self, subject: Subject, options: Int4WeightOnlyOptions) -> PassReport:
        model, head = subject.model, head_path(subject.model)
        wanted = chosen(model, self.title, options, include_head=options.head != AS_IT_IS)
        int8 = [path for path in wanted if path == head and options.head == "int8"]
        fits, unfit = _sorted_out(model, [path for path in wanted if path not in int8], options.group)
        if not fits:
            raise Refusal(Reason("passes.int4-fits-nothing", why=next(iter(unfit.values()), Reason("passes.only-the-head"))))
        notes = head_note(model, [*fits, *int8], options.head)
        sizes = iter(fits.values())
        search, check = options.scales == "search", subject.progress.check
        swap(model, fits, lambda linear: int4_linear(linear, _group(linear, options.group), search, check), check)
        swap(model, int8, lambda linear: int8_linear(linear, round_activations=True), check)
        groups = Counter(sizes)
        changed = len(fits) + len(int8)
        done = worded("pass.int4_weight_only.done", DONE, count=len(fits), groups=tuple(sorted(groups)))
        summary = worded("pass.int4_weight_only.and-head", "{what}, the head → int8", what=done) if int8 else done
        notes += tuple(
            worded("pass.int4_weight_only.smaller-groups", SMALLER, count=count, size=size, wanted=options.group)
            for size, count in sorted(groups.items())
            if size != options.group
        )
        return PassReport(self.id, self.title, asdict(options), changed, summary, notes=(*notes, *left_out(model, unfit)))


def _group(linear: torch.nn.Linear, wanted: int) -> int:
    size = group_for(linear.in_features, wanted)
    assert size is not None
    return size


def _sorted_out(model: torch.nn.Module, paths: list[str], wanted: int) -> tuple[dict[str, int], dict[str, Reason]]:
    """Group sizes of the layers that the kernel can take, and reasons for those that it cannot, both by path."""
    fits: dict[str, int] = {}
    unfit: dict[str, Reason] = {}
    for path in paths:
        linear = as_linear(model.get_submodule(path))
        size = group_for(linear.in_features, wanted)
        if size is None:
            unfit[path] = Reason("passes.inputs-no-multiple", size=GROUPS[-1])
        elif linear.out_features % ROWS_MULTIPLE:
            unfit[path] = Reason("passes.outputs-no-multiple", size=ROWS_MULTIPLE)
        else:
            fits[path] = size
    return fits, unfit
