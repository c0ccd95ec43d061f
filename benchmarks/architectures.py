"""Do the models that people load run? Eighty popular architectures at tiny size, each loaded and run once as the app does it.

    python -m benchmarks.architectures [--only clip,vit] [--jobs 2] [--limit 60]

The list follows the downloads of the hub by architecture (and, for models that people load without a head, by class). Each is
made tiny by options of its own config, has random weights, and runs in a child process of its own with a limit of time. It
prints for each whether it ran, was refused (with the sentence), or failed bare, and the totals. Exit 1 if any failed bare.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

SMALL: Mapping[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "word_embed_proj_dim", "embedding_size"), 32),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim", "n_inner"), 64
    ),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers", "depth"), 2),
    **dict.fromkeys(("num_decoder_layers",), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads",), 4),
    "num_key_value_heads": 2,
    "head_dim": 8,
    "d_kv": 8,
    "vocab_size": 128,
    "num_labels": 3,
    "patch_size": 8,
    "image_size": 32,
    "num_mel_bins": 16,
    "projection_dim": 16,
}
"""What makes a model tiny, by the names that configs use; each takes what it has."""


@dataclass(frozen=True)
class Architecture:
    """One of the list: ``more`` are options beside those of ``SMALL`` (None: without that one), ``workload`` what is asked."""

    type: str
    more: Mapping[str, Any] | None = None
    workload: Mapping[str, Any] | None = None


MROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
CONVS = {
    "conv_dim": [16, 16, 16],
    "conv_stride": [5, 4, 2],
    "conv_kernel": [10, 8, 4],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
PYRAMID = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
"""Four stages, as most that read pictures at several sizes have them."""
SIDE = {"image_size": 64}

ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("llama"),
    Architecture("mistral"),
    Architecture("qwen2"),
    Architecture("qwen3"),
    Architecture("gemma"),
    Architecture("gemma2"),
    Architecture("gemma3_text"),
    Architecture("phi"),
    Architecture("phi3", {"pad_token_id": 0}),
    Architecture("gpt2"),
    Architecture("gpt_neox"),
    Architecture("gptj", {"rotary_dim": 4}),
    Architecture("gpt_neo", {"num_layers": 2, "attention_types": [[["global", "local"], 1]]}),
    Architecture("gpt_bigcode"),
    Architecture("opt"),
    Architecture("bloom"),
    Architecture("falcon"),
    Architecture("mpt"),
    Architecture("stablelm"),
    Architecture("starcoder2"),
    Architecture("olmo"),
    Architecture("olmo2"),
    Architecture("cohere"),
    Architecture("granite"),
    Architecture("smollm3"),
    Architecture("gpt_oss", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    Architecture("mixtral", {"num_local_experts": 4}),
    Architecture("qwen2_moe", {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "num_experts": 4}),
    Architecture("qwen3_moe", {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}),
    Architecture(
        "deepseek_v3",
        {
            "moe_intermediate_size": 16,
            "n_routed_experts": 8,
            "n_group": 2,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "kv_lora_rank": 8,
            "q_lora_rank": 8,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "num_key_value_heads": 4,
            "first_k_dense_replace": 1,
        },
    ),
    Architecture("mamba", {"state_size": 4, "intermediate_size": 64, "time_step_rank": 4}),
    Architecture("rwkv"),
    Architecture("bert"),
    Architecture("roberta"),
    Architecture("xlm-roberta"),
    Architecture("distilbert"),
    Architecture("albert"),
    Architecture("electra"),
    Architecture("deberta-v2"),
    Architecture("mpnet"),
    Architecture("camembert"),
    Architecture("modernbert"),
    Architecture("xlnet", {"d_inner": 64}),
    Architecture("funnel", {"block_sizes": [1, 1], "block_repeats": [1, 1], "d_head": 8, "d_inner": 64}),
    Architecture("esm", {"pad_token_id": 1, "mask_token_id": 2}),
    Architecture("longformer", {"attention_window": 8}),
    Architecture("big_bird", {"block_size": 4}),
    Architecture("layoutlm"),
    Architecture("t5"),
    Architecture("mt5"),
    Architecture("bart"),
    Architecture("mbart"),
    Architecture("pegasus"),
    Architecture("marian"),
    Architecture("m2m_100"),
    Architecture("whisper", {"max_source_positions": 50, "max_target_positions": 40}),
    Architecture("speech_to_text", {"input_feat_per_channel": 16, "conv_channels": 16}),
    Architecture("wav2vec2", CONVS),
    Architecture("hubert", CONVS),
    Architecture("wavlm", CONVS),
    Architecture("wav2vec2", {**CONVS, "task": "audio-feature-extraction"}),
    Architecture("hubert", {**CONVS, "task": "audio-classification"}),
    Architecture("audio-spectrogram-transformer", {"max_length": 32, "patch_size": 8}),
    Architecture("vit"),
    Architecture("vit", {"task": "image-feature-extraction"}),
    Architecture("deit"),
    Architecture("beit"),
    Architecture("swin", {"patch_size": 4, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}),
    Architecture("convnext", {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "patch_size": 4}),
    Architecture("resnet", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}),
    Architecture("dinov2", {"task": "image-feature-extraction"}),
    Architecture(
        "segformer", {**PYRAMID, "num_attention_heads": [1, 1, 2, 2], "decoder_hidden_size": 16, "task": "image-segmentation"}
    ),
    Architecture("detr", {"num_queries": 5}, SIDE),
    Architecture("yolos", {"image_size": [32, 32], "num_detection_tokens": 5}),
    Architecture(
        "rt_detr",
        {
            **{f"backbone_config.{name}": value for name, value in PYRAMID.items()},
            "backbone_config.embedding_size": 8,
            "backbone_config.out_features": ["stage2", "stage3", "stage4"],
            "encoder_in_channels": [8, 16, 16],
            "encoder_hidden_dim": 32,
            "encoder_layers": 1,
            "decoder_in_channels": [32, 32, 32],
            "num_queries": 5,
        },
        SIDE,
    ),
    Architecture(
        "mask2former",
        {
            "backbone_config.image_size": 64,
            "backbone_config.patch_size": 4,
            "backbone_config.embed_dim": 24,
            "backbone_config.hidden_size": None,
            "backbone_config.num_layers": None,
            "backbone_config.num_heads": [3, 3, 3, 3],
            "backbone_config.depths": [1, 1, 1, 1],
            "backbone_config.out_features": ["stage1", "stage2", "stage3", "stage4"],
            "hidden_dim": 32,
            "feature_size": 32,
            "mask_feature_size": 32,
            "num_queries": 5,
        },
        SIDE,
    ),
    Architecture(
        "sam",
        {
            "vision_config.output_channels": 32,
            "vision_config.num_pos_feats": 16,
            "vision_config.global_attn_indexes": [1],
            "vision_config.window_size": 2,
            "prompt_encoder_config.image_embedding_size": 4,
            "mask_decoder_config.mlp_dim": 64,
            "mask_decoder_config.iou_head_hidden_dim": 32,
        },
    ),
    Architecture(
        "dpt",
        {
            "num_hidden_layers": 4,
            "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [8, 8, 16, 16],
            "fusion_hidden_size": 16,
        },
    ),
    Architecture("clip"),
    Architecture("clip", {"task": "forward"}),
    Architecture("siglip", {"task": "forward"}),
    Architecture(
        "clap",
        {
            "audio_config.patch_size": 4,
            "audio_config.patch_embeds_hidden_size": 16,
            "audio_config.hidden_size": 128,
            "audio_config.depths": [1, 1, 1, 1],
            "audio_config.num_attention_heads": [1, 2, 2, 2],
            "audio_config.num_hidden_layers": None,
            "audio_config.num_mel_bins": 64,
        },
    ),
    Architecture("vilt"),
    Architecture("blip", {"text_config.encoder_hidden_size": 32}),
    Architecture("blip-2", {"num_query_tokens": 4, "qformer_config.encoder_hidden_size": 32, "image_token_index": 127}),
    Architecture("llava", {"image_seq_length": 16}),
    Architecture("llava_next", {"image_grid_pinpoints": [[32, 64], [64, 32], [64, 64]]}),
    Architecture("idefics3", {"scale_factor": 2}),
    Architecture("smolvlm", {"scale_factor": 2}),
    Architecture("qwen2_vl", {"text_config.rope_parameters": MROPE}),
    Architecture("qwen2_5_vl", {"vision_config.out_hidden_size": 32, "text_config.rope_parameters": MROPE}),
    Architecture(
        "qwen3_vl",
        {
            "vision_config.out_hidden_size": 32,
            "vision_config.deepstack_visual_indexes": [0, 1],
            "text_config.rope_parameters": MROPE,
        },
    ),
    Architecture("gemma3", {"mm_tokens_per_image": 4}),
    Architecture("paligemma", {"projection_dim": 32, "vision_config.projection_dim": 32}),
    Architecture(
        "mllama",
        {
            "vision_config.attention_heads": 4,
            "vision_config.num_global_layers": 1,
            "vision_config.intermediate_layers_indices": [0, 1],
            "vision_config.vision_output_dim": 96,
            "text_config.cross_attention_layers": [1],
        },
    ),
    Architecture("musicgen"),
)


def spec_of(architecture: Architecture) -> str:
    """``arch:TYPE?…`` of a tiny model: every field of its config, and of the config's parts, that ``SMALL`` has a value for."""
    from transformers import AutoConfig

    more = dict(architecture.more or {})
    options: dict[str, Any] = {}

    def take(config: Any, prefix: str) -> None:
        for name, value in vars(config).items():
            if hasattr(value, "attribute_map"):
                take(value, f"{prefix}{name}.")
            elif name in SMALL and not isinstance(value, bool) and (isinstance(value, int) or name == "vocab_size"):
                options[prefix + name] = SMALL[name]

    take(AutoConfig.for_model(architecture.type), "")
    options |= more
    kept = {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in options.items() if value is not None
    }
    return f"arch:{architecture.type}?{urlencode(kept)}"


def run(architecture: Architecture) -> str:
    """Load it and run it once: what ran, in a sentence. ``Refusal`` as the app says it."""
    from core.clock.gate import Gate
    from core.config import ModelConfig, RunConfig, WorkloadConfig
    from core.execution.model_slot import ModelSlot
    from core.execution.preparation import prepare, recording
    from core.progress import Progress
    from profilers.trace import KINDS

    asked = {"prompt_tokens": 8, "new_tokens": 3, "repeats": 2, "warmup": 0, "image_size": 32, "audio_seconds": 0.2}
    workload = WorkloadConfig(**(asked | dict(architecture.workload or {})))
    config = RunConfig(ModelConfig(spec_of(architecture)), workload=workload, profilers=("layer_clock",))
    holder = ModelSlot()
    holder.load(config.model, "cpu", Progress())
    prepared = prepare(config, holder, Progress())
    made = recording(config, prepared, Gate(), Progress())
    made.carry_out(prepared)
    done = made.run()
    kinds = Counter(KINDS[kind] for kind in done.trace.moments["kind"])
    facts = done.facts.model
    assert facts is not None
    count = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    return f"{facts.architecture}, {facts.task}, {facts.parameters:,} parameters: {count}"


def _child(number: int) -> dict[str, str]:
    """What became of one of the list, in this process."""
    from core.errors import Refusal

    try:
        return {"ended": "ran", "told": run(ARCHITECTURES[number])}
    except Refusal as refusal:
        return {"ended": "refused", "told": str(refusal)}
    except Exception as error:  # noqa: BLE001 - to find these is what it is for
        return {"ended": "failed", "told": f"{type(error).__name__}: {error}".strip().splitlines()[0]}


def _in_child(number: int, limit_s: float) -> dict[str, str]:
    command = [sys.executable, "-m", "benchmarks.architectures", "--child", str(number)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return {"ended": "failed", "told": f"it took longer than {limit_s:g} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"ended": "failed", "told": f"the process ended with {done.returncode}: {done.stderr.strip()[-300:]}"}
    found: dict[str, str] = json.loads(lines[-1])
    return found


def _name(architecture: Architecture) -> str:
    task = (architecture.more or {}).get("task")
    return f"{architecture.type} ({task})" if task else architecture.type


def main() -> int:
    """Run the list and print what became of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="types, with commas")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for each")
    parser.add_argument("--here", action="store_true", help="in this process, one after another (without limits; much faster)")
    parser.add_argument("--child", type=int, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        print(json.dumps(_child(arguments.child)))
        return 0
    only = set(filter(None, arguments.only.split(",")))
    numbers = [number for number, one in enumerate(ARCHITECTURES) if not only or one.type in only]
    start = time.perf_counter()
    with ThreadPoolExecutor(1 if arguments.here else arguments.jobs) as pool:
        ended = pool.map(_child if arguments.here else lambda number: _in_child(number, arguments.limit), numbers)
        totals: Counter[str] = Counter()
        for number, found in zip(numbers, ended, strict=True):
            totals[found["ended"]] += 1
            print(f"{found['ended']:8} {_name(ARCHITECTURES[number]):42} {found['told']}", flush=True)
    told = ", ".join(f"{totals[kind]} {kind}" for kind in ("ran", "refused", "failed"))
    print(f"{len(numbers)} architectures in {time.perf_counter() - start:.0f} s: {told}")
    return 1 if totals["failed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
