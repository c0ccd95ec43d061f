"""Folders whose weights are packed: as many parameters as the model really has, and the bytes that they really take."""

from __future__ import annotations

import json
import struct
from math import prod
from pathlib import Path
from typing import Any

import pytest

from core.config import ModelConfig
from core.models import catalog
from core.models.memory import HEADROOM_BYTES, fit
from core.models.packed import told
from tests.support.tiny_models import LLAMA

BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "I64": 8, "U8": 1, "I8": 1, "F8_E4M3": 1}
HEAD = "model.layers.0.self_attn.q_proj"
PLAIN = {"model.embed_tokens.weight": ("BF16", (64, 32))}

PACKED: dict[str, tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...]]]]] = {
    "GPTQ 4-bit": (
        {"quant_method": "gptq", "bits": 4, "group_size": 32},
        {
            f"{HEAD}.qweight": ("I32", (4, 32)),
            f"{HEAD}.qzeros": ("I32", (1, 4)),
            f"{HEAD}.scales": ("F16", (1, 32)),
            f"{HEAD}.g_idx": ("I32", (32,)),
        },
    ),
    "GPTQ 8-bit": (
        {"quant_method": "gptq", "bits": 8},
        {f"{HEAD}.qweight": ("I32", (8, 32)), f"{HEAD}.scales": ("F16", (1, 32))},
    ),
    "AWQ 4-bit": (
        {"quant_method": "awq", "bits": 4},
        {f"{HEAD}.qweight": ("I32", (32, 4)), f"{HEAD}.qzeros": ("I32", (1, 4)), f"{HEAD}.scales": ("F16", (1, 32))},
    ),
    "BITSANDBYTES 4-bit": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {
            f"{HEAD}.weight": ("U8", (512, 1)),
            f"{HEAD}.weight.absmax": ("F32", (16,)),
            f"{HEAD}.weight.quant_map": ("F32", (16,)),
            f"{HEAD}.weight.quant_state.bitsandbytes__nf4": ("U8", (80,)),
        },
    ),
    "BITSANDBYTES 8-bit": (
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        {f"{HEAD}.weight": ("I8", (32, 32)), f"{HEAD}.SCB": ("F32", (32,)), f"{HEAD}.weight_format": ("U8", ())},
    ),
    "COMPRESSED-TENSORS": (
        {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4}}}},
        {
            f"{HEAD}.weight_packed": ("I32", (32, 4)),
            f"{HEAD}.weight_scale": ("BF16", (32, 1)),
            f"{HEAD}.weight_shape": ("I64", (2,)),
        },
    ),
    "FP8": (
        {"quant_method": "fp8"},
        {f"{HEAD}.weight": ("F8_E4M3", (32, 32)), f"{HEAD}.weight_scale_inv": ("F32", (1, 1))},
    ),
}


def save(folder: Path, tensors: dict[str, tuple[str, tuple[int, ...]]], packing: dict[str, Any]) -> int:
    """A folder of these tensors, all zero; returns their bytes."""
    header, at = {}, 0
    for name, (dtype, shape) in tensors.items():
        end = at + BYTES[dtype] * prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **LLAMA, "num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps(config | ({"quantization_config": packing} if packing else {})))
    return at


@pytest.mark.parametrize("name", list(PACKED))
def test_packed_weights_are_counted_as_the_numbers_they_stand_for(name, tmp_path):
    packing, tensors = PACKED[name]
    held = save(tmp_path, PLAIN | tensors, packing)
    facts = catalog.describe(ModelConfig(str(tmp_path)))
    assert facts.parameters == 64 * 32 + 32 * 32
    assert facts.weight_bytes == held
    assert facts.packed
    assert facts.stored_as == f"safetensors {name}"
    needed = fit(facts, "float32", 1 << 40).needed_bytes
    assert needed is not None
    assert needed - HEADROOM_BYTES < 4 * facts.parameters  # not what they would take unpacked


def test_whole_numbers_of_a_plain_model_are_no_weights(tmp_path):
    save(tmp_path, PLAIN | {"position_ids": ("I64", (1, 512)), "some.qweight": ("I32", (4, 4))}, {})
    facts = catalog.describe(ModelConfig(str(tmp_path)))
    assert (facts.parameters, facts.packed, facts.stored_as) == (64 * 32, False, "safetensors bfloat16")
    assert facts.weight_bytes == 4 * 64 * 32  # as float32, which was asked for


@pytest.mark.parametrize("settings", [{"bits": "four"}, {"bits": [4]}, {"quant_method": None}, {"quant_method": {"a": 1}}])
def test_odd_settings_are_told_all_the_same(settings):
    assert told(settings)
