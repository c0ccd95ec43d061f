"""Mixtures of experts: how many of a model's parameters work on one token, from its modules or from the names of its tensors.

Each token is sent to a few experts of each layer, so experts count with the share that is chosen; all else counts whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CHOSEN_KEYS = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "top_k_experts",
    "moe_topk",
    "moe_top_k",
    "moe_k",
    "num_selected_experts",
)
COUNT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_ALWAYS = {"switch_transformers": 1, "nllb-moe": 2}
"""Architectures whose paper fixes how many experts a token is sent to; their configs do not say it."""

EXPERT_TENSOR = re.compile(r"\.experts?\.")
"""In a tensor's name: of one expert or of all; a shared expert is called otherwise and always works."""


def chosen(config: Mapping[str, Any]) -> int | None:
    """Experts that one token is sent to in each layer; None where the config tells of none."""
    found = next((config[key] for key in CHOSEN_KEYS if _is_count(config.get(key))), None)
    return found or _ALWAYS.get(str(config.get("model_type")))


def count(config: Mapping[str, Any]) -> int | None:
    """Experts of one layer to choose from; None where the config tells of none."""
    return next((config[key] for key in COUNT_KEYS if _is_count(config.get(key))), None)


def active(parameters: int, expert_parameters: int, config: Mapping[str, Any]) -> int | None:
    """Parameters that work on one token: all but the experts, and of those ``chosen`` out of ``count``.

    Args:
        parameters: of the whole model.
        expert_parameters: those of all experts together.
        config: the text part of the model's config.

    Returns:
        None where this is no mixture of experts, or where the config does not say what is chosen.
    """
    each, among = chosen(config), count(config)
    if not expert_parameters or each is None or among is None or each >= among:
        return None
    return parameters - expert_parameters + expert_parameters * each // among


def active_of(model: torch.nn.Module, config: Mapping[str, Any]) -> int | None:
    """The same, counted on a model (in memory or on the meta device)."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    own = {
        id(parameter): parameter.numel()
        for path, module in model.named_modules()
        if path.rpartition(".")[2] in ("experts", "expert")
        for parameter in module.parameters()
    }
    return active(parameters, sum(own.values()), config)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
