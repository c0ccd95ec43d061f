"""Early exit: the model's own first blocks guess tokens, and the whole model checks several at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import Exclusion, Group
from core.pass_api.subject import Subject
from core.passes.speculative import (
    GUESSING_EXCLUDES,
    UNKNOWN_GAIN,
    base_config,
    refuse_unguessable,
    set_for_drafts,
    tell_generate,
    unguessable,
)

NOTE = worded(
    "pass.early_exit.trained",
    "Only pays if the model was trained to answer from its first blocks too; others guess wrong nearly always.",
)


@dataclass(frozen=True)
class EarlyExitOptions:
    """After which block to guess, and how much."""

    block: int | None = field(
        default=None,
        metadata={"label": "Blocks to guess with", "help": "The first so many blocks guess; empty: a quarter", "minimum": 1},
    )
    tokens: int = field(
        default=4,
        metadata={"label": "Tokens to guess", "help": "Guessed one by one, then checked together", "minimum": 1, "maximum": 64},
    )
    confidence: float = field(
        default=0.4,
        metadata={
            "label": "Least confidence",
            "help": "Stops guessing after a token that the first blocks held less likely than this; 0 never stops early",
            "minimum": 0.0,
            "maximum": 1.0,
        },
    )


@passes.register
class EarlyExit(Pass):
    """transformers' own early exit (self-speculative) decoding."""

    id = "early_exit"
    title = "Early exit"
    summary = "The first blocks guess tokens and the whole model checks several at once"
    phase = Phase.GENERATION
    options: ClassVar[type | None] = EarlyExitOptions
    changes_weights = False
    lossless: ClassVar[bool] = True
    groups: ClassVar[frozenset[Group]] = frozenset({Group.GUESSES, Group.NEEDS_TORCH})
    excludes: ClassVar[tuple[Exclusion, ...]] = GUESSING_EXCLUDES
    unpredictable: ClassVar[Reason | None] = UNKNOWN_GAIN

    def check(self, context: PassContext) -> Reason | None:
        if context.model is not None and context.model.layers is not None and context.model.layers < 2:
            return Reason("passes.single-block")
        return unguessable(context)

    def apply(self, subject: Subject, options: EarlyExitOptions) -> PassReport:
        refuse_unguessable(self.title, subject)
        model: Any = subject.model
        config = base_config(model)
        count = int(getattr(config, "num_hidden_layers", 0) or 0)
        blocks = options.block if options.block is not None else max(1, round(count / 4))
        if not 1 <= blocks < count:
            raise Refusal(Reason("passes.early-exit-blocks", blocks=blocks, count=count, most=count - 1))
        if not _leaves_early(model, config, blocks):
            raise Refusal(Reason("passes.early-exit-impossible", model=type(model).__name__))
        drafts = {"num_assistant_tokens": options.tokens, "assistant_confidence_threshold": options.confidence}
        set_for_drafts(subject, model.generation_config, drafts)
        tell_generate(subject, {"assistant_early_exit": blocks})
        summary = worded(
            "pass.early_exit.done",
            "{blocks} of {count} blocks guess up to {tokens} tokens",
            blocks=blocks,
            count=count,
            tokens=options.tokens,
        )
        prediction = Reason("passes.guess-costs", unknown=UNKNOWN_GAIN, percent=100 * blocks / count)
        return PassReport(
            self.id, self.title, asdict(options) | {"block": blocks}, 0, summary, notes=(NOTE,), prediction=prediction
        )


def _leaves_early(model: Any, config: Any, blocks: int) -> bool:
    """Whether fewer blocks run when the configuration says so; models decide that for themselves, so one is asked."""
    import torch

    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    whole = [found for found in lists if len(found) == config.num_hidden_layers]
    if not whole:
        return False
    ran: list[int] = []
    hook = whole[0][-1].register_forward_pre_hook(lambda *_: ran.append(1))
    count = config.num_hidden_layers
    config.num_hidden_layers = blocks
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros((1, 2), dtype=torch.long, device=model.device), use_cache=False)
    finally:
        config.num_hidden_layers = count
        hook.remove()
    return not ran
