"""Passes: each on tiny random models, with what it reports, refuses and leaves behind."""

from __future__ import annotations

import copy
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, GPT2Config, LlamaConfig

import core.passes
from core import torch_private
from core.compiled.step_graph import StepGraph
from core.config import PassConfig
from core.errors import Refusal
from core.messages.reason import of_text
from core.model_parts.linears import as_linear, linear_paths
from core.model_parts.weights import weight_bytes
from core.models.base import ModelFacts
from core.pass_api.base import PassContext, PassReport, Phase, passes
from core.pass_api.exclusions import Group
from core.pass_api.options import parse
from core.pass_api.subject import Execution, Subject
from core.passes import compiling, layer_drop
from core.planning import plan
from core.planning.conflicts import clause, conflict
from core.planning.kernels import as_run, is_gemm, kernels_by_layer
from core.targets.base import TargetFacts

CPU = TargetFacts("cpu", "CPU", "Example CPU", True, threads=2)
CUDA = TargetFacts("cuda", "CUDA", "Example GPU", True)
IDS = torch.arange(12).reshape(2, 6) + 3


def llama(**changes: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 64}
    config = LlamaConfig(
        **{**sizes, "num_key_value_heads": 2, "tie_word_embeddings": True, "initializer_range": 0.2, **changes}
    )
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def gpt2() -> torch.nn.Module:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=32, n_layer=3, n_head=4, vocab_size=64, n_positions=64, initializer_range=0.2)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_()  # they start as zero, which would hide a lost bias
    return model


def bert() -> torch.nn.Module:
    torch.manual_seed(0)
    config = BertConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, vocab_size=64)
    return AutoModel.from_config(config).eval().requires_grad_(False)


def subject(model: torch.nn.Module, task: str = "text-generation") -> Subject:
    return Subject(model, task, Execution(torch.get_num_threads()), 16, 2)


def facts(**changes: Any) -> ModelFacts:
    known = {"spec": "s", "name": "n", "architecture": "a", "task": "text-generation", "parameters": 1, "layers": 4}
    rest = {"dtype": "float32", "weight_bytes": 1, "file_bytes": 1, "context_length": 64, "has_tokenizer": True}
    return ModelFacts(**{**known, **rest, **changes})


def tokens(model: torch.nn.Module, count: int = 8, **arguments: Any) -> list[list[int]]:
    fixed = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, "pad_token_id": 0}
    return model.generate(IDS, attention_mask=torch.ones_like(IDS), **fixed, **arguments).tolist()


def apply(model: torch.nn.Module, *choices: PassConfig | str, task: str = "text-generation"):
    """Apply and return (subject, reports)."""
    made = subject(model, task)
    return made, plan.apply_all(made, [PassConfig(one) if isinstance(one, str) else one for one in choices])


def likeness(model: torch.nn.Module, other: torch.nn.Module) -> float:
    """Cosine of two models' outputs for the same tokens."""
    first, second = (one(IDS)[0].float().flatten() for one in (model, other))
    assert torch.isfinite(second).all()
    return torch.nn.functional.cosine_similarity(first, second, dim=0).item()


# -- the registry and the plan --------------------------------------------------------------------------------------------


def test_every_pass_file_is_registered_and_every_pass_has_a_file() -> None:
    folder = Path(core.passes.__file__).parent
    files = {path.stem for path in folder.glob("*.py") if "@passes.register" in path.read_text()}
    assert files == {one.id for one in passes}
    named = {name for one in passes for exclusion in one.excludes for name in exclusion.of}
    assert named <= files | set(Group)  # an exclusion of a pass that is not there would exclude nothing


def test_every_option_has_a_label_and_a_help() -> None:
    for one in passes:
        for field in () if one.options is None else fields(one.options):
            assert field.metadata["label"], (one.id, field.name)
            assert field.metadata["help"], (one.id, field.name)
        parse(one, {})  # every option has a default


def test_order_is_by_phase_not_by_click() -> None:
    clicked = ["compile_decode", "int8_weight_only", "threads", "bfloat16", "layer_drop"]
    expected = ["threads", "layer_drop", "bfloat16", "int8_weight_only", "compile_decode"]
    assert [one.id for one in plan.order(map(PassConfig, clicked))] == expected
    assert [one.id for one in plan.order(map(PassConfig, reversed(clicked)))] == expected


def test_applied_in_phase_order_whatever_the_clicks() -> None:
    first, one_way = apply(llama(), "bfloat16", "layer_drop")
    second, other_way = apply(llama(), "layer_drop", "bfloat16")
    assert [report.id for report in one_way] == [report.id for report in other_way] == ["layer_drop", "bfloat16"]
    assert torch.equal(first.model(IDS).logits, second.model(IDS).logits)


def test_reasons_know_model_target_and_other_passes() -> None:
    nothing = plan.reasons(None, CPU, ())
    assert set(nothing) == {one.id for one in passes}
    assert nothing["bfloat16"] is None
    assert str(plan.reasons(facts(dtype="bfloat16"), CPU, ())["bfloat16"]) == "the model is already bfloat16"
    assert str(plan.reasons(facts(), CUDA, ())["int8_dynamic"]) == "its kernels are for the CPU"
    assert plan.reasons(facts(), CUDA, ())["threads"] is not None
    assert str(plan.reasons(facts(task="embedding"), CPU, ())["compile_decode"]) == "only text generation decodes"
    assert str(plan.reasons(facts(layers=1), CPU, ())["layer_drop"]) == "the model has a single block"
    with_int8 = plan.reasons(facts(), CPU, ["int8_weight_only"])
    assert str(with_int8["int8_dynamic"]) == "conflicts with int8 weights (both replace the same layers)"
    assert with_int8["int8_weight_only"] is None


def test_conflicts_are_symmetrical() -> None:
    known = [one.id for one in passes]
    for left in known:
        for right in known:
            if left != right:
                there, back = clause(left, frozenset({right})), clause(right, frozenset({left}))
                assert (there is None) == (back is None) == (conflict(left, right) is None)


def test_no_compiler_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert str(passes.get("compile_decode").check(PassContext(None, CPU, frozenset()))) == (
        "needs a C++ compiler (no-such-compiler is not installed)"
    )


def test_conflicting_choices_are_refused_before_anything_changes() -> None:
    model = llama()
    with pytest.raises(Refusal, match="conflicts with"):
        apply(model, "int8_weight_only", "int8_dynamic")
    with pytest.raises(Refusal, match="switch it off"):
        plan.refuse_impossible([PassConfig("int8_dynamic")], facts(), CUDA)
    assert model.dtype == torch.float32


def test_unknown_pass_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Refusal, match="layer_drop"):
        plan.order([PassConfig("int3")])


@pytest.mark.parametrize(
    ("pass_id", "given", "expected"),
    [
        ("threads", {"count": "1"}, {"count": 1}),
        ("int8_dynamic", {"include_head": "no", "granularity": "channel"}, {"include_head": False, "granularity": "channel"}),
        ("compile_decode", {"freezing": True}, {"freezing": True, "mode": "default"}),
        ("layer_drop", {"layers": "1-2+3"}, {"layers": "1-2+3"}),
    ],
)
def test_options_are_coerced(pass_id: str, given: dict[str, Any], expected: dict[str, Any]) -> None:
    options = parse(passes.get(pass_id), given)
    assert {name: getattr(options, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("pass_id", "given", "says"),
    [
        ("threads", {"count": "many"}, "whole number from 1 to"),
        ("threads", {"count": 0}, "whole number from 1 to"),
        ("threads", {"count": "1.5"}, "whole number from 1 to"),
        ("threads", {"threads": 1}, "it has count"),
        ("bfloat16", {"x": 1}, "it has none"),
        ("int8_dynamic", {"include_head": "maybe"}, "true or false"),
        ("int8_dynamic", {"granularity": "row"}, "tensor or channel"),
        ("layer_drop", {"layers": "last"}, "block numbers"),
        ("layer_drop", {"layers": " "}, "block numbers"),
    ],
)
def test_bad_options_are_refused_naming_the_good_ones(pass_id: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(Refusal, match=says):
        parse(passes.get(pass_id), given)


# -- weights and kernels --------------------------------------------------------------------------------------------------


def test_tied_weights_count_once() -> None:
    tied, untied = llama(), llama(tie_word_embeddings=False)
    parameters = sum(parameter.numel() for parameter in tied.parameters())
    buffers = sum(buffer.nbytes for buffer in tied.buffers())
    assert weight_bytes(tied) == parameters * 4 + buffers
    assert weight_bytes(untied) == weight_bytes(tied) + 64 * 32 * 4


def ran(module: torch.nn.Module, call: Callable[[], object]) -> tuple[str, ...]:
    """Names of the kernels that ran, most frequent first."""
    by_layer = kernels_by_layer(Subject(module, "text-generation", Execution(1), 8, 1), call)
    return tuple(name for name, _ in sum(by_layer.values(), Counter()).most_common())


def test_kernels_are_the_innermost_ones() -> None:
    linear = torch.nn.Linear(8, 8)
    names = ran(
        torch.nn.Sequential(linear),
        lambda: (linear(torch.ones(2, 8)), linear(torch.ones(2, 8)), torch.bmm(*torch.ones(2, 1, 4, 4))),
    )
    assert "aten::linear" not in names
    assert names[-1] == "aten::bmm"
    assert any("mm" in name or "linear" in name for name in names[:1])


def test_names_of_matrix_kernels() -> None:
    yes = ["aten::mm", "aten::addmm", "mkldnn::_linear_pointwise", "quantized::linear_dynamic", "mkl::_mkl_linear"]
    for name in [*yes, "aten::_weight_int8pack_mm", "aten::_int_mm", "ampere_sgemm_128x64_tn", "aten::matmul"]:
        assert is_gemm(name), name
    for name in ["aten::add", "cpp_fused_mm_0", "aten::comma", "aten::empty", "aten::softmax", "aten::layer_norm"]:
        assert not is_gemm(name), name


def test_each_pass_reports_the_kernels_of_the_modules_it_changed_last() -> None:
    model = llama(num_hidden_layers=2)
    made = subject(model)
    choices = [PassConfig("bfloat16"), PassConfig("int8_weight_only", {"include_head": False})]
    reports = plan.apply_all(made, choices, lambda: tokens(model, 2))
    kernels = {report.id: report.kernels for report in reports}
    assert "aten::_weight_int8pack_mm" in kernels["int8_weight_only"], "for one new token; the prompt's is another"
    assert "aten::_weight_int8pack_mm" not in kernels["bfloat16"]
    assert kernels["bfloat16"], "the head, which int8 leaves alone"
    assert made.changed_by["lm_head"] == "bfloat16"
    assert made.changed_by["model.layers.0.mlp.up_proj"] == "int8_weight_only"


def test_kernels_outside_of_changed_modules_are_the_precisions() -> None:
    reports = [PassReport("bfloat16", "", {}, 1, of_text("")), PassReport("int8_weight_only", "", {}, 1, of_text(""))]
    ran = {"a.attn": {"aten::bmm": 1}, "a.up.inner": {"x": 3}, "": {"aten::mm": 9}}
    found = plan.credited(reports, ran, {"a.up": "int8_weight_only"})
    assert [report.kernels for report in found] == [("aten::mm", "aten::bmm"), ("x",)], "most frequent first"
    whole = plan.credited(reports, {"": {"graph_mm": 1}}, {"a.up": "int8_weight_only"})
    assert [report.kernels for report in whole] == [("graph_mm",), ("graph_mm",)]


# -- bfloat16 -------------------------------------------------------------------------------------------------------------


def test_bfloat16_equals_loading_in_bfloat16(tmp_path: Path) -> None:
    model = llama()
    model.save_pretrained(tmp_path)
    expected = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    _, (report,) = apply(model, "bfloat16")
    assert torch.equal(model(IDS).logits, expected(IDS).logits)
    assert model.dtype == model.config.dtype == torch.bfloat16
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert weight_bytes(model) == weight_bytes(expected) == report.weight_bytes_after
    assert report.weight_bytes_after < 0.52 * report.weight_bytes_before
    assert str(report.summary) == f"{report.changed_modules} modules → bfloat16, 153 KiB → 76.6 KiB"
    assert report.apply_ns > 0


def test_bfloat16_twice_is_refused() -> None:
    with pytest.raises(Refusal, match="already"):
        apply(llama().to(torch.bfloat16), "bfloat16")


# -- int8 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pass_id", ["int8_dynamic", "int8_weight_only"])
def test_int8_does_not_skip_gpt2s_transposed_layers(pass_id: str) -> None:
    model = gpt2()
    _, (report,) = apply(model, pass_id)
    assert report.changed_modules == 3 * 4 + 1
    assert likeness(gpt2(), model) > 0.98
    assert report.weight_bytes_after < 0.5 * report.weight_bytes_before


def test_transposed_layer_becomes_the_same_linear_layer() -> None:
    layer = gpt2().transformer.h[0].attn.c_attn
    linear = as_linear(layer)
    x = torch.randn(3, 32)
    assert torch.allclose(layer(x), linear(x), atol=1e-6)
    assert (linear.in_features, linear.out_features) == (32, 96)


@pytest.mark.parametrize("pass_id", ["int8_dynamic", "int8_weight_only"])
def test_int8_bert(pass_id: str) -> None:
    model = bert()
    _, (report,) = apply(model, pass_id, task="embedding")
    assert report.changed_modules == 3 * 6 + 1
    assert likeness(bert(), model) > 0.98


@pytest.mark.parametrize("pass_id", ["int8_dynamic", "int8_weight_only"])
def test_int8_refuses_where_there_is_nothing_to_change(pass_id: str) -> None:
    with pytest.raises(Refusal, match="no linear layer"):
        apply(llama(), PassConfig(pass_id, {"skip": "proj lm_head"}))


def test_int8_weights_llama() -> None:
    model, original = llama(), llama()
    made = subject(model)
    (report,) = plan.apply_all(made, [PassConfig("int8_weight_only")], lambda: tokens(model, 2))
    assert report.changed_modules == 29
    assert "aten::_weight_int8pack_mm" in report.kernels
    assert report.weight_bytes_after < 0.45 * report.weight_bytes_before
    assert model(IDS).logits.dtype == torch.float32
    assert likeness(original, model) > 0.995


def test_int8_weights_after_bfloat16() -> None:
    model, original = llama(), copy.deepcopy(llama()).to(torch.bfloat16)
    apply(model, "int8_weight_only", "bfloat16")
    assert model(IDS).logits.dtype == torch.bfloat16
    assert likeness(original, model) > 0.99


def test_subclasses_of_linear_are_left_alone() -> None:
    attention = torch.nn.MultiheadAttention(8, 2)  # reads out_proj.weight itself
    assert linear_paths(attention, include_head=True) == []


# -- layer drop -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "task"), [(llama, "text-generation"), (gpt2, "text-generation"), (bert, "embedding")])
def test_layer_drop_removes_and_renumbers(make: Any, task: str) -> None:
    model = make()
    _, blocks = layer_drop.find_blocks(model)
    count = len(blocks)
    first, last = blocks[0], blocks[count - 1]
    _, (report,) = apply(model, PassConfig("layer_drop", {"layers": f"1-{count - 2}"}), task=task)
    _, left = layer_drop.find_blocks(model)
    assert list(left) == [first, last]
    assert model.config.num_hidden_layers == 2
    numbered = [module.layer_idx for module in last.modules() if isinstance(getattr(module, "layer_idx", None), int)]
    assert set(numbered) <= {1}
    assert report.changed_modules == count - 2
    assert report.weight_bytes_after < report.weight_bytes_before
    assert torch.isfinite(model(IDS)[0]).all()
    if task == "text-generation":
        assert numbered
        assert tokens(model, 4) == tokens(model, 4, use_cache=False)  # the cache's numbering is right


def test_layer_drop_equals_a_model_without_those_blocks() -> None:
    model, expected = llama(), llama()
    apply(model, PassConfig("layer_drop", {"layers": "1"}))
    hidden = expected.model.embed_tokens(IDS)
    positions = expected.model.rotary_emb(hidden, torch.arange(6)[None])
    for number in (0, 2, 3):
        hidden = expected.model.layers[number](hidden, position_embeddings=positions, attention_mask=None)
    assert torch.allclose(model(IDS).logits, expected.lm_head(expected.model.norm(hidden)), atol=1e-5)


def test_layer_drop_shortens_lists_of_the_configuration() -> None:
    model = llama()
    model.config.layer_types = ["full_attention", "a", "b", "c"]
    layer_drop._shorten(model.config, [0, 3], 4)
    assert model.config.layer_types == ["full_attention", "c"]


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [("auto", 30, [15, 16, 17]), ("auto", 2, [1]), ("1,3-4", 6, [1, 3, 4]), ("4+1 0", 6, [0, 1, 4])],
)
def test_layer_numbers(text: str, count: int, expected: list[int]) -> None:
    assert layer_drop.numbers(text, count) == expected


@pytest.mark.parametrize(("text", "says"), [("0-3", "all 4 blocks"), ("4", "blocks 0 to 3"), ("3-1", "blocks 0 to 3")])
def test_layer_numbers_out_of_range_are_refused(text: str, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        layer_drop.numbers(text, 4)


def test_ranges_read_well() -> None:
    assert layer_drop.ranges([1, 2, 3, 5, 7, 8]) == "1-3, 5, 7-8"


# -- threads --------------------------------------------------------------------------------------------------------------


def test_threads_are_set_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    made, (report,) = apply(torch.nn.Linear(2, 2), PassConfig("threads", {"count": 1}))
    assert torch.get_num_threads() == made.execution.threads == 1
    assert report.changed_modules == 0
    made.undo.close()
    assert torch.get_num_threads() == made.execution.threads == before


# -- compiled decode ------------------------------------------------------------------------------------------------------


def test_compile_decode_refuses_encoders() -> None:
    with pytest.raises(Refusal, match="text generation"):
        apply(bert(), "compile_decode", task="embedding")


def test_compiled_decode_has_one_graph_and_the_same_tokens() -> None:
    model = llama(num_hidden_layers=1)
    expected = tokens(model)
    events, spent = len(torch_private.compiled_frames()), compiling.compile_ns() or 0
    made, (report,) = apply(model, "compile_decode")
    assert report.changed_modules == 1
    with as_run(made):
        shorter = tokens(model, 2, **made.execution.generation)
        assert shorter[0][-1] == expected[0][7]  # the probe's shorter request: the same graph
        assert len(torch_private.compiled_frames()) == events + 1
        first_ns = compiling.compile_ns()
        assert first_ns is not None
        assert first_ns - spent > 1e8
        for _ in range(2):
            assert tokens(model, **made.execution.generation) == expected
    assert len(torch_private.compiled_frames()) == events + 1
    assert compiling.compile_ns() == first_ns
    assert "forward" not in model.__dict__
    made.undo.close()
    assert made.execution.generation == {}
    assert made.execution.step is None
    assert len(torch_private.compiled_frames()) == events + 1  # forgetting graphs does not turn the counter back
    assert tokens(model) == expected


def test_one_token_prompt_is_a_prefill_and_never_compiled() -> None:
    from transformers import StaticCache

    model = llama()
    cache = StaticCache(config=model.config, max_cache_len=8)
    graph = StepGraph(lambda **_: "plain", model, {}, None, freezing=True)
    graph.run = lambda **_: "compiled"
    decode = compiling._clean(graph, "compile_decode")
    assert decode(past_key_values=cache) == "plain"
    model(IDS[:, :1], past_key_values=cache)
    assert all("_dynamo_static_input_type" in vars(layer.keys) for layer in cache.layers)
    assert decode(past_key_values=cache) == "compiled"
    # freezing would otherwise bake this request's cache into the graph
    assert not any("_dynamo_static_input_type" in vars(layer.keys) for layer in cache.layers)


def test_a_step_that_breaks_the_graph_is_refused_in_one_sentence() -> None:
    model = llama()
    made = subject(model)
    model.lm_head.forward = torch.compiler.disable(model.lm_head.forward)
    plan.apply_all(made, [PassConfig("compile_decode")])
    with as_run(made), pytest.raises(Refusal, match="switch the pass compile_decode off"):
        tokens(model, 2, **made.execution.generation)
    made.undo.close()


def test_compile_counter_without_dynamo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch._dynamo.utils", raising=False)
    assert len(torch_private.compiled_frames()) == 0
    assert compiling.compile_ns() is None


def test_phases_of_the_passes() -> None:
    assert passes.get("threads").phase == Phase.PROCESS
    assert passes.get("compile_decode").phase == Phase.COMPILE
    assert not passes.get("compile_decode").changes_weights
