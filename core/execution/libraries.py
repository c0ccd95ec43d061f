"""What a first model needs, imported before anyone waits for it: seconds of torch and transformers."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

LIBRARIES = (
    "torch",
    "transformers",
    "transformers.modeling_utils",
    "transformers.generation.utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "gguf",
    "core.planning.plan",
)
"""What a first model needs, in parts, so that closing need not wait for all of them."""


def import_libraries(closing: Callable[[], bool]) -> None:
    """Import them one after another, until all are there or the program is ``closing``."""
    for name in LIBRARIES:
        if closing():
            return
        import_module(name)
