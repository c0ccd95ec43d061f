"""Block influence: how much each transformer block turns the stream that passes through it.

One minus the cosine between a block's input and output, averaged over positions (Men et al. 2024, ShortGPT, arXiv:2403.03853).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from core.progress import Progress
from core.pruning.calibration import Tokens, forward

if TYPE_CHECKING:
    import torch


def block_influence(model: torch.nn.Module, blocks: Iterable[Any], tokens: Tokens, progress: Progress) -> list[float]:
    """The influence of each block, 0 (passes everything on as it is) to 2, on one sequence of these tokens."""
    import torch

    found: list[float] = []

    def look(module: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        progress.check()
        before = given[0] if given else named["hidden_states"]
        after = output[0] if isinstance(output, tuple) else output
        cosine = torch.nn.functional.cosine_similarity(before.float(), after.float(), dim=-1)
        found.append(1 - cosine.mean().item())

    handles = [block.register_forward_hook(look, with_kwargs=True) for block in blocks]
    try:
        with torch.no_grad():
            forward(model, tokens.ids[None])
    finally:
        for handle in handles:
            handle.remove()
    return found
