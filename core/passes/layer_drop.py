"""Layer drop: leaves out whole transformer blocks. Time and memory fall in proportion; quality falls too."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.model_parts.blocks import block_config, find_blocks, ranges
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import Group
from core.pass_api.subject import Subject
from core.pruning import calibration, expectation
from core.pruning.block_influence import block_influence

if TYPE_CHECKING:
    import torch

AUTO = "auto"
AUTO_SHARE = 0.1
_PARTS = re.compile(r"[\s,+]+")
_PART = re.compile(r"\d+(-\d+)?")
PER_LAYER_LISTS = ("layer_types", "no_rope_layers", "mlp_layer_types")
"""Configuration values with one entry per block that the models' forward passes index by block number."""
POSITION_BIAS = "relative_attention_bias"


@dataclass(frozen=True)
class LayerDropOptions:
    """Which blocks to leave out."""

    layers: str = field(
        default=AUTO,
        metadata={
            "label": "Blocks to drop",
            "help": "Block numbers from 0, such as 14-16+20 (or with commas); auto chooses them by the two options below",
        },
    )
    by: str = field(
        default="place",
        metadata={
            "label": "Choose by",
            "help": "For auto. place: just past the middle; influence: the blocks that change least what passes through them",
            "choices": ("place", "influence"),
        },
    )
    share: float = field(
        default=AUTO_SHARE,
        metadata={"label": "Share to drop", "help": "Of all blocks, for auto; at least one", "minimum": 0.01, "maximum": 0.9},
    )

    def __post_init__(self) -> None:
        parts = _parts(self.layers)
        if parts != [AUTO] and (not parts or any(_PART.fullmatch(part) is None for part in parts)):
            words = "layers is {layers!r}; give block numbers such as 14-16+20, or auto"
            raise ValueError(worded("pass.layer_drop.layers", words, layers=self.layers))


@passes.register
class LayerDrop(Pass):
    """Removes blocks and renumbers the rest, so that the KV cache stays right."""

    id = "layer_drop"
    title = "Layer drop"
    summary = "Leaves out whole blocks: less work and memory, lower quality"
    phase = Phase.STRUCTURE
    options: ClassVar[type | None] = LayerDropOptions
    changes_weights = True
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.PRUNES})

    def check(self, context: PassContext) -> Reason | None:
        if context.model is not None and context.model.layers is not None and context.model.layers < 2:
            return Reason("passes.single-block")
        return None

    def apply(self, subject: Subject, options: LayerDropOptions) -> PassReport:
        model = subject.model
        path, blocks = find_blocks(model)
        notes: tuple[Reason, ...] = ()
        if options.by == "influence" and _parts(options.layers) == [AUTO]:
            dropped, note = _least_influential(subject, blocks, options.share)
            notes = (note,)
        else:
            dropped = numbers(options.layers, len(blocks), options.share)
        before = expectation.work_of(model)
        count = len(blocks)
        drop(model, path, blocks, dropped)
        after = expectation.work_of(model)
        predicted, prediction = expectation.gains(before, after, subject.task)
        summary = worded(
            "pass.layer_drop.done",
            "{dropped} of {count} blocks dropped: {blocks}",
            dropped=len(dropped),
            count=count,
            blocks=ranges(dropped),
        )
        return PassReport(
            self.id, self.title, asdict(options), len(dropped), summary, notes=notes, predicted=predicted, prediction=prediction
        )


def drop(model: torch.nn.Module, path: str, blocks: Any, dropped: list[int]) -> None:
    """Take the blocks out, renumber the others, and tell the configurations."""
    import torch

    kept = [number for number in range(len(blocks)) if number not in dropped]
    for number in dropped:
        if any(POSITION_BIAS in name for name, _ in blocks[number].named_parameters()) and not any(
            POSITION_BIAS in name for other in kept for name, _ in blocks[other].named_parameters()
        ):
            raise Refusal(Reason("passes.layer-drop-position-bias", number=number))
    for place, number in enumerate(kept):
        for module in blocks[number].modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                module.layer_idx = place
    parent, _, name = path.rpartition(".")
    owner = model.get_submodule(parent)
    setattr(owner, name, torch.nn.ModuleList([blocks[number] for number in kept]))
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        _shorten_decoder(config, getattr(owner, "config", None), kept, len(blocks))
    else:
        _shorten(block_config(model), kept, len(blocks))


def _least_influential(subject: Subject, blocks: Any, share: float) -> tuple[list[int], Reason]:
    """The blocks of least influence, sorted, and the note that says how little it is and on which tokens."""
    if not calibration.reads_tokens(subject.model, subject.task):
        raise Refusal(Reason("passes.layer-drop-needs-tokens"))
    count = _how_many(len(blocks), share)
    tokens = calibration.calibration_tokens(subject.model, subject.tokenizer)
    influence = block_influence(subject.model, blocks, tokens, subject.progress)
    dropped = sorted(sorted(range(len(blocks)), key=influence.__getitem__)[:count])
    rest = sorted(set(range(len(blocks))) - set(dropped))
    most, least = max(influence[number] for number in dropped), min(influence[number] for number in rest)
    note = worded(
        "pass.layer_drop.influence",
        "Influence of the dropped blocks: at most {most:.3g}; of the others at least {least:.3g} "
        "(on {count} tokens, {source}).",
        most=most,
        least=least,
        count=len(tokens.ids),
        source=tokens.source,
    )
    return dropped, note


def _how_many(count: int, share: float) -> int:
    if count < 2:
        raise Refusal(Reason("passes.layer-drop-needs-blocks"))
    return min(count - 1, max(1, round(count * share)))


def numbers(text: str, count: int, share: float = AUTO_SHARE) -> list[int]:
    """The block numbers that ``text`` names, of ``count`` blocks, sorted; ``Refusal`` if they are out of range or all.

    ``auto`` is that share of the blocks (at least one) just past the middle. Measured on SmolLM2-135M (30 blocks, KLD of three
    dropped blocks over 60 tokens): 0.3 to 0.4 past the middle, 1 to 8 among the last five, 7 to 11 among the first.
    """
    many = _how_many(count, share)
    parts = _parts(text)
    if parts == [AUTO]:
        first = min(count // 2, count - many)
        return list(range(first, first + many))
    found: set[int] = set()
    for part in parts:
        low_text, _, high_text = part.partition("-")
        low, high = int(low_text), int(high_text or low_text)
        if low > high or high >= count:
            raise Refusal(Reason("passes.layer-drop-no-such-blocks", part=part, most=count - 1))
        found.update(range(low, high + 1))
    if len(found) == count:
        raise Refusal(Reason("passes.layer-drop-drops-all", count=count))
    return sorted(found)


def _parts(text: str) -> list[str]:
    """``+`` and spaces separate as well as commas, which the command line needs between options."""
    return [part for part in _PARTS.split(text) if part]


def _shorten(config: Any, kept: list[int], count: int) -> None:
    config.num_hidden_layers = len(kept)
    for name in PER_LAYER_LISTS:
        values = getattr(config, name, None)
        if isinstance(values, (list, tuple)) and len(values) == count:
            setattr(config, name, [values[number] for number in kept])


def _shorten_decoder(config: Any, own: Any, kept: list[int], count: int) -> None:
    """The decoder's counts in the configuration of the whole, and in the decoder's own where it has one."""
    for name in ("decoder_layers", "num_decoder_layers"):
        if getattr(config, name, None) == count:
            setattr(config, name, len(kept))
    if own is not None and own is not config:
        _shorten(own, kept, count)
