"""Specs of tiny random models of every kind, and files for their workloads, made on the spot."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

BERT = "arch:bert?hidden_size=32&intermediate_size=64&num_hidden_layers=2&num_attention_heads=2&vocab_size=64"
TOKENS = f"{BERT}&num_labels=3&task=token-classification"
ANSWERS = f"{BERT}&task=question-answering"
T5 = "arch:t5?d_model=32&d_kv=8&d_ff=64&num_layers=2&num_heads=4&vocab_size=64"
BART = (
    "arch:bart?d_model=32&encoder_layers=2&decoder_layers=2&encoder_attention_heads=4&decoder_attention_heads=4"
    "&encoder_ffn_dim=64&decoder_ffn_dim=64&vocab_size=64&max_position_embeddings=64"
)
VIT = "arch:vit?hidden_size=32&intermediate_size=64&num_hidden_layers=2&num_attention_heads=4&image_size=32&patch_size=8"
RESNET = "arch:resnet?embedding_size=8&hidden_sizes=[8,16]&depths=[1,1]&num_labels=3"
LLAVA = (
    "arch:llava?image_seq_length=16&vision_config.hidden_size=32&vision_config.intermediate_size=64&vision_config.num_hidden_layers=2"
    "&vision_config.num_attention_heads=4&vision_config.image_size=32&vision_config.patch_size=8"
    "&text_config.hidden_size=32&text_config.intermediate_size=64&text_config.num_hidden_layers=2"
    "&text_config.num_attention_heads=4&text_config.num_key_value_heads=2&text_config.vocab_size=64"
)
SMOLVLM = LLAVA.replace("llava?image_seq_length=16", "smolvlm?scale_factor=2")
QWEN2_VL = (
    "arch:qwen2_vl?vision_config.embed_dim=32&vision_config.hidden_size=32&vision_config.depth=2&vision_config.num_heads=4"
    "&vision_config.patch_size=8&vision_config.mlp_ratio=2&text_config.hidden_size=32&text_config.intermediate_size=64"
    "&text_config.num_hidden_layers=2&text_config.num_attention_heads=4&text_config.num_key_value_heads=2"
    '&text_config.vocab_size=64&text_config.rope_parameters={"rope_type":"default","mrope_section":[1,1,2],"rope_theta":10000.0}'
)
WHISPER = (
    "arch:whisper?d_model=32&encoder_layers=2&decoder_layers=2&encoder_attention_heads=4&decoder_attention_heads=4"
    "&encoder_ffn_dim=64&decoder_ffn_dim=64&vocab_size=64&num_mel_bins=8&max_source_positions=50&max_target_positions=40"
)
WAV2VEC2 = (
    "arch:wav2vec2?hidden_size=32&intermediate_size=64&num_hidden_layers=2&num_attention_heads=4&vocab_size=32"
    "&conv_dim=[16,16,16]&conv_stride=[5,4,2]&conv_kernel=[10,8,4]&num_feat_extract_layers=3"
    "&num_conv_pos_embeddings=16&num_conv_pos_embedding_groups=4"
)
QWEN2_MOE = (
    "arch:qwen2_moe?hidden_size=32&intermediate_size=64&num_hidden_layers=2&num_attention_heads=4&num_key_value_heads=2"
    "&moe_intermediate_size=16&shared_expert_intermediate_size=24&num_experts=8&num_experts_per_tok=2&vocab_size=64"
)
MIXTRAL = (
    "arch:mixtral?hidden_size=32&intermediate_size=64&num_hidden_layers=2&num_attention_heads=4&num_key_value_heads=2"
    "&num_local_experts=4&num_experts_per_tok=1&vocab_size=64"
)


def save_wav(path: Path, seconds: float = 0.5, rate: int = 16_000, channels: int = 1, width: int = 2) -> Path:
    """A rising tone as WAV."""
    times = np.arange(round(seconds * rate)) / rate
    tone = 0.5 * np.sin(2 * np.pi * (200 + 400 * times) * times)
    whole = np.repeat((tone * 2**31 * 0.999).astype("<i4"), channels)
    data = whole.view(np.uint8).reshape(-1, 4)[:, 4 - width :]
    if width == 1:
        data = data + np.uint8(128)  # eight bits are written without a sign
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", "not compressed"))
        file.writeframes(np.ascontiguousarray(data).tobytes())
    return path


def save_image(path: Path, side: int = 40) -> Path:
    """A picture of three colours."""
    from PIL import Image

    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[: side // 2, :, 0] = 255
    pixels[:, : side // 2, 1] = 200
    Image.fromarray(pixels).save(path)
    return path
