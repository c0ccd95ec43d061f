"""How many bytes a model's weights really take: storages once, packed quantised weights included."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from core.passes.base import Subject

if TYPE_CHECKING:
    import torch


def held_bytes(subject: Subject) -> int:
    """Bytes of the weights that run: the model's, or those that another engine holds in their place."""
    return weight_bytes(subject.model) if subject.engine_bytes is None else subject.engine_bytes


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of all parameters and buffers plus packed weights of torch's quantised modules.

    A storage that several tensors share (a tied head, say) counts once. Packed weights count as their int8 values, scales,
    zero points and biases; a kernel's own padding is not visible from here.
    """
    storages = {}
    for tensor in _tensors(model):
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage.nbytes()
    return sum(storages.values()) + sum(_packed_bytes(module) for module in model.modules())


def _tensors(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    return chain(model.parameters(), model.buffers())


def _packed_bytes(module: torch.nn.Module) -> int:
    """Bytes behind a ``LinearPackedParams`` of ``torch.ao``, whose weight is a packed object and no tensor of the module."""
    import torch

    unpack = getattr(module, "_weight_bias", None)
    # the quantised layer answers too, by asking its LinearPackedParams, which alone holds the packed object
    if unpack is None or isinstance(getattr(module, "_packed_params", module), torch.nn.Module):
        return 0
    weight, bias = unpack()
    held = weight.numel() * weight.element_size()
    if str(weight.qscheme()).startswith("torch.per_channel"):
        held += weight.q_per_channel_scales().nbytes + weight.q_per_channel_zero_points().nbytes
    else:
        held += 16  # one float64 scale, one int64 zero point
    return int(held + (bias.nbytes if bias is not None else 0))
