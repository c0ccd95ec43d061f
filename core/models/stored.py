"""Whether a file holds its weights in few bits already, which whoever judges quality must know."""

from __future__ import annotations

import re
from typing import Any

_FEW_BITS = re.compile(
    r"\b(I?Q[1-8]\w*|TQ[12]\w*|MXFP4\w*|NVFP4\w*|U?I8|u?int[248]\w*|[48]-?bits?|F8\w*|float8\w*|fp8\w*|nf4|gptq\w*|awq\w*)\b",
    re.IGNORECASE,
)
"""Names of formats with eight bits or fewer: GGUF's types, safetensors' types, and those of quantization configurations."""


def stored_quantized(stored_as: str, config: Any = None) -> str:
    """The name of the format with few bits in which the file holds its weights, "" where it does not or nobody can tell.

    Args:
        stored_as: ``ModelFacts.stored_as``, e.g. "GGUF Q4_1".
        config: the model's configuration, whose ``quantization_config`` names a method such as GPTQ or AWQ.
    """
    if _FEW_BITS.search(stored_as):
        return stored_as
    told = getattr(config, "quantization_config", None)
    if told is None:
        return ""
    found = told if isinstance(told, dict) else vars(told)
    method, bits = found.get("quant_method"), found.get("bits") or found.get("w_bit") or found.get("weight_bits")
    if not method:
        return ""
    name = str(getattr(method, "value", method)).upper()
    return f"{name}, {bits} bits" if isinstance(bits, int) else name
