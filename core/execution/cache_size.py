"""The size of a model's cache: every tensor that can be reached from it, whatever the kind of cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from core import torch_private
from profilers.trace import NOT_MEASURED

_OTHER_OUTPUTS = ("state", "mems", "past_buckets_states")
"""What the outputs of RWKV, XLNet and Reformer call their cache."""

_FOREIGN = ("module", "config")
"""Parts of a cache that lead away from it: to the model, and to what it was made from."""


def cache_in(output: Any, arguments: Mapping[str, Any]) -> Any:
    """The cache that a call of a model's forward left behind, in its output or (a paged one) as an argument; None: none."""
    found = torch_private.cache_left(output)
    if found is None:
        found = next((cache for name in _OTHER_OUTPUTS if (cache := getattr(output, name, None)) is not None), None)
    return arguments.get("cache") if found is None else found


def cache_bytes(cache: Any) -> int:
    """Bytes that a cache holds: the memory of all tensors in it, each piece of memory once. -1 where it holds no tensor.

    A static or paged cache counts with all it has set aside; keys and values of the text that a decoder attends to count as
    much as its own; quantized ones with their scales. Tensors without memory of their own (on the meta device, where another
    engine keeps the real ones) count with the size that they tell.
    """
    if cache is None:
        return NOT_MEASURED
    held: dict[object, int] = {}
    for tensor in _tensors(cache):
        if tensor.device.type == "meta":
            held[id(tensor)] = tensor.nbytes
        else:
            storage = tensor.untyped_storage()
            held[torch_private.memory_of(storage)] = storage.nbytes()
    return sum(held.values()) if held else NOT_MEASURED


def _tensors(cache: Any) -> Iterator[Any]:
    """Every plain tensor in a cache, tensors in tensors (of quantization libraries) too; the same one may come twice."""
    import torch

    plain = {int, float, str, bytes, bool, type(None), type, torch.dtype, torch.device}
    seen: set[int] = set()
    waiting = [cache]
    while waiting:  # after every moment, so quick: 0.1 ms for 30 layers
        thing = waiting.pop()
        kind = type(thing)
        if kind in plain:
            continue
        if kind is torch.Tensor:
            yield thing
        elif id(thing) not in seen:
            seen.add(id(thing))
            waiting += _parts(thing)


def _parts(thing: Any) -> Iterable[Any]:
    """What a part of a cache consists of."""
    import torch

    if isinstance(thing, torch.Tensor):
        inner = getattr(thing, "__tensor_flatten__", None)
        return (
            [torch.Tensor.detach(thing).as_subclass(torch.Tensor)]
            if inner is None
            else [getattr(thing, name) for name in inner()[0]]
        )
    if isinstance(thing, Mapping):
        return thing.values()
    if isinstance(thing, list | tuple | set | frozenset):
        return thing
    if isinstance(thing, torch.nn.Module):
        return ()
    return [value for name, value in getattr(thing, "__dict__", {}).items() if name not in _FOREIGN]
