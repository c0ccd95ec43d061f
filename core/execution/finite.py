"""Finite: whether the numbers that a model chooses its next token by are numbers at all."""

from __future__ import annotations

from typing import Any


def choosable(logits: Any) -> bool:
    """Whether a token can be chosen by the last of these logits [batch, positions, vocabulary]; also where there are none.

    -inf only rules a token out, as models do that must not say some of theirs; NaN and +inf leave no choice.
    """
    import torch

    if not isinstance(logits, torch.Tensor) or not logits.is_floating_point() or logits.ndim < 2 or not logits.numel():
        return True
    best = (logits[:, -1] if logits.ndim > 2 else logits).detach().amax(dim=-1)  # a NaN is the largest of all
    return bool(torch.isfinite(best.float()).all())
