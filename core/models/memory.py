"""Whether a model fits: what it needs, from what is known before loading, against what the machine has free."""

from __future__ import annotations

from dataclasses import dataclass

from core.messages.reason import Reason
from core.models.base import ModelFacts

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

CONVERSION_FACTOR = 1.7
"""Peak of a GGUF conversion over its weights: 1.65 was measured for SmolLM2-135M (all tensors, and the largest one twice)."""

CONVERSION_BYTES = 192 << 20
"""What parsing a GGUF vocabulary of 49,152 tokens and saving a shard take on top of that."""

HEADROOM_SHARE = 0.1
HEADROOM_BYTES = 256 << 20
"""Activations, a short KV cache and the libraries' own buffers; a rule of thumb, hence the "about" in the sentence."""


@dataclass(frozen=True)
class Fit:
    """The answer. ``fits`` is True while nothing is known (``needed_bytes`` None): then loading decides."""

    fits: bool
    needed_bytes: int | None
    available_bytes: int
    sentence: Reason


def fit(facts: ModelFacts, dtype: str, memory_available: int) -> Fit:
    """Does the model fit in ``memory_available`` bytes when loaded as ``dtype``?

    Needed are the weights in that dtype, or the peak of loading them if that is higher, and some headroom.
    """
    if facts.parameters is None:
        return Fit(True, None, memory_available, Reason("models.memory-unknown"))
    weights = facts.parameters * ITEM_BYTES[dtype]
    if facts.packed and facts.weight_bytes is not None:
        weights = facts.weight_bytes
    peak = weights
    if facts.load_bytes is not None:
        # load_bytes was estimated for the dtype of the facts; a peak is proportional to the weights.
        peak = round(facts.load_bytes * weights / facts.weight_bytes) if facts.weight_bytes else facts.load_bytes
    needed = max(weights, peak) + round(weights * HEADROOM_SHARE) + HEADROOM_BYTES
    if needed <= memory_available:
        fits = Reason("models.fits", needed_bytes=needed, free_bytes=memory_available)
        return Fit(True, needed, memory_available, fits)
    if dtype == "float32":
        too_large = Reason("models.too-large-for-dtype", needed_bytes=needed, free_bytes=memory_available)
    else:
        too_large = Reason("models.too-large", needed_bytes=needed, free_bytes=memory_available)
    return Fit(False, needed, memory_available, too_large)
