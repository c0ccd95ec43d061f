"""Long text: an encoder reads a text longer than its context in overlapping windows, and the results are stitched."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.pass_api.base import Pass, PassContext, PassReport, Phase, none_because, passes
from core.pass_api.exclusions import Group
from core.pass_api.subject import Subject, Windows

if TYPE_CHECKING:
    import torch

TASKS = ("embedding", "classification", "token-classification", "question-answering")
_NO_LIMIT = 1_000_000  # tokenizers that know none name a far larger number


@dataclass(frozen=True)
class LongTextOptions:
    """How the text is cut and put together."""

    window: int = field(
        default=0,
        metadata={"label": "Window, tokens", "help": "Tokens read at once; 0 takes as many as the model can", "minimum": 0},
    )
    overlap: int = field(
        default=64,
        metadata={
            "label": "Overlap, tokens",
            "help": "Tokens that neighbouring windows share, as context for each other",
            "minimum": 0,
        },
    )
    keep: str = field(
        default="centre",
        metadata={
            "label": "Tokens read twice",
            "help": "centre takes each from the window where it is farther from the edge, mean averages both",
            "choices": ("centre", "mean"),
        },
    )


@passes.register
class LongText(Pass):
    """Each window is a forward pass, and so a moment, of its own."""

    id = "long_text"
    title = "Long text in windows"
    summary = "Encoders read texts longer than their context piece by piece"
    phase = Phase.GENERATION
    options: ClassVar[type | None] = LongTextOptions
    changes_weights = False
    lossless: ClassVar[bool] = False
    groups: ClassVar[frozenset[Group]] = frozenset({Group.NEEDS_TORCH})
    reads_in_windows: ClassVar[bool] = True
    unpredictable: ClassVar[Reason | None] = none_because(Reason("passes.not-read-without-windows"))

    def check(self, context: PassContext) -> Reason | None:
        if context.model is not None and context.model.task not in TASKS:
            return Reason("passes.only-encoders-read-at-once")
        return None

    def apply(self, subject: Subject, options: LongTextOptions) -> PassReport:
        if subject.task not in TASKS:
            raise Refusal(Reason("passes.long-text-for-encoders"))
        limit = longest_input(subject)
        size = options.window or limit
        if size is None:
            raise Refusal(Reason("passes.no-longest-input"))
        if limit is not None and size > limit:
            raise Refusal(Reason("passes.window-too-long", size=size, limit=limit))
        if options.overlap * 2 > size:
            raise Refusal(Reason("passes.overlap-too-long", overlap=options.overlap, size=size))
        if subject.max_length <= size:
            raise Refusal(Reason("passes.fits-one-window", max_length=subject.max_length, size=size))
        subject.execution.windows = Windows(size, options.overlap, options.keep)

        def undo() -> None:
            subject.execution.windows = None

        subject.undo.callback(undo)
        return PassReport(
            self.id,
            self.title,
            {**asdict(options), "window": size},
            1,
            worded(
                "pass.long_text.done",
                "{tokens} tokens read in windows of {size}, {overlap} shared",
                tokens=subject.max_length,
                size=size,
                overlap=options.overlap,
            ),
            notes=(
                worded(
                    "pass.long_text.how",
                    "Each window is a moment of its own. Embeddings are the mean over all tokens, each counted once; class"
                    " probabilities the mean over windows, weighted by their tokens; results per token are put side by side.",
                ),
            ),
            prediction=self.unpredictable,
        )


def longest_input(subject: Subject) -> int | None:
    """Tokens that the model can read at once; None where neither its tokenizer nor its configuration says."""
    model: Any = subject.model
    found = [_positions(model), getattr(subject.tokenizer, "model_max_length", None)]
    return min((int(limit) for limit in found if isinstance(limit, int) and 0 < limit < _NO_LIMIT), default=None)


def _positions(model: torch.nn.Module) -> int | None:
    """Positions that the configuration or a table of position embeddings has room for."""
    import torch

    for path, module in model.named_modules():
        if path.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1  # RoBERTa counts from behind its padding
    config = getattr(model, "config", None)
    return getattr(config, "max_position_embeddings", None)
