"""Small models with random weights, made on the spot, for tests that load one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 128,
}
LLAMA_SPEC = "arch:llama?" + "&".join(f"{key}={value}" for key, value in LLAMA.items())


def save_model(folder: Path, model_type: str = "llama", auto: str = "AutoModelForCausalLM", **settings: Any) -> Any:
    """Save a random model to ``folder`` and return it."""
    import torch
    import transformers

    shape = {**LLAMA, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.AutoConfig.for_model(model_type, **(shape | {k: v for k, v in settings.items() if k != "shard"}))
    torch.manual_seed(0)
    model = getattr(transformers, auto).from_config(config)
    model.save_pretrained(folder, max_shard_size=settings.get("shard", "1GB"))
    return model.eval()


def save_tokenizer(folder: Path) -> None:
    """A tokenizer of 64 whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: number for number, word in enumerate(["[UNK]", "<s>", "</s>", *(f"w{i}" for i in range(61))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "model_max_length": 100}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def save_gguf(
    path: Path, *, with_tokenizer: bool = True, with_size: bool = True, merged: str = "th", architecture: str = "llama"
) -> None:
    """A one-block Llama as GGUF, its large matrices as Q8_0; ``merged`` other than "th" makes its tokenizer useless."""
    import gguf
    import numpy as np

    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    if with_size:
        writer.add_vocab_size(64)
    if with_tokenizer:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([*"abcdefghijklmnopqrstuvwxyz", merged, *(f"t{i}" for i in range(37))])
        writer.add_token_types([1] * 64)
        writer.add_token_merges(["t h"])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)
    shapes = {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32)}
    shapes |= {"ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64)}
    for name, shape in {"token_embd": (64, 32), **{f"blk.0.{key}": value for key, value in shapes.items()}}.items():
        data = gguf.quantize(rng.normal(0, 0.1, shape).astype(np.float32), gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
