"""Names of compiled graphs: whatever a graph's code depends on is in its name."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import torch_private

if TYPE_CHECKING:
    import torch

VERSION = 3
"""Raised when graphs kept by an older Tickscope must not be used any more."""


def graph_key(model: torch.nn.Module, settings: Mapping[str, Any], *about: object) -> str:
    """Names a graph by all that its code depends on: versions, processor, threads, the model's structure and ``about``."""
    import torch
    import transformers

    modules = [
        (path, type(module).__qualname__, module.extra_repr(), *_looks(module)) for path, module in model.named_modules()
    ]
    config = getattr(model, "config", None)
    text = repr(
        (
            *(VERSION, torch.__version__, transformers.__version__, sorted(torch.cpu.get_capabilities().items())),
            *(torch.get_num_threads(), sorted(settings.items()), about, _own_code(model)),
            config.to_json_string(use_diff=False) if config is not None else "",
            torch_private.attention_implementation(config) or "",
            modules,
        )
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _own_code(model: torch.nn.Module) -> list[str]:
    """Digests of the files in which classes of the model are written that come with neither torch nor transformers.

    A class without a file, as one made at a prompt, may be another the next time: it gets a name that never comes again.
    """
    kinds = {kind for module in model.modules() for kind in type(module).__mro__}
    names = {
        kind.__module__ for kind in kinds if kind.__module__.partition(".")[0] not in ("torch", "transformers", "builtins")
    }
    found = []
    for name in sorted(names):
        file = getattr(sys.modules.get(name), "__file__", None)
        try:
            found.append(hashlib.sha256(Path(file or "").read_bytes()).hexdigest())
        except OSError:
            found.append(f"{name} {os.getpid()} {id(model)}")
    return found


def _looks(module: torch.nn.Module) -> list[tuple[str, ...]]:
    held = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return [(name, str(tensor.dtype), f"{(*tensor.shape,)} {tensor.stride()}", tensor.device.type) for name, tensor in held]
