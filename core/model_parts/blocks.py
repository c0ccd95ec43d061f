"""The transformer blocks of a model: where they are, which configuration counts them, and how they are named to people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from core.errors import Refusal
from core.messages.reason import Reason

if TYPE_CHECKING:
    import torch

BLOCK_COUNTS = ("num_hidden_layers", "num_layers", "decoder_layers", "num_decoder_layers")
"""Configuration values that may say how many blocks the part that speaks has."""


def find_blocks(model: torch.nn.Module) -> tuple[str, Any]:
    """Path and ``ModuleList`` of the transformer blocks: the outermost list as long as a configuration says.

    Of an encoder and a decoder the decoder's, of a model that sees and speaks those of the language part.

    Raises:
        Refusal: the model has no such list.
    """
    import torch

    start, part = _speaking_part(model)
    counts = {getattr(config, name, None) for config in _configs(model, part) for name in BLOCK_COUNTS}
    lists = [
        (f"{start}.{path}" if start else path, module)
        for path, module in part.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) in counts
    ]
    if not lists:
        raise Refusal(Reason("model_parts.no-blocks"))
    return min(lists, key=lambda found: found[0].count("."))


def block_config(model: torch.nn.Module) -> Any:
    """The configuration that counts the blocks (a multimodal model has one for its text part); None without any."""
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        return config
    return config.get_text_config(decoder=True)


def all_configs(model: torch.nn.Module) -> list[Any]:
    """Every configuration object that a module of the model reads, each once, nested ones included."""
    found: dict[int, Any] = {}
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is None or id(config) in found:
            continue
        found[id(config)] = config
        for name in getattr(config, "sub_configs", {}):
            if (nested := getattr(config, name, None)) is not None:
                found[id(nested)] = nested
    return list(found.values())


def replace_numbers(configs: Sequence[Any], names: Sequence[str], new: dict[int, int]) -> None:
    """Wherever a configuration has one of these values (or a list of them, one per block), put its new one.

    Names that stand for another one (``num_attention_heads`` for GPT-2's ``n_head``) are followed, so that none is set twice.
    """
    for config in configs:
        aliases = getattr(config, "attribute_map", {})
        for name in dict.fromkeys(aliases.get(name, name) for name in names):
            value = getattr(config, name, None)
            if isinstance(value, bool):
                continue
            if isinstance(value, int) and value in new:
                setattr(config, name, new[value])
            elif isinstance(value, (list, tuple)) and any(one in new for one in value):
                setattr(config, name, [new.get(one, one) for one in value])


def ranges(sorted_numbers: Sequence[int]) -> str:
    """``20-24, 28``."""
    runs: list[list[int]] = []
    for number in sorted_numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def _speaking_part(model: torch.nn.Module) -> tuple[str, torch.nn.Module]:
    """The part that speaks and its path, as transformers finds it; the whole model where there is no such notion."""
    find = getattr(model, "get_decoder", None)
    part = find() if find is not None else None
    for path, module in model.named_modules():
        if module is part:
            return path, module
    return "", model


def _configs(model: torch.nn.Module, part: torch.nn.Module) -> Iterator[Any]:
    for config in (getattr(part, "config", None), block_config(model)):
        if config is not None:
            yield config
