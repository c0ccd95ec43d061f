"""The linear layers that quantising passes work on: finding them, GPT-2's transposed ones included, and replacing them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def linear_paths(model: torch.nn.Module, include_head: bool, skip: str = "") -> list[str]:
    """Dotted paths of all plain ``nn.Linear`` and transformers ``Conv1D`` layers, in module order.

    Only the exact classes count: subclasses exist because their owner reads ``.weight`` itself. ``include_head`` False
    leaves out the output projection to the vocabulary; ``skip`` holds words (separated by spaces, ``+`` or commas), and a
    layer whose path contains one of them is left out.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    head = None if include_head else output_head(model)
    kinds = (torch.nn.Linear, Conv1D)
    found = [path for path, module in model.named_modules() if type(module) in kinds and module is not head]
    words = [word for word in re.split(r"[\s,+]+", skip) if word]
    return [path for path in found if not any(word in path for word in words)]


def output_head(model: torch.nn.Module) -> torch.nn.Module | None:
    """The projection from hidden states to the vocabulary, if the model has one."""
    find = getattr(model, "get_output_embeddings", None)
    return find() if find is not None else None


def as_linear(module: torch.nn.Module) -> Any:
    """The layer as ``nn.Linear``: itself, or an exact copy of a ``Conv1D``, whose weight is stored transposed."""
    import torch

    if isinstance(module, torch.nn.Linear):
        return module
    rows, columns = module.weight.shape  # Conv1D: (inputs, outputs)
    linear = torch.nn.Linear(rows, columns, bias=True, device="meta")
    linear.weight = torch.nn.Parameter(module.weight.detach().t().contiguous(), requires_grad=False)
    linear.bias = torch.nn.Parameter(module.bias.detach(), requires_grad=False)
    return linear.train(module.training)


def replace(model: torch.nn.Module, path: str, new: torch.nn.Module) -> None:
    """Put ``new`` where ``path`` points."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)
