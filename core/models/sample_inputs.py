"""Small made-up inputs that any transformers model can be called with, for looking at what a change to it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from core import torch_private
from core.errors import Refusal
from core.models.made_up import Amount, made_up_inputs, placed_like

if TYPE_CHECKING:
    import torch

BATCH, TOKENS, SAMPLES = 2, 5, 4800

MODEL_ERRORS = (RuntimeError, TypeError, AttributeError, ValueError, LookupError, ArithmeticError, AssertionError)
"""What models raise for inputs or changes that do not suit them."""


def sample_inputs(model: torch.nn.Module) -> dict[str, torch.Tensor] | None:
    """Keyword arguments of one small call, the same ones each time; None where the model takes what cannot be made up.

    Text models get ids [2, 5], image models pixels [2, channels, height, width], speech models features [2, bins, frames],
    models of several of these all that they read.
    """
    try:
        made = made_up_inputs(model, Amount(BATCH, TOKENS, samples=SAMPLES))
    except Refusal:
        return None
    return placed_like(model, made)


def small_call(model: torch.nn.Module) -> Callable[[], list[torch.Tensor]] | None:
    """A function that gives the model's results for a small input, and for one decode step after it where there is a cache.

    The results are float32, the same ones each time while the model is the same. None: see ``sample_inputs``.
    """
    import torch

    inputs = sample_inputs(model)
    if inputs is None:
        return None

    def call() -> list[torch.Tensor]:
        with torch.no_grad():
            output = model(**inputs)
            results = [first_result(output).float()]
            cache = torch_private.cache_left(output)
            if cache is not None and "decoder_input_ids" not in inputs and "input_ids" in inputs:
                step = {"input_ids": inputs["input_ids"][:, -1:], torch_private.cache_argument(model): cache}
                results.append(first_result(model(**step)).float())
        return results

    return call


def first_result(output: Any) -> torch.Tensor:
    """The first floating-point tensor in what a model returned."""
    import torch

    values = output.values() if hasattr(output, "values") else output if isinstance(output, tuple | list) else (output,)
    return next(value for value in values if isinstance(value, torch.Tensor) and value.is_floating_point())
