"""Prompt lookup: guesses the next tokens from what followed the same words earlier in the text, and checks several at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import ClassVar

from core.messages.reason import Reason, worded
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import Exclusion, Group
from core.pass_api.subject import Subject
from core.passes.speculative import GUESSING_EXCLUDES, UNKNOWN_GAIN, refuse_unguessable, tell_generate, unguessable

NOTE = worded(
    "pass.prompt_lookup.pays",
    "Pays where the answer repeats the prompt: summaries, corrections, code. Elsewhere nothing is found to guess from.",
)


@dataclass(frozen=True)
class PromptLookupOptions:
    """How much to guess, and from how little."""

    tokens: int = field(
        default=10,
        metadata={
            "label": "Tokens to guess",
            "help": "Guessed at once, and checked by one forward",
            "minimum": 1,
            "maximum": 64,
        },
    )
    ngram: int = field(
        default=2,
        metadata={
            "label": "Tokens to match",
            "help": "Looks for the last so many tokens in the text before, then for fewer",
            "minimum": 1,
            "maximum": 16,
        },
    )


@passes.register
class PromptLookup(Pass):
    """transformers' own prompt lookup decoding."""

    id = "prompt_lookup"
    title = "Prompt lookup"
    summary = "Guesses tokens from the text before and checks several at once: faster where text repeats"
    phase = Phase.GENERATION
    options: ClassVar[type | None] = PromptLookupOptions
    changes_weights = False
    lossless: ClassVar[bool] = True
    groups: ClassVar[frozenset[Group]] = frozenset({Group.GUESSES, Group.NEEDS_TORCH})
    excludes: ClassVar[tuple[Exclusion, ...]] = GUESSING_EXCLUDES
    unpredictable: ClassVar[Reason | None] = UNKNOWN_GAIN

    def check(self, context: PassContext) -> Reason | None:
        return unguessable(context)

    def apply(self, subject: Subject, options: PromptLookupOptions) -> PassReport:
        refuse_unguessable(self.title, subject)
        tell_generate(subject, {"prompt_lookup_num_tokens": options.tokens, "max_matching_ngram_size": options.ngram})
        summary = worded(
            "pass.prompt_lookup.done",
            "up to {tokens} tokens guessed from the text before, after {ngram} that match",
            tokens=options.tokens,
            ngram=options.ngram,
        )
        return PassReport(
            self.id,
            self.title,
            asdict(options),
            0,
            summary,
            notes=(NOTE,),
            prediction=UNKNOWN_GAIN,
        )
