"""Tests of what passes say about each other: every pair that ever excluded each other does, with its sentence, and no other."""

from __future__ import annotations

import ast
from itertools import product

from core.messages.reason import Reason
from core.pass_api.base import passes
from core.planning.conflicts import clause, conflict
from tests.support.sources import modules

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


def expected(one: str, other: str) -> str | None:
    for these, those, why in CONFLICTS:
        if (one in these and other in those) or (one in those and other in these):
            return why
    return None


def said(why: Reason | None) -> str | None:
    return None if why is None else str(why)


def test_every_pair_is_excluded_with_the_sentence_of_the_table_or_not_at_all() -> None:
    known = [one.id for one in passes]
    pairs = list(product(known, known))
    assert {pair: said(conflict(*pair)) for pair in pairs} == {pair: expected(*pair) for pair in pairs}
    assert sum(expected(*pair) is not None for pair in pairs) > 300


def test_a_pass_of_another_version_conflicts_with_none() -> None:
    assert conflict("bfloat16", "of_another_version") is None
    assert conflict("of_another_version", "bfloat16") is None
    assert (
        said(clause("bfloat16", frozenset({"of_another_version", "float16"})))
        == "conflicts with float16 (both set the precision)"
    )


# -- nobody above knows a pass by its id ------------------------------------------------------------------------------------

MEAN_SOMETHING_ELSE = frozenset(
    {
        *("bfloat16", "float16"),  # dtypes
        *("attention", "kv_cache", "threads", "allocator"),  # a stage, a kind of memory, facts
        *("bitsandbytes", "onnxruntime", "openvino", "llama_cpp"),  # packages
    }
)
"""Ids of passes that are words of their own; as a pass they may not be asked for either."""


ASKED = ("id", "ids", "pass_id", "pass_ids", "others")
"""What variables and attributes with ids of passes are called."""


def compared_with_an_id(node: ast.AST, names: set[str]) -> bool:
    """As in ``one.id == "threads"``, ``"threads" in ids`` and ``passes.get("threads")``."""
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        asked = any(getattr(side, "attr", getattr(side, "id", None)) in ASKED for side in sides)
        words = {one.value for side in sides for one in ast.walk(side) if isinstance(one, ast.Constant)}
        return asked and not names.isdisjoint(words)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("get", "find"):
        of_passes = isinstance(node.func.value, ast.Name) and node.func.value.id in ("passes", "plan")
        return of_passes and any(isinstance(one, ast.Constant) and one.value in names for one in node.args)
    return False


def test_no_id_of_a_pass_stands_above_the_passes() -> None:
    ids = {one.id for one in passes}
    assert ids >= MEAN_SOMETHING_ELSE
    plain = ids - MEAN_SOMETHING_ELSE
    found = []
    for name, _, tree in modules():
        if name.startswith("core/passes/"):
            continue
        for node in ast.walk(tree):
            said = isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in plain
            if said or compared_with_an_id(node, ids):
                found.append(f"{name}:{node.lineno}")  # type: ignore[attr-defined]
    assert found == []


def test_the_search_for_ids_finds_them() -> None:
    told = ["choice.id == 'threads'", "'kv_cache' in context.others or 'kv_cache' in others", "passes.get('attention')"]
    for text in told:
        assert any(compared_with_an_id(node, {"threads", "kv_cache", "attention"}) for node in ast.walk(ast.parse(text))), text
