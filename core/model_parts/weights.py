"""A model's weights as bytes and as numbers: what they really take, packed ones included, and casting them to another dtype."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from core import torch_private
from core.pass_api.subject import Subject

if TYPE_CHECKING:
    import torch


def held_bytes(subject: Subject) -> int:
    """Bytes of the weights that run: the model's, or those that another engine holds in their place."""
    runtime = subject.execution.runtime
    return weight_bytes(subject.model) if runtime is None or runtime.weight_bytes is None else runtime.weight_bytes


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of all parameters and buffers plus packed weights and scales of quantised modules that are neither.

    A storage that several tensors share (a tied head, say) counts once. Packed weights of torch's own count as their int8
    values, scales, zero points and biases; a kernel's own padding is not visible from here.
    """
    storages = {}
    for tensor in chain(model.parameters(), model.buffers(), *map(_beside, model.modules())):
        storage = tensor.untyped_storage()
        storages[torch_private.memory_of(storage)] = storage.nbytes()
    return sum(storages.values()) + sum(_packed_bytes(module) for module in model.modules())


def _beside(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """What bitsandbytes' layers hold beside their weight: scales and levels in a state that is no part of the module."""
    import torch

    states: list[Any] = [getattr(module, "state", None)]
    states += [getattr(weight, "quant_state", None) for weight in module.parameters(recurse=False)]
    states += [getattr(state, "state2", None) for state in states]
    for state in states:
        if type(state).__module__.startswith("bitsandbytes"):
            yield from (value for value in vars(state).values() if isinstance(value, torch.Tensor))


def _packed_bytes(module: torch.nn.Module) -> int:
    """Bytes behind a ``LinearPackedParams`` of ``torch.ao``, whose weight is a packed object and no tensor of the module."""
    held_by_torch = torch_private.packed_weight(module)
    if held_by_torch is None:
        return 0
    weight, bias = held_by_torch
    held = weight.numel() * weight.element_size()
    if str(weight.qscheme()).startswith("torch.per_channel"):
        held += weight.q_per_channel_scales().nbytes + weight.q_per_channel_zero_points().nbytes
    else:
        held += 16  # one float64 scale, one int64 zero point
    return int(held + (bias.nbytes if bias is not None else 0))


# -- casting --------------------------------------------------------------------------------------------------------------


def cast(model: torch.nn.Module, dtype: torch.dtype, leave: Collection[torch.nn.Module] = ()) -> int:
    """Cast the weights, as loading in that dtype would: the same Parameter objects, so tied weights stay tied.

    Args:
        model: changed in place, its configuration's dtype too.
        dtype: the new one.
        leave: modules whose own tensors stay as they are.

    Returns:
        How many modules were changed.
    """
    left = {id(module) for module in leave}
    changed = 0
    for path, module in model.named_modules():
        if id(module) in left or _wants_float32(model, path, dtype):
            continue
        mine = [tensor for tensor in _own(module) if tensor.is_floating_point() and tensor.dtype != dtype]
        for tensor in mine:
            tensor.data = tensor.data.to(dtype)
        changed += bool(mine)
    if changed and hasattr(model, "config"):
        model.config.dtype = dtype
    return changed


def _wants_float32(model: torch.nn.Module, path: str, dtype: torch.dtype) -> bool:
    """Whether the architecture wants this module in float32: some whatever the dtype, some only instead of float16."""
    import torch

    kept = torch_private.kept_in_float32(model, of_float16=dtype == torch.float16)
    return not kept.isdisjoint(path.split("."))


def _own(module: torch.nn.Module) -> list[torch.Tensor]:
    """The module's own parameters and saved buffers.

    Buffers that are not saved (rotary frequencies) are computed, and stay float32 as when loading in another dtype: rounding
    them would move every position.
    """
    computed = torch_private.unsaved_buffers(module)
    buffers = [buffer for name, buffer in module.named_buffers(recurse=False) if name not in computed]
    return [*module.parameters(recurse=False), *buffers]
