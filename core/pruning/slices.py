"""Cutting rows and columns out of linear layers, in place, so that a layer's identity and class stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profilers.torch_private import children_of

if TYPE_CHECKING:
    import torch


def sliceable(module: Any) -> bool:
    """Whether this is a linear layer (or GPT-2's transposed one) with a plain floating-point matrix."""
    import torch
    from transformers.pytorch_utils import Conv1D

    if not isinstance(module, (torch.nn.Linear, Conv1D)):
        return False
    weight = module.weight
    shape = (module.nx, module.nf) if isinstance(module, Conv1D) else (module.out_features, module.in_features)
    return isinstance(weight, torch.Tensor) and weight.is_floating_point() and tuple(weight.shape) == shape


def child(owner: Any, dotted: str) -> Any:
    """The module below ``owner`` at this path, or None."""
    for name in dotted.split("."):
        owner = None if owner is None else children_of(owner).get(name)
    return owner


def matrix(layer: Any) -> torch.Tensor:
    """The layer's weight as float32 [outputs, inputs], whichever way it is stored."""
    weight: torch.Tensor = layer.weight.detach().float()
    return weight.t() if is_transposed(layer) else weight


def outputs(layer: Any) -> int:
    """How many values the layer gives."""
    return int(layer.weight.shape[1 if is_transposed(layer) else 0])


def inputs(layer: Any) -> int:
    """How many values the layer takes."""
    return int(layer.weight.shape[0 if is_transposed(layer) else 1])


def is_transposed(layer: Any) -> bool:
    """Whether the weight is stored as [inputs, outputs]."""
    return hasattr(layer, "nx")


def keep_outputs(layer: Any, kept: torch.Tensor) -> None:
    """Leave only these outputs (sorted numbers), of weight and bias."""
    _narrow(layer, "weight", kept, 1 if is_transposed(layer) else 0)
    if layer.bias is not None:
        _narrow(layer, "bias", kept, 0)
    setattr(layer, "nf" if is_transposed(layer) else "out_features", len(kept))


def keep_inputs(layer: Any, kept: torch.Tensor) -> None:
    """Leave only these inputs (sorted numbers)."""
    _narrow(layer, "weight", kept, 0 if is_transposed(layer) else 1)
    setattr(layer, "nx" if is_transposed(layer) else "in_features", len(kept))


def _narrow(module: Any, name: str, kept: torch.Tensor, dim: int) -> None:
    import torch

    old = getattr(module, name)
    narrower = old.detach().index_select(dim, kept.to(old.device)).contiguous()
    setattr(module, name, torch.nn.Parameter(narrower, requires_grad=old.requires_grad))


def set_where_equal(module: torch.nn.Module, names: tuple[str, ...], old: int, new: int) -> None:
    """Attributes of the module that hold ``old`` hold ``new`` from now on."""
    for name in names:
        value = module.__dict__.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value == old:
            setattr(module, name, new)
