"""Assistant: a small second model guesses tokens, and the model checks several at once."""

from __future__ import annotations

import gc
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import psutil

from core.config import DTYPES, ModelConfig
from core.errors import Refusal
from core.messages.reason import Reason, worded
from core.models import catalog
from core.models.base import LoadedModel, ModelFacts
from core.pass_api.base import Pass, PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import Exclusion, Group
from core.pass_api.subject import Subject
from core.passes.speculative import (
    GUESSING_EXCLUDES,
    UNKNOWN_GAIN,
    refuse_unguessable,
    set_for_drafts,
    tell_generate,
    unguessable,
)


@dataclass(frozen=True)
class AssistantOptions:
    """Which model guesses, and how much."""

    model: str = field(
        default="",
        metadata={
            "label": "Assistant model",
            "help": "A small model of the same family, named as models are: package:NAME, a folder, a .gguf file, hub:ORG/NAME",
        },
    )
    tokens: int = field(
        default=5,
        metadata={"label": "Tokens to guess", "help": "Guessed one by one, then checked together", "minimum": 1, "maximum": 64},
    )
    confidence: float = field(
        default=0.4,
        metadata={
            "label": "Least confidence",
            "help": "Stops guessing after a token that the assistant held less likely than this; 0 never stops early",
            "minimum": 0.0,
            "maximum": 1.0,
        },
    )


@passes.register
class Assistant(Pass):
    """transformers' own assisted decoding."""

    id = "assistant"
    title = "Assistant model"
    summary = "A small second model guesses tokens and the model checks several at once"
    phase = Phase.GENERATION
    options: ClassVar[type | None] = AssistantOptions
    changes_weights = False
    lossless: ClassVar[bool] = True
    groups: ClassVar[frozenset[Group]] = frozenset({Group.GUESSES, Group.NEEDS_TORCH})
    excludes: ClassVar[tuple[Exclusion, ...]] = GUESSING_EXCLUDES
    unpredictable: ClassVar[Reason | None] = UNKNOWN_GAIN

    def check(self, context: PassContext) -> Reason | None:
        return unguessable(context)

    def apply(self, subject: Subject, options: AssistantOptions) -> PassReport:
        refuse_unguessable(self.title, subject)
        draft = _load(subject, options.model)
        model: Any = draft.model
        arguments: dict[str, Any] = {"assistant_model": model}
        notes: list[Reason] = []
        if _vocabulary(subject.model) == _vocabulary(model):  # transformers goes by the number of tokens alone
            how = worded("pass.assistant.same-tokens", "the same tokens")
        else:
            how = worded("pass.assistant.own-tokens", "tokens of its own")
            arguments |= {"tokenizer": subject.tokenizer, "assistant_tokenizer": draft.tokenizer}
            notes.append(
                worded(
                    "pass.assistant.into-text",
                    "The assistant has tokens of its own, so every guess is made into text and back, which takes time.",
                )
            )
        drafts = {"num_assistant_tokens": options.tokens, "assistant_confidence_threshold": options.confidence}
        set_for_drafts(subject, model.generation_config, drafts)
        tell_generate(subject, arguments)
        subject.execution.drafts.append(model)
        subject.undo.callback(lambda: _unload(subject, model))
        share = (draft.facts.weight_bytes or 0) / max(1, _bytes(subject.model))
        if share >= 1:
            notes.append(worded("pass.assistant.no-smaller", "The assistant is no smaller than the model, so it cannot pay."))
        summary = worded(
            "pass.assistant.done",
            "{name} guesses up to {tokens} tokens, {how}",
            name=draft.facts.name,
            tokens=options.tokens,
            how=how,
        )
        prediction = Reason("passes.guess-reads", unknown=UNKNOWN_GAIN, percent=100 * share)
        return PassReport(self.id, self.title, asdict(options), 0, summary, notes=tuple(notes), prediction=prediction)


def _load(subject: Subject, spec: str) -> LoadedModel:
    """The assistant, on the device and in the precision of the model."""
    if not spec.strip():
        raise Refusal(Reason("passes.no-assistant-named"))
    own: Any = subject.model
    dtype = str(own.dtype).rpartition(".")[2]
    config = ModelConfig(spec.strip(), dtype=dtype if dtype in DTYPES else "float32")
    facts = catalog.describe(config)
    _refuse_others(facts)
    found = catalog.fit(facts, config.dtype, psutil.virtual_memory().available)
    if not found.fits:
        raise Refusal(Reason("passes.assistant-does-not-fit", name=facts.name, sentence=found.sentence))
    draft = catalog.load(config, str(own.device), subject.progress)
    _refuse_others(draft.facts)
    _refuse_other_tokens(subject, draft)
    return draft


def _refuse_others(facts: ModelFacts) -> None:
    if facts.task != "text-generation":
        raise Refusal(Reason("passes.assistant-continues-no-text", name=facts.name))


def _refuse_other_tokens(subject: Subject, draft: LoadedModel) -> None:
    """``Refusal`` where a token's number means something else to the assistant and nothing can go between the two."""
    known = subject.tokenizer is not None and draft.tokenizer is not None
    if _vocabulary(subject.model) != _vocabulary(draft.model):
        if not known:
            raise Refusal(Reason("passes.assistant-without-tokenizer", name=draft.facts.name))
    elif known and subject.tokenizer.get_vocab() != draft.tokenizer.get_vocab():  # type: ignore[union-attr]
        raise Refusal(Reason("passes.assistant-of-other-tokens", name=draft.facts.name))


def _vocabulary(model: Any) -> int:
    return int(model.config.get_text_config().vocab_size)


def _bytes(model: Any) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _unload(subject: Subject, model: Any) -> None:
    subject.execution.drafts[:] = [draft for draft in subject.execution.drafts if draft is not model]
    gc.collect()
