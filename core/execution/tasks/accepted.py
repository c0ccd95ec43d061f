"""What a tokenizer gives, as the model takes it: only the arguments of its forward, and only tokens that it has."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from core.error_text import first_line
from core.errors import Refusal
from core.messages.reason import Reason
from core.models.base import LoadedModel


def accepted(tensors: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Of the arguments those that the model's forward names.

    A tokenizer's files say what it returns, and many of them name ``token_type_ids`` for models that know none. A forward that
    names no argument at all (``**kwargs`` alone) is given everything.
    """
    named = inspect.signature(model.forward).parameters
    if not any(name in named for name in tensors):
        return dict(tensors)
    return {name: tensor for name, tensor in tensors.items() if name in named}


def tokenized(loaded: LoadedModel, *texts: Any, **how: Any) -> Any:
    """What the model's tokenizer makes of texts; ``Refusal`` where its files hold settings that it cannot follow."""
    try:
        return loaded.tokenizer(*texts, **how)  # type: ignore[misc]
    except Exception as error:  # the tokenizers library raises bare ones
        said = first_line(error)[:200].rstrip(".:; ")
        raise Refusal(Reason("execution.tokenizer-fails", name=loaded.facts.name, said=said)) from error


def check_tokens(ids: Sequence[int], loaded: LoadedModel, what: str = "prompt") -> None:
    """``Refusal`` where a text gives no tokens, or one that the model has no embedding for: else the run fails inside."""
    name = loaded.facts.name
    if not ids:
        raise Refusal(Reason("execution.prompt-without-tokens", what=what, name=name))
    known = embeddings(loaded.model)
    place = next((place for place, token in enumerate(ids) if known is not None and not 0 <= token < known), None)
    if place is not None:
        tokenizer = loaded.tokenizer
        assert tokenizer is not None
        word = str(tokenizer.convert_ids_to_tokens(ids[place]))
        raise Refusal(
            Reason(
                "execution.token-beyond-embeddings",
                name=name,
                tokens=len(tokenizer),
                known=known,
                word=word[:40],
                what=what,
                token=ids[place],
            )
        )


def embeddings(model: Any) -> int | None:
    """How many tokens a model has embeddings for; None where it does not say."""
    try:
        weight = getattr(model.get_input_embeddings(), "weight", None)
    except (AttributeError, NotImplementedError):
        return None
    return int(weight.shape[0]) if weight is not None and weight.ndim == 2 else None
