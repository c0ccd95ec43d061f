"""How long a sequence a model can read: by its table of positions, which ends, or by what it was made for, which does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_SPARE = 4
"""A table of positions has as many rows as the config says, or a few more for padding and beginnings (OPT and BART: two)."""

_PADDED = frozenset(
    {
        *("roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "data2vec-text", "mpnet"),
        *("longformer", "ibert", "xmod", "luke", "lilt", "esm"),
    }
)
"""Architectures whose positions begin after that of their padding: fewer are left than the config says."""


def before_loading(config: Mapping[str, Any], length: int | None) -> int | None:
    """The longest sequence by the config alone, as long as there is no model to look at.

    Args:
        config: of the text part.
        length: the number that the config gives as its longest.
    """
    if length is None:
        return None
    if config.get("model_type") in _PADDED:
        padding = config.get("pad_token_id")
        return max(1, length - (padding if isinstance(padding, int) else 1) - 1)
    if "relative_attention_num_buckets" in config and "max_position_embeddings" not in config:
        return None  # T5 and its kin: n_positions is what they were trained with
    return length


def of_model(model: torch.nn.Module, length: int | None, tokenizer: int | None) -> tuple[int | None, bool]:
    """The longest sequence in positions, and whether a longer one runs all the same.

    Args:
        model: any; its modules are looked at.
        length: the number that its config gives as its longest; None: it gives none.
        tokenizer: the longest text of its tokenizer, where that has a limit.

    Returns:
        The limit (None: there is none), and True where it is only what the model was made for. A model whose positions are
        turns of its keys, a slope or relative to each other has no table that could end.
    """
    if length is None:
        return None, False
    tables = list(_tables(model, length))
    limit = min([*tables, length]) if tables else length
    relative = not tables and any(name.endswith("relative_attention_bias") for name, _ in model.named_modules())
    if relative:
        return None, False
    soft = not tables and _endless(model)
    return (min(limit, tokenizer) if tokenizer else limit), soft


def _tables(model: torch.nn.Module, length: int) -> Iterator[int]:
    """How many positions each table of about ``length`` rows has room for."""
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        name = path.rpartition(".")[2].lower()
        if weight is None or getattr(weight, "ndim", 0) != 2 or not ("pos" in name or name == "wpe"):
            continue
        rows = int(weight.shape[0])
        if not length <= rows <= length + _SPARE:
            continue
        offset, padding = getattr(module, "offset", None), getattr(module, "padding_idx", None)
        if isinstance(offset, int):
            yield rows - offset
        else:
            yield rows - padding - 1 if isinstance(padding, int) and padding < rows - 1 else rows


def _endless(model: torch.nn.Module) -> bool:
    """Whether positions are told by rotation, by ALiBi's slopes, or by waves that are computed as far as they are needed."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    if getattr(text, "alibi", False) is True or getattr(text, "model_type", "") == "bloom":
        return True
    return any("Rotary" in type(module).__name__ or hasattr(module, "make_weights") for module in model.modules())
