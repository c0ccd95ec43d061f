"""Precision passes: what they cast, what keeps its dtype, the borders between, and where they are refused."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    DynamicCache,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    Qwen2MoeConfig,
    T5Config,
)

from core.config import PassConfig
from core.errors import Refusal
from core.model_parts.weights import weight_bytes
from core.models.base import ModelFacts
from core.pass_api.base import PassContext, PassReport, passes
from core.pass_api.subject import Execution, Subject
from core.planning import plan
from core.targets.base import TargetFacts
from profilers.layer_clock import LayerClock
from profilers.shallow_clone import shallow_clone
from profilers.trace import Recorder

IDS = torch.arange(12).reshape(2, 6) + 3
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 64}


def filled(config: Any, kind: Any = AutoModelForCausalLM) -> torch.nn.Module:
    torch.manual_seed(0)
    return kind.from_config(config).eval().requires_grad_(False)


def llama(**changes: Any) -> torch.nn.Module:
    kept = {"num_key_value_heads": 2, "tie_word_embeddings": True, "initializer_range": 0.2}
    return filled(LlamaConfig(**{**SIZES, **kept, **changes}))


def gpt2() -> torch.nn.Module:
    return filled(GPT2Config(n_embd=32, n_layer=4, n_head=4, vocab_size=64, n_positions=64, initializer_range=0.2))


def bert() -> torch.nn.Module:
    return filled(BertConfig(**SIZES), AutoModel)


def opt() -> torch.nn.Module:
    return filled(OPTConfig(**SIZES, ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=64, init_std=0.2))


def moe() -> torch.nn.Module:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 64}
    return filled(Qwen2MoeConfig(**SIZES, **experts, num_key_value_heads=2, initializer_range=0.2))


def t5() -> torch.nn.Module:
    sizes = {"d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 2, "num_heads": 4, "vocab_size": 64}
    return filled(T5Config(**sizes, decoder_start_token_id=0), AutoModelForSeq2SeqLM)


MODELS = {"llama": llama, "gpt2": gpt2, "bert": bert, "opt": opt, "moe": moe}


def apply(model: torch.nn.Module, pass_id: str, **options: Any) -> tuple[Subject, PassReport]:
    made = Subject(model, "text-generation", Execution(1), 16, 2)
    return made, plan.apply_all(made, [PassConfig(pass_id, options)])[0]


def likeness(model: torch.nn.Module, other: torch.nn.Module) -> float:
    first, second = (one(IDS)[0].float().flatten() for one in (model, other))
    assert torch.isfinite(second).all()
    return torch.nn.functional.cosine_similarity(first, second, dim=0).item()


def tokens(model: torch.nn.Module, **more: Any) -> list[list[int]]:
    fixed = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    return model.generate(IDS, attention_mask=torch.ones_like(IDS), **fixed, **more).tolist()


def facts(dtype: str) -> ModelFacts:
    return ModelFacts("s", "n", "a", "text-generation", 1, 4, dtype, 1, 1, 64, has_tokenizer=True)


def target(*features: str, id: str = "cpu") -> TargetFacts:
    return TargetFacts(id, id.upper(), "Example", True, threads=2, features=frozenset(features))


# -- float16 --------------------------------------------------------------------------------------------------------------


def test_float16_needs_instructions() -> None:
    check = passes.get("float16").check
    assert "no float16 instructions" in str(check(PassContext(facts("float32"), target("avx512_bf16"), frozenset())))
    assert check(PassContext(facts("float32"), target("avx512_fp16"), frozenset())) is None
    assert check(PassContext(facts("float32"), target("amx_fp16"), frozenset())) is None
    assert check(PassContext(facts("float32"), target(id="cuda"), frozenset())) is None
    assert str(check(PassContext(facts("float16"), target("avx512_fp16"), frozenset()))) == "the model is already float16"


def test_float16_equals_loading_in_float16(tmp_path: Any) -> None:
    model = llama()
    model.save_pretrained(tmp_path)
    expected = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float16).eval()
    _, report = apply(model, "float16")
    assert torch.equal(model(IDS).logits, expected(IDS).logits)
    assert model.dtype == model.config.dtype == torch.float16
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert weight_bytes(model) == weight_bytes(expected) == report.weight_bytes_after
    with pytest.raises(Refusal, match="already"):
        apply(model, "float16")


def test_float16_leaves_what_the_architecture_wants_in_float32() -> None:
    model = t5()
    apply(model, "float16")
    kept = [path for path, module in model.named_modules() if path.endswith(".wo")]
    assert kept
    assert {model.get_submodule(path).weight.dtype for path in kept} == {torch.float32}
    assert model.shared.weight.dtype == torch.float16
    assert torch.isfinite(model(input_ids=IDS, decoder_input_ids=IDS).logits).all()


# -- autocast -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_autocast_computes_in_bfloat16_and_is_undone(name: str) -> None:
    model, original = MODELS[name](), MODELS[name]()
    made, report = apply(model, "autocast")
    seen = []
    linear = next(module for module in model.modules() if type(module).__name__ in ("Linear", "Conv1D"))
    linear.register_forward_hook(lambda *given: seen.append(given[-1].dtype))
    assert likeness(original, model) > 0.99
    assert set(seen) == {torch.bfloat16}
    assert report.changed_modules > 0
    assert report.weight_bytes_after == report.weight_bytes_before
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    made.undo.close()
    assert "forward" not in model.__dict__
    assert torch.equal(model(IDS)[0], original(IDS)[0])


def test_autocast_keeps_generate_and_a_forward_that_was_there() -> None:
    model = llama()
    signature, plain = inspect.signature(model.forward), model.forward
    calls = []

    def framed(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return plain(*args, **kwargs)

    framed.__signature__ = signature  # type: ignore[attr-defined]
    model.__dict__["forward"] = framed
    made, _ = apply(model, "autocast")
    calls.clear()  # of counting its operators
    assert inspect.signature(model.forward) == signature
    assert len(tokens(model)[0]) == 10
    assert len(calls) == 4
    made.undo.close()
    assert model.__dict__["forward"] is framed


def test_autocast_to_float16_needs_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    with pytest.raises(Refusal, match="no float16 instructions"):
        apply(llama(), "autocast", dtype="float16")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_fp16": True})
    assert apply(llama(), "autocast", dtype="float16")[1].changed_modules == 29


def test_autocast_refuses_where_nothing_is_cast() -> None:
    with pytest.raises(Refusal, match="no linear layer"):
        apply(torch.nn.LayerNorm(4), "autocast")
    assert "float32 models" in str(passes.get("autocast").check(PassContext(facts("bfloat16"), target(), frozenset())))


# -- mixed precision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["0", "1-2", "3", "0+3", "0-2+lm_head"])
@pytest.mark.parametrize("name", MODELS)
def test_mixed_precision_on_each_architecture(name: str, keep: str) -> None:
    model, original = MODELS[name](), MODELS[name]()
    if name == "bert":
        keep = keep.replace("+lm_head", "+pooler")
    _, report = apply(model, "mixed_precision", keep=keep)
    assert likeness(original, model) > 0.99
    assert report.weight_bytes_after < report.weight_bytes_before
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32, torch.bfloat16}
    assert torch.equal(copy.deepcopy(model)(IDS)[0], model(IDS)[0])
    if name != "bert":
        assert tokens(model) == tokens(model, use_cache=False)


def test_kept_blocks_are_exactly_the_float32_ones() -> None:
    model, original = llama(), llama()
    _, report = apply(model, "mixed_precision", keep="1-2")
    seen = []
    for block in model.model.layers:
        block.mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    cache = DynamicCache(config=model.config)
    model(IDS, past_key_values=cache)
    sixteen, full = torch.bfloat16, torch.float32
    assert seen == [sixteen, full, full, sixteen]
    assert [layer.keys.dtype for layer in cache.layers] == [sixteen, full, full, sixteen]
    assert torch.equal(model.model.layers[1].mlp.up_proj.weight, original.model.layers[1].mlp.up_proj.weight)
    assert "blocks 1-2 in float32" in str(report.summary)


def test_between_kept_blocks_nothing_is_rounded() -> None:
    model = llama()
    apply(model, "mixed_precision", keep="1-2")
    outputs = []
    for block in model.model.layers:
        block.register_forward_hook(lambda *given: outputs.append(given[-1].dtype))
    model(IDS)
    assert outputs == [torch.bfloat16, torch.float32, torch.bfloat16, torch.bfloat16]


def test_a_kept_tied_head_keeps_its_embedding_and_the_logits() -> None:
    model = llama()
    apply(model, "mixed_precision", keep="lm_head")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.weight.dtype == model(IDS).logits.dtype == torch.float32
    assert model.model.embed_tokens(IDS).dtype == torch.bfloat16


def test_mixed_precision_by_pattern() -> None:
    model = llama()
    _, report = apply(model, "mixed_precision", keep="*.0.mlp.down_proj+norm")
    assert model.model.layers[0].mlp.down_proj.weight.dtype == torch.float32
    assert model.model.layers[1].mlp.down_proj.weight.dtype == torch.bfloat16
    assert model.model.norm.weight.dtype == torch.float32
    assert "10 layers in float32" in str(report.summary)
    assert likeness(llama(), model) > 0.99


def test_mixed_precision_is_one_graph_and_its_twin_and_clock_work() -> None:
    torch._dynamo.reset()
    model = llama(num_hidden_layers=2)
    apply(model, "mixed_precision", keep="1")
    expected = model(IDS).logits
    assert torch.equal(shallow_clone(model)(IDS).logits, expected)
    compiled = torch.compile(shallow_clone(model).forward, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(IDS).logits.float(), expected.float(), atol=0.05)
    clock, recorder = LayerClock(model), Recorder()
    clock.install()
    assert torch.equal(model(IDS).logits, expected)
    clock.remove()
    clock.collect(recorder, 0, 0, 1)
    timed = set(recorder.snapshot().spans["layer"].tolist())
    rows = {path: row for row, (path, _) in enumerate(model.named_modules())}
    assert {rows["model.layers.0"], rows["model.layers.1"], rows["model.layers.1.mlp.up_proj"]} <= timed
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        ("4", "blocks 0 to 3"),
        ("2-1", "blocks 0 to 3"),
        ("no_such", "no layer called"),
        ("model", "all of the model"),
        (" ", "empty"),
    ],
)
def test_mixed_precision_refuses(keep: str, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        apply(llama(), "mixed_precision", keep=keep)
    assert "float32 models" in str(passes.get("mixed_precision").check(PassContext(facts("float16"), target(), frozenset())))


# -- the output head ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", [PassConfig("bfloat16"), PassConfig("autocast"), PassConfig("mixed_precision")])
def test_the_head_is_given_rows_where_torch_takes_a_slow_path_for_slices(
    choice: PassConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = llama(tie_word_embeddings=False)
    made = Subject(model, "text-generation", Execution(1), 16, 1)
    (report,) = plan.apply_all(made, [choice])
    assert "is given rows instead of a slice" in str(report.notes[-1])
    head = model.lm_head
    hidden = torch.randn(1, 6, 32).to(head.weight.dtype)
    expected = torch.nn.functional.linear(hidden[:, -1:].clone(memory_format=torch.contiguous_format), head.weight)
    strides = []
    linear = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda x, *rest: strides.append(x.stride()) or linear(x, *rest))
    found = head(hidden[:, -1:])
    assert found.shape == (1, 1, 64)
    assert torch.equal(found, expected)
    assert strides == [(32, 1)]  # a slice has those of the prompt, (192, 32, 1)
    assert (type(head).__name__, isinstance(head, torch.nn.Linear)) == ("Linear", True)
    made.undo.close()
    assert type(head) is torch.nn.Linear


def test_the_head_is_left_alone_where_nothing_is_computed_in_16_bits() -> None:
    model = llama()
    (report,) = plan.apply_all(Subject(model, "text-generation", Execution(1), 16, 1), [PassConfig("threads")])
    assert type(model.lm_head) is torch.nn.Linear
    assert not any("rows instead" in note for note in map(str, report.notes))
