"""Whether a workload fits the model's context and this machine's memory."""

from __future__ import annotations

from typing import Any

import psutil

from core.config import WorkloadConfig
from core.error_text import said
from core.errors import Refusal
from core.messages.reason import Reason
from core.models.base import TASKS, ModelFacts, generates
from core.models.made_up import text_config_of

# Memory that must stay free for everything else; an overcommitting kernel kills the process instead of refusing memory.
RESERVE_BYTES = 512 << 20


# Tokens that tell a decoder that listens what to do (begin, language, task, no times), before the first one it writes.
SPEECH_PROMPT = 4


def text_config(model: Any) -> Any:
    """The config that speaks of the language part of a transformers model; None for a module without a config."""
    config = getattr(model, "config", None)
    return text_config_of(config) if config is not None else None


def check_length(facts: ModelFacts, workload: WorkloadConfig, input_tokens: int, *, in_windows: bool = False) -> int:
    """Longest sequence of a request, in positions; ``Refusal`` where the model's context is shorter.

    An encoder-decoder has a sequence on either side, and the longer one counts; one that listens writes its own only.
    """
    modality = TASKS[facts.task].modality if facts.task in TASKS else "text"
    if modality in ("image", "tensors") or (modality == "speech" and not generates(facts.task)):
        return input_tokens
    new_tokens = workload.new_tokens if generates(facts.task) else 0
    length = input_tokens + new_tokens
    if new_tokens:
        asked = Reason("execution.asks-prompt-and-new", prompt=input_tokens, new=new_tokens)
    else:
        asked = Reason("execution.asks-tokens", tokens=input_tokens)
    if facts.task == "speech":
        length = new_tokens + SPEECH_PROMPT
        asked = Reason("execution.asks-new-after", new=new_tokens, before=SPEECH_PROMPT)
    elif facts.task == "seq2seq":
        length = max(input_tokens, new_tokens + 1)
    limit = facts.context_length
    if limit is not None and length > limit and not in_windows and not facts.context_is_soft:
        raise Refusal(Reason("execution.context-too-short", name=facts.name, limit=limit, asked=asked))
    return length


def beyond_context(facts: ModelFacts, length: int) -> Reason | None:
    """A sentence for people where a sequence of ``length`` positions is longer than the model was made for, or None."""
    limit = facts.context_length
    if limit is None or length <= limit or not facts.context_is_soft:
        return None
    return Reason("execution.beyond-context", length=length, name=facts.name, limit=limit)


def request_bytes(model: Any, batch: int, input_tokens: int, length: int) -> int:
    """Least memory that one request takes beside the weights, in bytes: KV cache, widest activations, logits.

    KV cache: 2 · layers · KV heads · head size · batch · length. Activations of the prefill: the residual stream, and the MLP's
    two inner tensors, each batch · tokens wide. Logits: batch · vocabulary in float32, twice (sampling copies them).
    What a config does not say, or says layer by layer, counts nothing: a least amount stays one.
    """
    config = text_config(model)
    item = next((parameter.element_size() for parameter in model.parameters()), 4)
    hidden = _number(config, "hidden_size")
    heads = _number(config, "num_attention_heads") or 1
    kv_heads = _number(config, "num_key_value_heads") or heads
    head_size = _number(config, "head_dim") or hidden // heads
    inner = _number(config, "intermediate_size") or 4 * hidden
    layers = _number(config, "num_hidden_layers")
    generates_text = bool(getattr(model, "can_generate", lambda: False)())
    cache = 2 * layers * kv_heads * head_size * batch * length * item if generates_text else 0
    activations = batch * input_tokens * (4 * hidden + 2 * inner) * item
    logits = 2 * batch * _number(config, "vocab_size") * 4 if generates_text else 0
    return cache + activations + logits


def _number(config: Any, name: str) -> int:
    value = getattr(config, name, None)
    return value if isinstance(value, int) else 0


def check_memory(model: Any, batch: int, input_tokens: int, length: int) -> None:
    """``Refusal`` where a request cannot fit into the memory that is free now (CPU targets)."""
    refuse_size(request_bytes(model, batch, input_tokens, length), f"A batch of {batch} × {length} tokens")


def refuse_size(needed_bytes: int, what: str) -> None:
    """``Refusal`` where ``what`` needs more memory than is free now: before it is made, for then it may be too late."""
    free = psutil.virtual_memory().available
    if needed_bytes > free - RESERVE_BYTES:
        raise Refusal(Reason("execution.memory-too-small", what=what, needed_bytes=needed_bytes, free_bytes=free))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python ran out of memory (the CPU allocator raises a plain ``RuntimeError``)."""
    text = said(error)
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text
