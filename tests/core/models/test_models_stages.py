"""Every layer of many architectures belongs to the right stage."""

from __future__ import annotations

import pytest
import torch
import transformers

from core.models.stages import layers_of
from tests.support.tiny_models import LLAMA

GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64}
MODELS = {
    "llama": ("AutoModelForCausalLM", {}),
    "qwen2": ("AutoModelForCausalLM", {}),
    "qwen3": ("AutoModelForCausalLM", {}),
    "mixtral": ("AutoModelForCausalLM", {"num_local_experts": 2}),
    "qwen2_moe": (
        "AutoModelForCausalLM",
        {"num_experts": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    ),
    "gpt_oss": ("AutoModelForCausalLM", {"num_local_experts": 2, "head_dim": 8}),
    "gemma": ("AutoModelForCausalLM", {}),
    "gemma2": ("AutoModelForCausalLM", {}),
    "opt": ("AutoModelForCausalLM", {"ffn_dim": 64, "word_embed_proj_dim": 16}),
    "phi": ("AutoModelForCausalLM", {}),
    "gpt_neox": ("AutoModelForCausalLM", {}),
    "mamba": ("AutoModelForCausalLM", {}),
    "gpt2": ("AutoModelForCausalLM", GPT),
    "gptj": ("AutoModelForCausalLM", GPT | {"rotary_dim": 4}),
    "bert": ("AutoModelForSequenceClassification", {}),
    "roberta": ("AutoModelForSequenceClassification", {}),
    "distilbert": ("AutoModel", {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4}),
    "albert": ("AutoModel", {"embedding_size": 16}),
    "t5": ("AutoModelForSeq2SeqLM", {"d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 4, "d_kv": 8}),
}


def build(name: str) -> torch.nn.Module:
    auto, settings = MODELS[name]
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    shape = special | ({"vocab_size": 64} if settings and ("n_embd" in settings or "d_model" in settings) else LLAMA)
    config = transformers.AutoConfig.for_model(name, **shape | settings)
    with torch.device("meta"):
        return getattr(transformers, auto).from_config(config)


@pytest.mark.parametrize("name", MODELS)
def test_rows_and_stages(name):
    model = build(name)
    layers = layers_of(model)
    modules = dict(model.named_modules())
    assert [layer.path for layer in layers] == list(modules)
    assert (layers[0].path, layers[0].parent) == ("", -1)
    lists = [path for path, module in modules.items() if isinstance(module, torch.nn.ModuleList)]
    for row, layer in enumerate(layers[1:], 1):
        assert layer.parent < row
        assert layers[layer.parent].path == layer.path.rpartition(".")[0]
        inside = any(layer.path.startswith(f"{path}.") for path in lists)
        if inside and ("Linear" in layer.type or "Conv1D" in layer.type):
            assert layer.stage in ("attention", "mlp"), layer
        if layer.type == "Embedding" and not inside:
            assert layer.stage == "embed", layer
        if layer.type.endswith(("DecoderLayer", "BertLayer", "GPT2Block", "T5Block")):
            assert layer.stage == "other", layer
    stages = {layer.stage for layer in layers}
    wanted = {"embed", "attention", "norm"} | (set() if name == "mamba" else {"mlp"})
    assert wanted <= stages
    output = model.get_output_embeddings()
    if output is not None:
        assert next(layer.stage for layer in layers if modules[layer.path] is output) == "head"


@pytest.mark.parametrize(
    ("name", "path", "stage"),
    [
        ("llama", "model.rotary_emb", "embed"),
        ("llama", "model.norm", "norm"),
        ("llama", "model.layers.0", "other"),
        ("qwen3", "model.layers.0.self_attn.q_norm", "attention"),
        ("mixtral", "model.layers.0.mlp.experts", "mlp"),
        ("qwen2_moe", "model.layers.1.mlp.shared_expert_gate", "mlp"),
        ("gpt_oss", "model.layers.0.mlp.router", "mlp"),
        ("gpt2", "transformer.h.0.ln_1", "norm"),
        ("gpt2", "transformer.h.0.attn.c_attn", "attention"),
        ("gpt2", "transformer.h.0.mlp.act", "mlp"),
        ("gpt2", "transformer.wpe", "embed"),
        ("opt", "model.decoder.layers.0.fc1", "mlp"),
        ("opt", "model.decoder.layers.0.self_attn_layer_norm", "norm"),
        ("opt", "model.decoder.embed_positions", "embed"),
        ("gpt_neox", "lm_head", "head"),
        ("bert", "bert.encoder.layer.0.output", "mlp"),
        ("bert", "bert.encoder.layer.0.output.LayerNorm", "norm"),
        ("bert", "bert.encoder.layer.0.attention.output.dense", "attention"),
        ("bert", "bert.pooler.dense", "head"),
        ("bert", "classifier", "head"),
        ("t5", "decoder.block.0.layer.1.EncDecAttention.q", "attention"),
        ("t5", "encoder.block.0.layer.1.layer_norm", "norm"),
    ],
)
def test_the_stage_of(name, path, stage):
    found = {layer.path: layer.stage for layer in layers_of(build(name))}
    assert found[path] == stage


def test_a_module_used_twice_is_listed_once():
    model = torch.nn.Module()
    model.a = torch.nn.Linear(2, 2)
    model.b = model.a
    assert [layer.path for layer in layers_of(model)] == ["", "a"]
