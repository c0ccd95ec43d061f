"""How a compiled step is called: which tensor goes where, what has to be as it was, and what comes out as what."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import torch_private

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Place:
    """Where an input of a graph comes from: ``weight`` by its path, ``argument`` by its name, ``cache`` by layer and name."""

    sort: str
    name: str
    layer: int = -1


@dataclass(frozen=True)
class Plan:
    """How a graph is called. ``shapes`` are of the tensors among the arguments; ``others`` the values of the rest, as text."""

    places: tuple[Place, ...]
    shapes: tuple[tuple[str, str], ...]
    others: tuple[tuple[str, str], ...]
    cache: tuple[str, int]  # class of the KV cache and its length in positions
    output: tuple[str, str]  # module and class of what forward returns
    parts: tuple[tuple[str, int], ...]  # its tensors, each with its number among the graph's outputs; -1: the cache as given
    ticks: tuple[int, ...] = ()
    constants: Mapping[str, str] = field(default_factory=dict)  # a library's: weights' paths by their names in it


def places_of(state: Mapping[str, Any], kwargs: Mapping[str, Any]) -> list[tuple[Place, Any]]:
    """Every tensor that a graph may be given, and where it is found."""
    import torch

    found = [(Place("weight", name), tensor) for name, tensor in state.items()]
    for name, value in kwargs.items():
        if isinstance(value, torch.Tensor):
            found.append((Place("argument", name), value))
        elif isinstance(value, dict):
            found += [(Place(f"in {name}", key), one) for key, one in value.items() if isinstance(one, torch.Tensor)]
    for number, layer in enumerate(getattr(torch_private.cache_given(kwargs), "layers", ())):
        found += [(Place("cache", name, number), one) for name, one in vars(layer).items() if isinstance(one, torch.Tensor)]
    return found


def inputs_of(places: Sequence[Place], state: Mapping[str, Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The tensors at these places, in the graph's order."""
    layers = getattr(torch_private.cache_given(kwargs), "layers", ())
    found: list[Any] = []
    for place in places:
        if place.sort == "weight":
            found.append(state[place.name])
        elif place.sort == "cache":
            found.append(getattr(layers[place.layer], place.name))
        elif place.sort == "argument":
            found.append(kwargs[place.name])
        else:
            found.append(kwargs[place.sort[3:]][place.name])
    return found


def signature(kwargs: Mapping[str, Any]) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """Shapes and types of the tensors among the arguments, and the other values but the cache, as text."""
    import torch

    shapes, others = [], []
    for name, value in kwargs.items():
        if name in torch_private.CACHE_NAMES:
            continue
        if isinstance(value, torch.Tensor):
            shapes.append((name, _shape(value)))
        elif isinstance(value, dict):
            shapes += [
                (f"{name} {key}", _shape(one) if isinstance(one, torch.Tensor) else repr(one)) for key, one in value.items()
            ]
        else:
            others.append((name, repr(value)))
    return tuple(shapes), tuple(others)


def _shape(tensor: torch.Tensor) -> str:
    """With strides: a library takes for granted those that it was compiled for."""
    return f"{(*tensor.shape,)} {tensor.stride()} {tensor.dtype}"


def cache_shape(cache: Any) -> tuple[str, int]:
    """Class of a KV cache and its length in positions; 0 where it has none, or is not allocated yet."""
    layers = getattr(cache, "layers", None)
    keys = getattr(layers[0], "keys", None) if layers else None
    return type(cache).__name__, 0 if keys is None else int(keys.shape[-2])


def fits(plan: Plan, kwargs: Mapping[str, Any]) -> bool:
    """Whether a call is of the shape that the graph was made for."""
    return signature(kwargs) == (plan.shapes, plan.others) and cache_shape(torch_private.cache_given(kwargs)) == plan.cache


def parts_of(output: Any, gave: Sequence[Any], cache: Any) -> tuple[tuple[str, int], ...] | None:
    """Which output of the graph each part of a model's output is; None where a part is neither one of them nor the cache."""
    if not isinstance(output, dict):
        return None
    numbers = {id(tensor): number for number, tensor in enumerate(gave)} | {id(cache): -1}
    parts = tuple((name, numbers.get(id(value), -2)) for name, value in output.items())
    return None if any(number == -2 for _, number in parts) else parts


@cache
def output_class(name: tuple[str, str]) -> Any:
    """The class of that module and name."""
    return getattr(importlib.import_module(name[0]), name[1])


def written(plan: Plan) -> str:
    """The plan as JSON."""
    return json.dumps(
        {
            "places": [[place.sort, place.name, place.layer] for place in plan.places],
            "shapes": plan.shapes,
            "others": plan.others,
            "cache": plan.cache,
            "output": plan.output,
            "parts": plan.parts,
            "ticks": plan.ticks,
            "constants": dict(plan.constants),
        }
    )


def read(path: Path) -> Plan:
    """A plan from its file; ``OSError``, ``ValueError`` or ``KeyError`` where there is none, or only a part of one."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    pairs = {name: tuple((key, value) for key, value in kept[name]) for name in ("shapes", "others")}
    return Plan(
        tuple(Place(sort, name, layer) for sort, name, layer in kept["places"]),
        pairs["shapes"],
        pairs["others"],
        (str(kept["cache"][0]), int(kept["cache"][1])),
        (str(kept["output"][0]), str(kept["output"][1])),
        tuple((str(name), int(number)) for name, number in kept["parts"]),
        tuple(kept["ticks"]),
        {str(name): str(path) for name, path in kept["constants"].items()},
    )
