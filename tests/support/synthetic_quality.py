"""Made-up quality costs, a session of runs that differ in speed and cost, and a catalogue of passes that need no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from core.config import PassConfig, QualityConfig
from core.errors import Refusal
from core.messages.reason import Reason, of_text
from core.pass_api.base import PassReport, Phase
from core.records.run import Estimate, Quality, Run
from tests.support.synthetic import synthetic_run

BASELINE = "float32 as loaded from GGUF Q4_1"
TITLES = {"int8_weight_only": "int8 weights", "compile_decode": "Compiled decode", "layer_drop": "Layer drop"}


def language_quality(kld: float = 0.012, *, lossless: bool | None = None, layers: Mapping[str, float | None] | None = None):
    """What a language model's passes cost."""
    figures = {
        "kld_mean": Estimate(kld, kld / 12),
        "kld_p99": Estimate(9 * kld, None),
        "same_top": Estimate(1 - min(0.5, 3.3 * kld), 0.006),
    }
    return Quality(figures, "shipped text", 1024, BASELINE, layers or {}, lossless)


def layer_errors(run: Run) -> dict[str, float | None]:
    """Signal-to-noise of each linear layer: falling with depth, the norms exact, one of them the worst."""
    rng = np.random.default_rng(7)
    found: dict[str, float | None] = {}
    for number, layer in enumerate(run.trace.layers):
        if layer.stage == "norm":
            found[layer.path] = None
        elif layer.type == "Linear":
            found[layer.path] = 44.0 - 18 * number / len(run.trace.layers) + float(rng.normal(0, 1.5))
    found["model.layers.3.mlp.down_proj"] = 11.8
    return found


def with_passes(run: Run, *passes: str, quality: Quality | None = None, **report: Any) -> Run:
    """The run as if these passes had been on."""
    reports = tuple(
        PassReport(one, TITLES.get(one, one), {}, 211, of_text(f"211 modules changed by {one}"), **report) for one in passes
    )
    config = replace(
        run.config, passes=tuple(PassConfig(one) for one in passes), quality=QualityConfig() if quality is not None else None
    )
    return replace(run, config=config, facts=replace(run.facts, passes=reports, quality=quality))


def session_runs(blocks: int = 4, new_tokens: int = 16) -> list[Run]:
    """A session: unoptimized, several optimized, one lossless, one of another model, one without quality."""
    plan: list[tuple[str, float, tuple[str, ...], float | None, bool | None]] = [
        ("baseline", 1.0, (), None, None),
        ("bf16", 0.62, ("bfloat16",), 0.00021, None),
        ("int8", 0.45, ("int8_weight_only",), 0.012, None),
        ("int8 compiled", 0.24, ("bfloat16", "int8_weight_only", "compile_decode"), 0.0138, None),
        ("compiled", 0.5, ("compile_decode",), 0.0, True),
        ("dropped", 0.85, ("layer_drop",), 0.41, None),
        ("int4", 0.2, ("int4_weight_only", "compile_decode"), 0.093, None),
        ("not judged", 0.6, ("threads",), None, None),
    ]
    runs = []
    for number, (name, scale, passes, kld, lossless) in enumerate(plan, 1):
        run = synthetic_run(repeats=3, warmup=1, new_tokens=new_tokens, blocks=blocks, scale=scale, seed=number, run_id=number)
        quality = None if kld is None else language_quality(kld, lossless=lossless, layers=layer_errors(run))
        run = with_passes(run, *passes, quality=quality)
        runs.append(replace(run, name=name, created=f"2026-11-21T10:{number:02}:00+00:00"))
    other = replace(runs[2], id=len(runs) + 1, name="other model", created="2026-11-21T11:00:00+00:00")
    config = replace(other.config, model=replace(other.config.model, spec="arch:gpt2"))
    return [*runs, replace(other, config=config)]


@dataclass(frozen=True)
class FakeOptions:
    """One of each sort."""

    share: float = field(default=0.1, metadata={"label": "Share", "minimum": 0.01, "maximum": 0.9, "help": "How much"})
    layers: str = field(default="auto", metadata={"label": "Layers"})


class FakePass:
    """As much of a pass as a list shows."""

    changes_weights = True

    def __init__(self, pass_id: str, title: str, phase: Phase, *, lossless: bool = False, options: type | None = None) -> None:
        self.id, self.title, self.phase = pass_id, title, phase
        self.summary = f"What {title} does in a few words, and what it costs"
        self.lossless: ClassVar[bool] = lossless  # type: ignore[misc]
        self.options: ClassVar[type | None] = options  # type: ignore[misc]

    def check(self, context: Any) -> str | None:
        return None

    def apply(self, subject: Any, options: Any) -> PassReport:
        raise Refusal("A stand-in changes nothing.")


def catalogue() -> list[FakePass]:
    """As many passes as the real list will have, in all groups."""
    of = Phase
    return [
        FakePass("threads", "Threads", of.PROCESS, lossless=True, options=FakeOptions),
        FakePass("allocator", "Allocator", of.PROCESS, lossless=True),
        FakePass("layer_drop", "Layer drop", of.STRUCTURE, options=FakeOptions),
        FakePass("mlp_width", "MLP width", of.STRUCTURE, options=FakeOptions),
        FakePass("head_removal", "Head removal", of.STRUCTURE, options=FakeOptions),
        FakePass("sparse_mask", "Sparse mask", of.MASK, options=FakeOptions),
        FakePass("heal", "Heal by distillation", of.HEAL, options=FakeOptions),
        FakePass("attention", "Attention kernel", of.KERNEL, options=FakeOptions),
        FakePass("merge_projections", "Merged projections", of.KERNEL),
        FakePass("bfloat16", "bfloat16", of.PRECISION),
        FakePass("float16", "float16", of.PRECISION),
        FakePass("autocast", "Autocast", of.PRECISION),
        FakePass("mixed_precision", "Mixed precision", of.PRECISION, options=FakeOptions),
        FakePass("int8_dynamic", "int8 dynamic", of.QUANTIZE, options=FakeOptions),
        FakePass("int8_weight_only", "int8 weights", of.QUANTIZE, options=FakeOptions),
        FakePass("int4_weight_only", "int4 weight-only", of.QUANTIZE, options=FakeOptions),
        FakePass("float8_weight_only", "float8 weight-only", of.QUANTIZE, options=FakeOptions),
        FakePass("bitsandbytes", "bitsandbytes", of.QUANTIZE, options=FakeOptions),
        FakePass("offload", "Offload", of.PLACE, options=FakeOptions),
        FakePass("kv_cache", "KV cache", of.GENERATION, options=FakeOptions),
        FakePass("chunked_prefill", "Chunked prefill", of.GENERATION, lossless=True),
        FakePass("long_text", "Long text", of.GENERATION),
        FakePass("prompt_lookup", "Prompt lookup", of.GENERATION, lossless=True, options=FakeOptions),
        FakePass("assistant", "Assistant model", of.GENERATION, lossless=True, options=FakeOptions),
        FakePass("early_exit", "Early exit", of.GENERATION, lossless=True, options=FakeOptions),
        FakePass("continuous_batching", "Continuous batching", of.GENERATION),
        FakePass("compile_decode", "Compiled decode", of.COMPILE, options=FakeOptions),
        FakePass("compile_forward", "Compiled forward", of.COMPILE, options=FakeOptions),
        FakePass("onnxruntime", "ONNX Runtime", of.ENGINE, options=FakeOptions),
        FakePass("openvino", "OpenVINO", of.ENGINE, options=FakeOptions),
        FakePass("aot_inductor", "AOTInductor", of.ENGINE),
        FakePass("llama_cpp", "llama.cpp", of.ENGINE, options=FakeOptions),
    ]


def _needs(package: str, extra: str) -> Reason:
    why = Reason("pass_api.needs-package", package=package)
    return Reason("pass_api.with-command", why=why, command=f"pip install 'tickscope[{extra}]'")


MISSING = {"bitsandbytes": _needs("bitsandbytes", "bitsandbytes"), "llama_cpp": _needs("cyllama", "llama")}


def reasons(model: Any, target: Any, chosen: Any) -> dict[str, Reason | None]:
    """Missing packages, and one conflict."""
    found: dict[str, Reason | None] = {one.id: MISSING.get(one.id) for one in catalogue()}
    if "bfloat16" in chosen:
        found["float16"] = of_text("conflicts with bfloat16 (both set the precision of the whole model)")
    return found
