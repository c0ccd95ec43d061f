"""What the passes that guess tokens share: which models and workloads can be guessed for, and what ``generate`` is told."""

from __future__ import annotations

from typing import Any

from core import torch_private
from core.errors import Refusal
from core.messages.reason import Reason
from core.pass_api.base import PassContext, without_cache
from core.pass_api.exclusions import Exclusion, Group
from core.pass_api.subject import Subject

ARGUMENTS = frozenset({"prompt_lookup_num_tokens", "assistant_model", "assistant_early_exit"})
"""Arguments of ``generate`` with which tokens are guessed, then checked several at once (speculative decoding)."""

GUESSING_EXCLUDES = (
    Exclusion(frozenset({Group.CACHES}), Reason("passes.guesses-stay-in-cache")),
    Exclusion(frozenset({"chunked_prefill", "continuous_batching"}), Reason("passes.generate-knows-one")),
)
"""What each pass that guesses tokens does not go with."""

UNKNOWN_GAIN = Reason("passes.follows-from-guesses")


def unguessable(context: PassContext) -> Reason | None:
    """Why tokens cannot be guessed for this model, as a short clause, or None."""
    if context.model is not None and context.model.task != "text-generation":
        return Reason("passes.only-texts-are-guessed")
    return without_cache(context)


def refuse_unguessable(title: str, subject: Subject) -> None:
    """``Refusal`` where transformers cannot check guessed tokens: it does one sequence at a time, with a cache it can cut."""
    if subject.batch > 1:
        raise Refusal(Reason("passes.guesses-one-sequence", title=title, batch=subject.batch))
    if torch_private.keeps_state(subject.model):
        raise Refusal(Reason("passes.guesses-not-taken-back", title=title, model=type(subject.model).__name__))


def tell_generate(subject: Subject, arguments: dict[str, Any]) -> None:
    """Add arguments of ``generate``, until the passes are undone.

    Until then transformers is silent too: it warns of how its own drafting calls ``generate``.
    """
    from transformers.utils import logging

    subject.execution.generation |= arguments
    verbosity = logging.get_verbosity()
    logging.set_verbosity(max(verbosity, logging.ERROR))

    def restore() -> None:
        logging.set_verbosity(verbosity)
        for name in arguments:
            subject.execution.generation.pop(name, None)

    subject.undo.callback(restore)


def set_for_drafts(subject: Subject, config: Any, settings: dict[str, Any]) -> None:
    """Settings of a generation configuration that transformers reads them from, until the passes are undone."""
    before = {name: getattr(config, name, None) for name in settings}

    def put(values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(config, name, value)

    put(settings)
    subject.undo.callback(lambda: put(before))


def base_config(model: Any) -> Any:
    """The configuration whose number of blocks transformers changes for an early exit."""
    return getattr(model, str(getattr(model, "base_model_prefix", "")), model).config
