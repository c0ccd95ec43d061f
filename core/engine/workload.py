"""Whether a workload fits the model's context and this machine's memory."""

from __future__ import annotations

from typing import Any

import psutil

from core.config import WorkloadConfig
from core.errors import Refusal
from core.models.base import ModelFacts, generates
from core.units import size

# Memory that must stay free for everything else; an overcommitting kernel kills the process instead of refusing memory.
RESERVE_BYTES = 512 << 20


def text_config(model: Any) -> Any:
    """The config that speaks of the language part of a transformers model."""
    config = model.config
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def check_length(facts: ModelFacts, workload: WorkloadConfig, input_tokens: int) -> int:
    """Longest sequence of a request, in tokens; ``Refusal`` where the model's context is shorter."""
    new_tokens = workload.new_tokens if generates(facts.task) else 0
    length = input_tokens + new_tokens
    limit = facts.context_length
    if limit is not None and length > limit:
        asked = f"{input_tokens} prompt and {new_tokens} new tokens" if new_tokens else f"{input_tokens} tokens"
        raise Refusal(
            f"{facts.name} has room for {limit} tokens, but {asked} were asked for; shorten the prompt or ask for less."
        )
    return length


def request_bytes(model: Any, batch: int, input_tokens: int, length: int) -> int:
    """Least memory that one request takes beside the weights, in bytes: KV cache, widest activations, logits.

    KV cache: 2 · layers · KV heads · head size · batch · length. Activations of the prefill: the residual stream, and the MLP's
    two inner tensors, each batch · tokens wide. Logits: batch · vocabulary in float32, twice (sampling copies them).
    """
    config = text_config(model)
    item = next((parameter.element_size() for parameter in model.parameters()), 4)
    hidden = int(getattr(config, "hidden_size", 0))
    heads = int(getattr(config, "num_attention_heads", 1) or 1)
    kv_heads = int(getattr(config, "num_key_value_heads", heads) or heads)
    head_size = int(getattr(config, "head_dim", 0) or hidden // heads)
    inner = int(getattr(config, "intermediate_size", 0) or 4 * hidden)
    layers = int(getattr(config, "num_hidden_layers", 0))
    cache = 2 * layers * kv_heads * head_size * batch * length * item
    activations = batch * input_tokens * (4 * hidden + 2 * inner) * item
    logits = 2 * batch * int(getattr(config, "vocab_size", 0)) * 4
    return cache + activations + logits


def check_memory(model: Any, batch: int, input_tokens: int, length: int) -> None:
    """``Refusal`` where a request cannot fit into the memory that is free now (CPU targets)."""
    needed = request_bytes(model, batch, input_tokens, length)
    free = psutil.virtual_memory().available
    if needed > free - RESERVE_BYTES:
        raise Refusal(
            f"A batch of {batch} × {length} tokens needs about {size(needed)}, but {size(free)} is free; "
            "make the batch, the prompt or the number of new tokens smaller."
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python ran out of memory (the CPU allocator raises a plain ``RuntimeError``)."""
    text = str(error)
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text
