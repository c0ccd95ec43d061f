"""Tokens to look at a model with: of the user's text, of one that ships for this alone, or made up without a tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import resources
from core import paths
from core.errors import Refusal
from core.messages.reason import Reason
from core.models.base import TASKS, Task

if TYPE_CHECKING:
    import torch

SEED = 20250101  # of made-up tokens: the same ones each time
TRIAL_TOKENS = 4
LOOK_TOKENS = 256
"""How many tokens a model is looked at with before it is cut."""


SHIPPED = Reason("pruning.shipped-text")
"""Shares no sentence with the text that quality is measured on: nothing is judged by what it was fitted to."""


@dataclass(frozen=True)
class Tokens:
    """``ids`` [tokens], and where they are from, for people."""

    ids: torch.Tensor
    source: Reason | str
    made_up: bool


def tokens(model: torch.nn.Module, tokenizer: Any | None, text_path: str, most: int) -> Tokens:
    """At most ``most`` tokens of the file at ``text_path``; of the calibration texts, in equal parts, where that is empty.

    Raises:
        Refusal: the file cannot be read, or there is one but no tokenizer.
    """
    import torch

    if tokenizer is None:
        if text_path:
            raise Refusal(Reason("pruning.no-tokenizer"))
        return Tokens(_made_up(model, most), Reason("pruning.made-up-without-tokenizer"), made_up=True)
    if text_path:
        ids = _ids(tokenizer, _read(text_path))[:most]
        return Tokens(ids.to(_device(model)), Path(text_path).name, made_up=False)
    texts = calibration_texts()
    if not texts:
        return Tokens(_made_up(model, most), Reason("pruning.made-up-without-text"), made_up=True)
    parts = [_ids(tokenizer, text)[: -(-most // len(texts))] for text in texts]
    return Tokens(torch.cat(parts)[:most].to(_device(model)), SHIPPED, made_up=False)


def calibration_texts() -> list[str]:
    """The passages of ``resources/calibration``, in the order of their names; none where a build ships without them."""
    try:
        return resources.passages("calibration")
    except FileNotFoundError:
        return []


def calibration_tokens(model: torch.nn.Module, tokenizer: Any | None) -> Tokens:
    """Calibration (or made-up) tokens to look at the model with, as many as fit its positions, on its device."""
    config: Any = getattr(model, "config", None)
    text_part = config.get_text_config() if hasattr(config, "get_text_config") else config
    positions = getattr(text_part, "max_position_embeddings", None)
    most = min(LOOK_TOKENS, positions - 2) if isinstance(positions, int) and positions > TRIAL_TOKENS else LOOK_TOKENS
    return tokens(model, tokenizer, "", most)


def reads_tokens(model: torch.nn.Module, task: str) -> bool:
    """Whether the model's forward takes token ids alone."""
    return TASKS.get(task, Task("")).modality == "text" and _embedding(model) is not None


def forward(model: Any, ids: torch.Tensor, **arguments: Any) -> Any:
    """The model's output for one sequence [1, tokens]; an encoder-decoder model is given the same on both sides."""
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        arguments["decoder_input_ids"] = ids
    return model(input_ids=ids, **arguments)


def refuse_unless_it_runs(model: torch.nn.Module, task: str, title: str) -> None:
    """``Refusal`` if the changed model cannot answer a few tokens: its forward needs a shape that is no longer there."""
    import torch

    if not reads_tokens(model, task):
        return
    ids = _made_up(model, TRIAL_TOKENS)[None]
    try:
        with torch.no_grad():
            forward(model, ids)
    except (RuntimeError, ValueError, IndexError) as error:
        raise Refusal(Reason("pruning.needs-old-shapes", title=title, model=type(model).__name__)) from error


def _embedding(model: Any) -> Any:
    import torch

    find = getattr(model, "get_input_embeddings", None)
    found = find() if find is not None else None
    return found if isinstance(found, torch.nn.Embedding) else None


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


def _made_up(model: Any, count: int) -> torch.Tensor:
    import torch

    embedding = _embedding(model)
    if embedding is None:
        raise Refusal(Reason("pruning.reads-no-tokens"))
    made = torch.randint(embedding.num_embeddings, (count,), generator=torch.Generator().manual_seed(SEED))
    return made.to(_device(model))


def _ids(tokenizer: Any, text: str) -> torch.Tensor:
    import torch

    return torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=torch.long)


def _read(path: str) -> str:
    try:
        return paths.read_text(paths.typed(path))
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(Reason("pruning.text-unreadable", path=path, problem=str(error))) from error
