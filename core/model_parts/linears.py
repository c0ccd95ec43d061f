"""The linear layers that quantising passes work on, GPT-2's transposed ones included: choosing, finding, replacing them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from core.errors import Refusal
from core.messages.reason import Reason

if TYPE_CHECKING:
    import torch

SHOWN_PATHS = 3  # in a note; the rest are counted


@dataclass(frozen=True)
class LayerPatterns:
    """Which linear layers, by patterns of their paths: the options that all quantising passes have."""

    only: str = field(
        default="",
        metadata={
            "label": "Only these layers",
            "help": "Words such as mlp, or patterns such as model.layers.[0-9].*; separate them by a space or +. Empty: all",
        },
    )
    skip: str = field(
        default="",
        metadata={
            "label": "Leave as they are",
            "help": "Words such as down_proj, or patterns such as *.layers.0.*; separate them by a space or +",
        },
    )


@dataclass(frozen=True)
class LayerChoice(LayerPatterns):
    """The same, and whether the output head is one of them."""

    include_head: bool = field(
        default=True,
        metadata={
            "label": "Also the output head",
            "help": "A head that shares its weight with the embedding gets a copy of its own; the embedding stays as it is",
        },
    )


def linear_paths(model: torch.nn.Module, include_head: bool, skip: str = "", only: str = "") -> list[str]:
    """Dotted paths of all plain ``nn.Linear`` and transformers ``Conv1D`` layers, in module order.

    Only the exact classes count: subclasses exist because their owner reads ``.weight`` itself. ``include_head`` False
    leaves out the output projection to the vocabulary. ``only`` and ``skip``: see ``matches``.
    """
    head = None if include_head else output_head(model)
    found = [path for path, module in model.named_modules() if is_linear(module) and module is not head]
    return [path for path in found if (not only.strip() or matches(path, only)) and not matches(path, skip)]


def matches(path: str, patterns: str) -> bool:
    """Whether one of the patterns (separated by spaces, ``+`` or commas) fits the path.

    A pattern with ``*``, ``?`` or ``[`` must fit the whole path, as file names do; a plain word must occur in it.
    """
    words = [word for word in re.split(r"[\s,+]+", patterns) if word]
    return any(fnmatchcase(path, word) if set("*?[") & set(word) else word in path for word in words)


def chosen(model: torch.nn.Module, title: str, patterns: LayerPatterns, include_head: bool) -> list[str]:
    """Paths of the layers to change; ``Refusal`` if there are none. ``title`` is the pass's, for the sentence."""
    found = [path for path in linear_paths(model, include_head, patterns.skip, patterns.only) if path]
    if not found:
        raise Refusal(Reason("model_parts.no-linear-layer", title=title))
    return found


def is_linear(module: torch.nn.Module) -> bool:
    """Whether it is exactly a linear layer, or GPT-2's transposed one."""
    import torch
    from transformers.pytorch_utils import Conv1D

    return type(module) in (torch.nn.Linear, Conv1D)


def output_head(model: torch.nn.Module) -> torch.nn.Module | None:
    """The projection from hidden states to the vocabulary, if the model has one."""
    find = getattr(model, "get_output_embeddings", None)
    return find() if find is not None else None


def head_in_rows(model: torch.nn.Module) -> Callable[[], None] | None:
    """Let the output head see its positions as rows [n, hidden]; returns what takes it back, None where it is no plain layer.

    After a prompt ``generate`` gives it the last position as a slice, [1, 1, hidden] with the strides of the whole prompt. For
    these torch 2.13's products in 16 bits take a path that is 20 times slower (340 against 14 ms for 49152 × 576).
    """
    import torch

    head: Any = output_head(model)
    if type(head) is not torch.nn.Linear:
        return None
    head.__class__ = _in_rows_class()

    def take_back() -> None:
        head.__class__ = torch.nn.Linear

    return take_back


@lru_cache(maxsize=1)
def _in_rows_class() -> Any:
    """The class, made when torch is there; it keeps the name that people and stages read."""
    import torch

    class Linear(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            rows = torch.nn.functional.linear(input.reshape(-1, self.in_features), self.weight, self.bias)
            return rows.view(*input.shape[:-1], self.out_features)

    Linear.__qualname__ = "Linear"
    return Linear


def head_path(model: torch.nn.Module) -> str | None:
    """Where the output head is, if the model has one that is a linear layer."""
    head = output_head(model)
    return next((path for path, module in model.named_modules() if module is head and is_linear(module)), None)


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


def swap(
    model: torch.nn.Module, paths: Collection[str], make: Callable[[Any], torch.nn.Module], each: Callable[[], None]
) -> None:
    """Replace each layer by what ``make`` makes of it as ``nn.Linear``. ``each`` is called before; it may raise to stop.

    A layer that is at two places (a shared one) is replaced by one new layer at both.
    """
    made: dict[int, tuple[torch.nn.Module, torch.nn.Module]] = {}
    for path in paths:
        each()
        old = model.get_submodule(path)
        if id(old) not in made:
            made[id(old)] = (old, make(as_linear(old)))
        new = made[id(old)][1]
        replace(model, path, new)


# -- what was left out, for people ----------------------------------------------------------------------------------------


def head_note(model: torch.nn.Module, paths: Collection[str], form: str) -> tuple[Reason, ...]:
    """To be asked before changing: what becomes of a head that shares its weight with the embedding."""
    find = getattr(model, "get_input_embeddings", None)
    path = head_path(model)
    embedding = find() if find is not None and path is not None else None
    if path not in paths or getattr(embedding, "weight", None) is not model.get_submodule(str(path)).weight:
        return ()
    return (Reason("model_parts.head-copied", form=form),)


def left_out(model: torch.nn.Module, unfit: Mapping[str, Reason] | None = None) -> tuple[Reason, ...]:
    """To be asked after changing: which linear layers and other large weights are as they were, and why.

    Args:
        model: after the pass.
        unfit: reasons by path, of layers that were chosen but do not fit the kernel.
    """
    unfit = unfit or {}
    notes = [
        Reason("model_parts.unfit", layers=_listed([path for path in unfit if unfit[path] == reason]), why=reason)
        for reason in dict.fromkeys(unfit.values())
    ]
    kept = [path for path, module in model.named_modules() if path and path not in unfit and is_linear(module)]
    if kept:
        notes.append(Reason("model_parts.kept-by-options", layers=_listed(kept)))
    stacked = [weight for weight in model.parameters() if weight.dim() == 3 and weight.is_floating_point()]
    if stacked:
        held = sum(weight.nbytes for weight in stacked)
        notes.append(Reason("model_parts.stacked-experts", count=len(stacked), held_bytes=held))
    return tuple(notes)


def _listed(paths: Collection[str]) -> Reason:
    shown = tuple(list(paths)[:SHOWN_PATHS])
    more = len(paths) - SHOWN_PATHS
    if more > 0:
        return Reason("model_parts.layers-and-more", n=len(paths), shown=shown, more=more)
    return Reason("model_parts.layers", n=len(paths), shown=shown)
