"""How much reaches a layer: the mean square of each of its inputs over some tokens.

An input of a projection back into the residual stream writes its value times its column. The root of that mean square times the
column's norm is thus what it writes, which weights alone do not tell. Measured on SmolLM2-135M with 1472 of 1536 neurons kept
(KLD over 256 held-out tokens): 0.23 chosen by what they write, 4.0 by weight norms; with two of three key/value groups kept
0.68 and 5.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.progress import Progress
from core.pruning.calibration import Tokens, forward

if TYPE_CHECKING:
    import torch


def mean_squares(
    model: torch.nn.Module, layers: Sequence[Any], tokens: Tokens, progress: Progress
) -> Mapping[int, torch.Tensor]:
    """By the ``id`` of a layer the mean squares of its inputs, [inputs] float32, over one sequence of these tokens.

    A layer that these tokens do not reach is not in the result. Raises ``Cancelled`` within about a layer's time.
    """
    import torch

    found: dict[int, torch.Tensor] = {}

    def look(layer: Any, given: tuple[Any, ...]) -> None:
        progress.check()
        found[id(layer)] = given[0].detach().float().flatten(0, -2).square().mean(0)

    handles = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        with torch.no_grad():
            forward(model, tokens.ids[None])
    finally:
        for handle in handles:
            handle.remove()
    return found
