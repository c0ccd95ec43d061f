"""A second face of a model: every module copied shallowly, all weights shared; what is put on one is not on the other."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from profilers.torch_private import children_of, share_children

if TYPE_CHECKING:
    import torch


def shallow_clone(model: torch.nn.Module) -> torch.nn.Module:
    """A copy of the module tree that shares parameters and buffers (the very dicts that hold them) with ``model``.

    Compiled graphs are made from twins. Clocks, labels and tripwires replace ``forward`` on the model's own modules, which the
    guards of a graph compiled from these would take for another model (and each change would make them slower for a while).
    A module that occurs twice is one module in the twin too. Costs a few microseconds and about a kilobyte a module.
    """
    copies = {id(module): copy.copy(module) for module in model.modules()}
    for twin in copies.values():
        children = children_of(twin)
        share_children(twin, {name: None if child is None else copies[id(child)] for name, child in children.items()})
    return copies[id(model)]
