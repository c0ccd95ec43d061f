"""Chunked prefill: a long prompt is read piece by piece, so that its activations never lie in memory all at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from core import torch_private
from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.pass_api.base import Pass, PassContext, PassReport, Phase, none_because, passes, without_cache
from core.pass_api.exclusions import Exclusion, Group
from core.pass_api.subject import Subject


@dataclass(frozen=True)
class ChunkedPrefillOptions:
    """How much at a time."""

    tokens: int = field(
        default=256,
        metadata={"label": "Tokens per chunk", "help": "Fewer take less memory and read the weights more often", "minimum": 1},
    )


@passes.register
class ChunkedPrefill(Pass):
    """Splits the prompt's forward pass; the first piece is the moment ``prefill``, each further one ``prefill_chunk``."""

    id = "chunked_prefill"
    title = "Chunked prefill"
    summary = "Reads a long prompt in pieces: less memory at its peak"
    phase = Phase.GENERATION
    options: ClassVar[type | None] = ChunkedPrefillOptions
    changes_weights = False
    lossless: ClassVar[bool] = True
    groups: ClassVar[frozenset[Group]] = frozenset({Group.NEEDS_TORCH})
    excludes: ClassVar[tuple[Exclusion, ...]] = (Exclusion(frozenset({"kv_cache"}), Reason("passes.chunk-does-not-fit")),)
    unpredictable: ClassVar[Reason | None] = none_because(Reason("passes.read-once-per-chunk"))

    def check(self, context: PassContext) -> Reason | None:
        if context.model is not None and context.model.task != "text-generation":
            return Reason("passes.prompt-into-cache")
        return without_cache(context)

    def apply(self, subject: Subject, options: ChunkedPrefillOptions) -> PassReport:
        model: Any = subject.model
        if subject.task != "text-generation":
            raise Refusal(Reason("passes.chunked-prefill-generates"))
        if torch_private.keeps_state(model):
            raise Refusal(Reason("passes.state-instead-of-cache", model=type(model).__name__))
        if options.tokens >= subject.max_length - 1:  # a request is its prompt and at least one new token
            raise Refusal(Reason("passes.chunks-change-nothing", tokens=options.tokens, max_length=subject.max_length))
        subject.execution.generation["prefill_chunk_size"] = options.tokens
        subject.undo.callback(lambda: subject.execution.generation.pop("prefill_chunk_size", None) and None)
        return PassReport(
            self.id,
            self.title,
            asdict(options),
            1,
            worded("pass.chunked_prefill.done", "prompts read {tokens} tokens at a time", tokens=options.tokens),
            notes=(
                worded(
                    "pass.chunked_prefill.short",
                    "A prompt of up to {tokens} tokens is still read at once.",
                    tokens=options.tokens,
                ),
            ),
            prediction=self.unpredictable,
        )
