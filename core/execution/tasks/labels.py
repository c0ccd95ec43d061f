"""Labels: the probabilities that a classifier gives, and its likeliest labels by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

TOLD = 5
"""How many of the likeliest labels are told."""


def probabilities(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """Of each label, [..., labels]. They add up to 1 unless several may apply; a single label is a number as it is."""
    if logits.shape[-1] == 1:
        return logits
    if getattr(config, "problem_type", None) == "multi_label_classification":
        return logits.sigmoid()
    return logits.softmax(-1)


def name_of(config: Any, label: int) -> str:
    """The label's name in the model's config."""
    names = getattr(config, "id2label", None) or {}
    return str(names.get(label, f"LABEL_{label}"))


def likeliest(values: torch.Tensor, config: Any) -> str:
    """The likeliest labels with their probabilities: ``LABEL_1 0.53, LABEL_0 0.47``."""
    best = values.topk(min(TOLD, len(values)))
    return ", ".join(
        f"{name_of(config, int(label))} {value:.2f}" for value, label in zip(best.values, best.indices, strict=True)
    )
