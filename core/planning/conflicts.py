"""Which passes exclude each other, and why; the only such table."""

from __future__ import annotations

from core.pass_api.base import passes

PRUNING = frozenset({"layer_drop", "mlp_width", "head_removal", "sparse_mask", "heal"})
CASTS = frozenset({"bfloat16", "float16", "autocast", "mixed_precision"})
QUANTIZERS = frozenset(
    {"int8_dynamic", "int8_weight_only", "int4_weight_only", "float8_weight_only", "bitsandbytes", "group_quant"}
)
SPECULATIVE = frozenset({"prompt_lookup", "assistant", "early_exit"})
CACHES = frozenset({"kv_cache", "compile_decode"})
COMPILERS = frozenset({"compile_decode", "compile_forward"})
ENGINES = frozenset({"onnxruntime", "openvino", "aot_inductor", "llama_cpp"})
TORCH_ONLY = frozenset(
    {
        *("attention", "merge_projections", "autocast", "mixed_precision", "kv_cache", "chunked_prefill"),
        *("long_text", "continuous_batching", "offload"),
        *SPECULATIVE,
        *QUANTIZERS,
        *COMPILERS,
    }
)

CONFLICTS: tuple[tuple[frozenset[str], frozenset[str], str], ...] = (
    (QUANTIZERS, QUANTIZERS, "both replace the same layers"),
    (CASTS, CASTS, "both set the precision"),
    (frozenset({"autocast"}), QUANTIZERS | COMPILERS, "autocast would cast what they replace"),
    (SPECULATIVE, SPECULATIVE, "one way of guessing tokens at a time"),
    (SPECULATIVE, CACHES, "guessed tokens that are refused cannot be taken back out of a static or quantised cache"),
    (SPECULATIVE, frozenset({"chunked_prefill", "continuous_batching"}), "generate knows one or the other"),
    (frozenset({"kv_cache"}), frozenset({"compile_decode"}), "compiled decode brings a static cache of its own"),
    (
        frozenset({"continuous_batching"}),
        CACHES | COMPILERS | frozenset({"chunked_prefill", "attention"}),
        "it has its own paged cache, attention and schedule",
    ),
    (frozenset({"continuous_batching"}), frozenset({"autocast", "mixed_precision"}), "its paged cache has one precision"),
    (frozenset({"chunked_prefill"}), frozenset({"kv_cache"}), "a chunk would not fit the cache's shape"),
    (frozenset({"offload"}), COMPILERS | QUANTIZERS, "it moves plain weights in and out"),
    (ENGINES, ENGINES, "one engine runs the model"),
    (ENGINES, TORCH_ONLY, "another engine runs the model, which knows nothing of it"),
    (frozenset({"llama_cpp"}), PRUNING | CASTS, "llama.cpp runs its own file, not the changed model"),
    (frozenset({"onnxruntime", "openvino"}), CASTS, "it has a precision of its own, which is an option"),
)
"""Rows of two groups and why no pass of one goes with another of the other."""


def conflict(one: str, other: str) -> str | None:
    """Why the two passes exclude each other, or None."""
    for these, those, why in CONFLICTS:
        if (one in these and other in those) or (one in those and other in these):
            return why
    return None


def clause(one: str, others: frozenset[str]) -> str | None:
    """Why a pass cannot be on beside others: a short clause, or None."""
    for other in sorted(others):
        if (why := conflict(one, other)) is not None:
            return f"conflicts with {passes.get(other).title} ({why})"
    return None
