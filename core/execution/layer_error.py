"""Layer error: which layer's output moved away from that of the unoptimized model, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from core.analysis.quality import sqnr_db

if TYPE_CHECKING:
    import torch

POSITIONS = 48
"""Tokens of the window on which layers are compared."""

MOST_BYTES = 192 << 20
"""Outputs that are kept; of a large model those of fewer positions."""


def places(model: torch.nn.Module) -> WeakKeyDictionary[torch.nn.Module, str]:
    """The path of every module of a model that nothing was done to yet.

    Held by module, since passes take blocks out and number the others anew: the block that becomes number 5 is to be compared
    with itself, not with the one that had the number before.
    """
    return WeakKeyDictionary({module: path for path, module in model.named_modules()})


def outputs(model: torch.nn.Module, call: Callable[[], object]) -> dict[str, torch.Tensor]:
    """Each module's output in ``call`` by its path: the first tensor of it, of the module's first call, float32 on the CPU."""
    found: dict[str, torch.Tensor] = {}

    def keep(path: str, tensor: torch.Tensor) -> None:
        if path not in found:
            found[path] = tensor.detach().float().cpu().clone()

    with _watched(model, keep):
        call()
    return found


def errors(
    model: torch.nn.Module,
    before: Mapping[str, torch.Tensor],
    places: Mapping[torch.nn.Module, str],
    call: Callable[[], object],
) -> dict[str, float | None]:
    """Signal-to-noise ratio of each module's output in dB, by its path in this model; None where equal bit for bit.

    Args:
        model: with its passes.
        before: ``outputs`` of the unoptimized model for the same inputs.
        places: ``places`` of the model before its passes.
        call: calls the model with those inputs.

    Returns:
        Modules that exist in both with outputs of the same shape; those that a pass made are compared under their path.
    """
    was = dict(_origins(model, "", "", places))
    found: dict[str, float | None] = {}

    def compare(path: str, tensor: torch.Tensor) -> None:
        reference = before.get(was[path])
        if path not in found and reference is not None and reference.shape == tensor.shape:
            found[path] = sqnr_db(reference, tensor.detach())

    with _watched(model, compare):
        call()
    order = [path for path, _ in model.named_modules()]
    return {path: found[path] for path in order if path in found}


def _origins(
    module: torch.nn.Module, path: str, inherited: str, places: Mapping[torch.nn.Module, str]
) -> Iterator[tuple[str, str]]:
    """Path now and path before; a module that was not there before stands where its parent's path says."""
    before = places.get(module, inherited)
    yield path, before
    for name, child in module.named_children():
        below = f"{before}.{name}" if before else name
        yield from _origins(child, f"{path}.{name}" if path else name, below, places)


@contextmanager
def _watched(model: torch.nn.Module, see: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    def hook_for(path: str) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is not None:
                see(path, tensor)

        return hook

    hooks = [module.register_forward_hook(hook_for(path)) for path, module in model.named_modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def first_tensor(output: Any) -> torch.Tensor | None:
    """The first tensor of floating point numbers in what a module gives: itself, or in a tuple, mapping or model output."""
    import torch

    if isinstance(output, torch.Tensor):
        return output if output.is_floating_point() else None
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    return next((found for part in parts if (found := first_tensor(part)) is not None), None)
