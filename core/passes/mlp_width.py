"""MLP width: removes the weakest neurons of every MLP, so that its matrices, bytes and operations really shrink."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, ClassVar

from core.errors import Refusal
from core.messages.reason import Fact, Reason, worded
from core.model_parts.blocks import all_configs, replace_numbers
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import Group
from core.pass_api.subject import Subject
from core.pruning import calibration, expectation, mlps
from core.pruning.activation_stats import mean_squares

if TYPE_CHECKING:
    import torch

CONFIG_WIDTHS = (
    *("intermediate_size", "n_inner", "d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim"),
    *("moe_intermediate_size", "shared_expert_intermediate_size", "ffn_hidden_size"),
)
"""What configurations call the width of an MLP."""

ROUNDING = 1e-9
"""So that 0.7 of 10 is 7 in floating point too."""


@dataclass(frozen=True)
class MlpWidthOptions:
    """How many neurons stay."""

    keep: float = field(
        default=0.75,
        metadata={
            "label": "Share to keep",
            "help": "At most so much of every MLP's neurons stays",
            "minimum": 0.05,
            "maximum": 0.99,
        },
    )
    multiple: int = field(
        default=64,
        metadata={
            "label": "Multiple of",
            "help": "The new width is a multiple of this; matrix kernels are slower for odd widths",
            "choices": (64, 32, 16, 8),
        },
    )
    by: str = field(
        default="activations",
        metadata={
            "label": "Choose by",
            "help": "activations: what the neurons add on a sample text; weights: how large their weights are",
            "choices": ("activations", "weights"),
        },
    )


@passes.register
class MlpWidth(Pass):
    """Keeps the neurons that add most; ``core.pruning.mlps`` says how they are scored."""

    id = "mlp_width"
    title = "MLP width"
    summary = "Removes the weakest neurons of every MLP: less work and memory, lower quality"
    phase = Phase.STRUCTURE
    options: ClassVar[type | None] = MlpWidthOptions
    changes_weights = True
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.PRUNES})

    def check(self, context: PassContext) -> Reason | None:
        return None

    def apply(self, subject: Subject, options: MlpWidthOptions) -> PassReport:
        model = subject.model
        found = mlps.find(model)
        if not found:
            raise Refusal(Reason("passes.no-mlp-found"))
        new = {one.width: narrowed(one.width, options.keep, options.multiple) for one in found}
        changed = [one for one in found if new[one.width] < one.width]
        if not changed:
            widths = " and ".join(map(str, sorted(new)))
            raise Refusal(Reason("passes.mlp-width-keeps-all", widths=widths, multiple=options.multiple))
        before = expectation.work_of(model)
        activity, note = _activity(subject, changed, options)
        for place, one in enumerate(changed):
            subject.progress.report(_under_way(place + 1, len(changed)), place / len(changed))
            if isinstance(one, mlps.Mlp):
                one.narrow(new[one.width], activity.get(id(one.down)))
            else:
                one.narrow(new[one.width])
        _tell_configs(subject, new)
        calibration.refuse_unless_it_runs(model, subject.task, self.title)
        after = expectation.work_of(model)
        predicted, prediction = expectation.gains(before, after, subject.task)
        parameters = expectation.millions(before, after)
        summary = worded("pass.mlp_width.done", "{what}, {parameters}", what=_counted(changed, new), parameters=parameters)
        return PassReport(
            self.id,
            self.title,
            asdict(options),
            len(changed),
            summary,
            notes=(note,),
            predicted=predicted,
            prediction=prediction,
        )


def _activity(
    subject: Subject, changed: Sequence[mlps.Mlp | mlps.Experts], options: MlpWidthOptions
) -> tuple[Mapping[int, torch.Tensor], Reason]:
    """The neurons' mean squares by the narrowing layer's id, and the sentence on how they are chosen."""
    layers = [one.down for one in changed if isinstance(one, mlps.Mlp)]
    if options.by == "weights":
        return {}, worded("pass.mlp_width.by-weights", "The neurons are chosen by the norms of their weights.")
    if not layers or not calibration.reads_tokens(subject.model, subject.task):
        return {}, worded(
            "pass.mlp_width.unwatched",
            "The neurons are chosen by the norms of their weights, because their activations cannot be watched here.",
        )
    tokens = calibration.calibration_tokens(subject.model, subject.tokenizer)
    told: dict[str, Fact] = {"count": len(tokens.ids), "source": tokens.source}
    if len(layers) == len(changed):
        words = "The neurons are chosen by what they add on {count} tokens, {source}."
        note = worded("pass.mlp_width.by-activity", words, **told)
    else:
        words = (
            "The neurons are chosen by what they add on {count} tokens, {source}; "
            "those of experts by the norms of their weights."
        )
        note = worded("pass.mlp_width.experts-by-weights", words, **told)
    return mean_squares(subject.model, layers, tokens, subject.progress), note


def narrowed(width: int, keep: float, multiple: int) -> int:
    """The largest multiple within that share of the width: at least one multiple, at most the width."""
    return min(width, max(1, int(width * keep / multiple + ROUNDING)) * multiple)


def _under_way(number: int, of: int) -> Reason:
    return worded("pass.mlp_width.under-way", "Narrowing MLP {number} of {of}", number=number, of=of)


def _counted(changed: list[mlps.Mlp | mlps.Experts], new: dict[int, int]) -> Reason:
    """``30 MLPs 1536 → 1152``; expert layers apart."""
    kinds = Counter((isinstance(one, mlps.Experts), one.width) for one in changed)
    parts = []
    for (experts, width), count in kinds.items():
        told = {"count": count, "before": width, "after": new[width]}
        parts.append(
            worded("pass.mlp_width.experts", "{count} expert layers {before} → {after}", **told)
            if experts
            else worded("pass.mlp_width.mlps", "{count} MLPs {before} → {after}", **told)
        )
    return worded("pass.mlp_width.kinds", "{kinds:and}", kinds=tuple(parts))


def _tell_configs(subject: Subject, new: dict[int, int]) -> None:
    configs = all_configs(subject.model)
    replace_numbers(configs, CONFIG_WIDTHS, new)
    for config in configs:
        usual = 4 * int(getattr(config, "hidden_size", 0) or 0)
        if getattr(config, "n_inner", 0) is None and usual in new:
            config.n_inner = new[usual]  # GPT-2's None means four times the hidden size
