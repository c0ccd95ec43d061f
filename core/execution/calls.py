"""Calls: what one call of a model's forward says about itself, whatever the kind of model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core import torch_private

_WHOLE_SEQUENCES = ("decoder_input_ids", "input_ids", "decoder_inputs_embeds", "inputs_embeds")
"""Arguments with one entry per position, the decoder's before what its encoder was given."""

_OTHERS = ("input_features", "input_values", "pixel_values")
"""Arguments of which a model makes positions in its own way, so that their number is not known here."""


@dataclass(frozen=True)
class Call:
    """One call. ``tokens`` are new positions over the whole batch (0: unknown), ``width`` those of one sequence.

    ``context`` are positions already cached, per sequence. ``kept`` is for how many of the last positions logits are wanted,
    None where the call does not say: one, and one more for every guessed token that it checks.
    """

    tokens: int
    width: int
    context: int
    kept: int | None = None


def read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """What a call with these arguments is; every part has a value, whatever the arguments are."""
    kept = kwargs.get("logits_to_keep")
    tokens, width = _positions(args, kwargs)
    return Call(tokens, width, _context(kwargs), kept if isinstance(kept, int) else None)


def _positions(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, int]:
    """New positions in all, and per sequence."""
    for name in _WHOLE_SEQUENCES:
        shape = getattr(kwargs.get(name), "shape", None)
        if shape is not None and len(shape) >= 2:
            return int(shape[0] * shape[1]), int(shape[1])
    for name in _OTHERS:
        shape = getattr(kwargs.get(name), "shape", None)
        if shape is not None:
            return 0, int(shape[1]) if len(shape) >= 2 else 0
    for value in (*args, *kwargs.values()):
        shape = getattr(value, "shape", None)
        if shape is not None and len(shape) >= 2:
            whole_numbers = not value.is_floating_point() if hasattr(value, "is_floating_point") else False
            return (int(shape[0] * shape[1]) if whole_numbers else 0), int(shape[1])
    return 0, 0


def _context(kwargs: dict[str, Any]) -> int:
    cache = torch_private.cache_given(kwargs)
    length = getattr(cache, "get_seq_length", None)
    if length is not None:
        try:
            return int(length())
        except ValueError:  # of states alone (Mamba), which count no positions
            return 0
    # In a paged cache every sequence is at its own place; that of the batch's first is told.
    positions = kwargs.get("position_ids")
    if cache is not None and positions is not None:
        return int(positions.reshape(-1)[0])
    return 0
