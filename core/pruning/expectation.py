"""What a change of a model's shape should gain, from the bytes and products per token that its matrices need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.messages.reason import Reason
from core.models.base import generates
from core.pruning import slices

if TYPE_CHECKING:
    import torch

RESTS_ON = Reason("pruning.rests-on-bytes-and-products")
RESTS_ON_PRODUCTS = Reason("pruning.rests-on-products")
NOTHING_GAINED = Reason("pruning.nothing-gained")


@dataclass(frozen=True)
class PrunedCost:
    """What one token costs: ``products`` multiply-adds in the blocks, ``read_bytes`` of weights, the head's included."""

    parameters: int  # of the whole model, each once
    products: int
    read_bytes: int


def work_of(model: torch.nn.Module) -> PrunedCost:
    """Count the model's linear layers; of stacked experts as many as a token goes through.

    Embeddings are looked up, not read whole; norms and attention scores are small beside the matrices and left out. The head
    is read for every new token, but in a prefill for the last position only, so it counts as bytes and not as products.
    """
    find_head = getattr(model, "get_output_embeddings", None)
    head = find_head() if find_head is not None else None
    products = read_bytes = 0
    for module in model.modules():
        used = 0.0
        if slices.sliceable(module):
            weights, used = [module.weight], 1.0
        elif (stacked := [value for value in module.parameters(recurse=False) if value.dim() == 3]) and hasattr(
            module, "num_experts"
        ):
            weights, used = stacked, _share_of_experts(module)
        if used:
            read_bytes += round(used * sum(weight.numel() * weight.element_size() for weight in weights))
            products += 0 if module is head else round(used * sum(weight.numel() for weight in weights))
    return PrunedCost(sum(value.numel() for value in model.parameters()), products, read_bytes)


def gains(before: PrunedCost, after: PrunedCost, task: str) -> tuple[Mapping[str, float], Reason | None]:
    """The gain to be expected by moment kind, and the sentence that says what it rests on."""
    if not after.products or not after.read_bytes:
        return {}, None
    products = before.products / after.products
    if generates(task):
        return {"prefill": products, "decode": before.read_bytes / after.read_bytes}, RESTS_ON
    return {"forward": products}, RESTS_ON_PRODUCTS


def nothing_gained(task: str) -> tuple[Mapping[str, float], Reason]:
    """The same for a change that leaves all shapes as they are."""
    return ({"prefill": 1.0, "decode": 1.0} if generates(task) else {"forward": 1.0}), NOTHING_GAINED


def millions(before: PrunedCost, after: PrunedCost) -> Reason:
    """``134.5 → 114.6 M parameters``."""
    if before.parameters < 10**6:
        return Reason("pruning.parameters", before=before.parameters, after=after.parameters)
    return Reason("pruning.millions", before=before.parameters / 1e6, after=after.parameters / 1e6)


def _share_of_experts(module: torch.nn.Module) -> float:
    config, experts = getattr(module, "config", None), int(getattr(module, "num_experts", 1)) or 1
    return min(1.0, int(getattr(config, "num_experts_per_tok", 0) or experts) / experts)
