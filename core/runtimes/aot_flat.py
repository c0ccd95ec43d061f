"""A flat model: the same forward with plain lists of tensors in and out, which is what torch's compiler ahead of time keeps.

Caches and output classes stay on this side: they are taken apart before the graph and put together again after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from core import torch_private
from core.errors import Refusal
from core.messages.reason import Reason
from core.runtimes.exporting import LONGEST, Sample
from core.runtimes.forward_swap import grow

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Outline:
    """What goes in and comes out of a flat model.

    ``inputs`` are its arguments' names; keys and values of the layers follow them. ``bounds`` are the least and the largest
    size of every dimension of every tensor. ``made`` is module and name of the output's class (empty: a language model's
    logits, then keys and values), ``parts`` its fields.
    """

    inputs: tuple[str, ...]
    bounds: tuple[tuple[tuple[int, int], ...], ...]
    made: tuple[str, str]
    parts: tuple[str, ...]


def flat_inputs(sample: Sample) -> tuple[tuple[str, ...], list[torch.Tensor], list[Any]]:
    """Names of the plain tensors of a sample; all of its tensors, and which of their dimensions may change."""
    names = tuple(name for name, value in sample.inputs.items() if hasattr(value, "shape"))
    tensors = [sample.inputs[name] for name in names]
    shapes = [sample.shapes[name] for name in names]
    if sample.cache:
        tensors += _states(sample.inputs[sample.cache])
        shapes += sample.shapes[sample.cache]
    return names, tensors, shapes


def flat_model(model: torch.nn.Module, sample: Sample) -> torch.nn.Module:
    """A module around ``model`` whose forward takes the tensors of ``flat_inputs`` as one list and gives a tuple of them."""
    import torch

    names, field = flat_inputs(sample)[0], torch_private.cache_field()

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, tensors: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
            given = dict(zip(names, tensors, strict=False))
            if not sample.cache:
                return tuple(self.model(**given, return_dict=True).values())
            cache = {sample.cache: _cache(tensors[len(names) :])}
            output = self.model(**given, **cache, use_cache=True, return_dict=True)
            return (output.logits, *_states(output[field]))

    return Flat().eval()


def outline(model: torch.nn.Module, sample: Sample, graph: Any) -> Outline:
    """What the exported graph of ``flat_model`` takes and gives; ``Refusal`` where a part of the output is no tensor."""
    import torch

    names = flat_inputs(sample)[0]
    users = set(graph.graph_signature.user_inputs)
    nodes = [node for node in graph.graph.nodes if node.op == "placeholder" and node.name in users]
    longest = _longest(model)
    bounds = tuple(_bounds(node.meta["val"], graph.range_constraints, longest) for node in nodes)
    if sample.cache:
        return Outline(names, bounds, ("", ""), ())
    with torch.no_grad():
        output = model(**sample.inputs, return_dict=True)
    if not all(isinstance(value, torch.Tensor) for value in output.values()):
        raise Refusal(Reason("runtimes.aot-plain-tensors-only", model=type(model).__name__))
    return Outline(names, bounds, (type(output).__module__, type(output).__name__), tuple(output))


def unfitting(outline: Outline, tensors: Sequence[torch.Tensor]) -> str | None:
    """Which tensor is of a size that the graph was not made for ("input_ids is 1 × 600"), or None: it does not look itself."""
    for place, (tensor, bounds) in enumerate(zip(tensors, outline.bounds, strict=True)):
        if any(not low <= size <= high for size, (low, high) in zip(tensor.shape, bounds, strict=True)):
            name = outline.inputs[place] if place < len(outline.inputs) else "the cache"
            return f"{name} is {' × '.join(map(str, tensor.shape))}"
    return None


def states_of(cache: Any, blank: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Keys and values of each layer of a cache of plain layers; ``blank`` where it has none yet."""
    return _states(cache) if cache.layers else list(blank)


def put_back(cache: Any, states: Sequence[torch.Tensor]) -> None:
    """Give the cache what came out of the graph."""
    grow(cache, list(zip(states[::2], states[1::2], strict=True)))


def output_of(outline: Outline, values: Sequence[torch.Tensor]) -> Any:
    """The model's own output class around what came out of the graph."""
    parts: Mapping[str, torch.Tensor] = dict(zip(outline.parts, values, strict=True))
    return getattr(import_module(outline.made[0]), outline.made[1])(**parts)


def _longest(model: torch.nn.Module) -> int:
    """How many positions the tables hold that a forward cuts to the length of its text: a library reads on past their end."""
    tables = [table for table in model.buffers() if table.ndim == 2 and len(table) == 1 and not table.is_floating_point()]
    return min((table.shape[1] for table in tables), default=LONGEST)


def _bounds(tensor: torch.Tensor, ranges: Mapping[Any, Any], longest: int) -> tuple[tuple[int, int], ...]:
    sizes = [_bound(size, ranges) for size in tensor.shape]
    if tensor.ndim == 2 and not tensor.is_floating_point():  # a row of positions for each text
        sizes[1] = (sizes[1][0], min(sizes[1][1], longest))
    return tuple(sizes)


def _bound(size: Any, ranges: Mapping[Any, Any]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    known = ranges.get(size.node.expr)
    if known is None:
        return 0, LONGEST
    low, high = (int(end) if end.is_Integer else None for end in (known.lower, known.upper))
    return max(0, low or 0), LONGEST if high is None else high


def _cache(states: Sequence[torch.Tensor]) -> Any:
    from transformers import DynamicCache

    cache = DynamicCache()
    put_back(cache, states)
    return cache


def _states(cache: Any) -> list[torch.Tensor]:
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
