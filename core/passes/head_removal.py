"""Head removal: takes whole key/value groups out of every attention layer, so that its matrices and the KV cache shrink."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.model_parts.blocks import all_configs, replace_numbers
from core.models.base import generates
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import Group
from core.pass_api.subject import Subject
from core.pruning import attentions, calibration, expectation
from core.pruning.activation_stats import mean_squares
from core.pruning.attentions import Attention

if TYPE_CHECKING:
    import torch

CONFIG_HEADS = ("num_attention_heads", "num_heads", "n_heads", "encoder_attention_heads", "decoder_attention_heads")
CONFIG_GROUPS = ("num_key_value_heads", "num_kv_heads")

ROUNDING = 1e-9
"""So that 0.7 of 10 is 7 in floating point too."""


@dataclass(frozen=True)
class HeadRemovalOptions:
    """How many groups stay in each layer."""

    keep: float = field(
        default=0.75,
        metadata={
            "label": "Share to keep",
            "help": "At most so much of every layer's key/value groups stays (heads, where each head has a key of its own)",
            "minimum": 0.05,
            "maximum": 0.99,
        },
    )
    count: int | None = field(
        default=None,
        metadata={"label": "Groups to keep", "help": "Per layer; none: the share above decides", "minimum": 1},
    )
    by: str = field(
        default="activations",
        metadata={
            "label": "Choose by",
            "help": "activations: what the heads add on a sample text; weights: how large their weights are",
            "choices": ("activations", "weights"),
        },
    )


@passes.register
class HeadRemoval(Pass):
    """Keeps the groups that add most to the residual stream; ``core.pruning.attentions`` says how that is scored."""

    id = "head_removal"
    title = "Head removal"
    summary = "Removes the weakest heads with their keys and values: less work, smaller KV cache, lower quality"
    phase = Phase.STRUCTURE
    options: ClassVar[type | None] = HeadRemovalOptions
    changes_weights = True
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.PRUNES})

    def check(self, context: PassContext) -> Reason | None:
        return None

    def apply(self, subject: Subject, options: HeadRemovalOptions) -> PassReport:
        model = subject.model
        found, unsafe = attentions.find(model)
        new = _new_counts(found, unsafe, options)
        before = expectation.work_of(model)
        activity, note = _activity(subject, found, options)
        ties: dict[str, list[Attention]] = {}
        for one in found:
            if new[one.groups] < one.groups:
                ties.setdefault(one.tie, []).append(one)
        for place, tied in enumerate(ties.values()):
            subject.progress.report(_under_way(place + 1, len(ties)), place / len(ties))
            _cut(tied, new[tied[0].groups], activity)
        _tell_configs(model, found, new)
        calibration.refuse_unless_it_runs(model, subject.task, self.title)
        after = expectation.work_of(model)
        predicted, prediction = expectation.gains(before, after, subject.task)
        changed = [one for tied in ties.values() for one in tied]
        parameters = expectation.millions(before, after)
        summary = worded("pass.head_removal.done", "{what}, {parameters}", what=_counted(changed, new), parameters=parameters)
        notes = (note, _cache_note(found, new)) if generates(subject.task) else (note,)
        return PassReport(
            self.id, self.title, asdict(options), len(changed), summary, notes=notes, predicted=predicted, prediction=prediction
        )


def _new_counts(found: list[Attention], unsafe: list[str], options: HeadRemovalOptions) -> dict[int, int]:
    """How many groups a layer of so many keeps; ``Refusal`` where none can go."""
    if unsafe:
        raise Refusal(Reason("passes.heads-not-plain", unsafe=unsafe[0]))
    if not found:
        raise Refusal(Reason("passes.no-heads-found"))
    most = max(one.groups for one in found)
    if most == 1:
        raise Refusal(Reason("passes.single-head-group"))
    if options.count is not None and options.count >= most:
        raise Refusal(Reason("passes.head-removal-keeps-all", most=most))
    new = {one.groups: options.count or max(1, int(one.groups * options.keep + ROUNDING)) for one in found}
    return {groups: min(groups, count) for groups, count in new.items()}


def _activity(
    subject: Subject, found: list[Attention], options: HeadRemovalOptions
) -> tuple[Mapping[int, torch.Tensor], Reason]:
    """Mean squares of what the heads give, by the id of the layer that takes it, and the sentence on how they are chosen."""
    if options.by == "weights":
        return {}, worded("pass.head_removal.by-weights", "The heads are chosen by the norms of their weights.")
    if not calibration.reads_tokens(subject.model, subject.task):
        return {}, worded(
            "pass.head_removal.no-tokens",
            "The heads are chosen by the norms of their weights, because this model reads no tokens to watch it with.",
        )
    tokens = calibration.calibration_tokens(subject.model, subject.tokenizer)
    note = worded(
        "pass.head_removal.by-activity",
        "The heads are chosen by what they add on {count} tokens, {source}.",
        count=len(tokens.ids),
        source=tokens.source,
    )
    return mean_squares(subject.model, [one.out for one in found], tokens, subject.progress), note


def _cut(tied: list[Attention], count: int, activity: Mapping[int, torch.Tensor]) -> None:
    """Layers that share a position bias lose the same heads, those that are worth least over all of them."""
    worth: torch.Tensor | None = None
    for one in tied:
        scores = one.scores(activity.get(id(one.out)))
        share = scores / scores.sum().clamp(min=1e-30)
        worth = share if worth is None else worth + share
    assert worth is not None
    kept = worth.topk(count).indices.sort().values.cpu()
    for one in tied:
        one.keep(kept)
        attentions.cut_position_bias(one, kept)


def _tell_configs(model: Any, found: list[Attention], new: dict[int, int]) -> None:
    """Head counts as they are now, and the head size, which else is worked out from hidden size and heads, wrongly."""
    heads = {one.queries: one.queries // one.groups * new[one.groups] for one in found}
    sizes = {one.head_size for one in found}
    for config in all_configs(model):
        counted = getattr(config, "num_attention_heads", None) in heads
        replace_numbers([config], CONFIG_HEADS, heads)
        replace_numbers([config], CONFIG_GROUPS, new)
        if counted and len(sizes) == 1 and getattr(config, "head_dim", None) is None:
            config.head_dim = next(iter(sizes))


def _under_way(number: int, of: int) -> Reason:
    return worded("pass.head_removal.under-way", "Removing heads, layer {number} of {of}", number=number, of=of)


def _counted(changed: list[Attention], new: dict[int, int]) -> Reason:
    """``30 layers 9 → 6 heads (3 → 2 key/value groups)``."""
    kinds: dict[tuple[int, int], int] = {}
    for one in changed:
        kinds[one.queries, one.groups] = kinds.get((one.queries, one.groups), 0) + 1
    parts = []
    for (queries, groups), count in kinds.items():
        told = {"count": count, "before": queries, "after": queries // groups * new[groups]}
        if queries == groups:
            parts.append(worded("pass.head_removal.heads", "{count} layers {before} → {after} heads", **told))
        else:
            words = "{count} layers {before} → {after} heads ({groups} → {kept} key/value groups)"
            parts.append(worded("pass.head_removal.groups", words, **told, groups=groups, kept=new[groups]))
    return worded("pass.head_removal.kinds", "{kinds:and}", kinds=tuple(parts))


def _cache_note(found: list[Attention], new: dict[int, int]) -> Reason:
    held = sum(one.groups for one in found)
    kept = sum(new[one.groups] for one in found)
    return worded("pass.head_removal.cache", "The KV cache takes {percent:.0f} % of what it took.", percent=100 * kept / held)
