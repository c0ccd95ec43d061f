"""Made-up trials: runs whose requests took turns, with planted differences, noise and drift, for tests that need no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from core.analysis.stopping import turns
from core.config import ModelConfig, PassConfig, RunConfig, WorkloadConfig
from core.records.run import ABTestPart, Group, Run, RunFacts
from profilers.trace import KINDS, Array, Layer, Output, Recorder, Tag

MS = 1_000_000
LAYERS = (
    Layer("", "Model", "other", -1),
    Layer("model.layers.0.self_attn", "Attention", "attention", 0),
    Layer("model.layers.0.mlp", "Mlp", "mlp", 0),
    Layer("lm_head", "Linear", "head", 0),
)
SHARES = np.array([1.0, 0.3, 0.5, 0.15])
"""Of a moment's time, each layer with all it calls."""

Noise = Callable[[np.random.Generator, int], Array]

CREATED = "2026-11-21T10:00:00+00:00"


def gaussian(size: float) -> Noise:
    """Independent noise of one log time per request."""
    return lambda rng, n: rng.normal(0, size, n)


def synthetic_trial(
    ratios: Sequence[float] = (1.0, 0.9),
    *,
    rounds: int = 16,
    noise: Noise | None = None,
    seed: int = 0,
    new_tokens: int = 6,
    layer_ratios: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    floors: dict[str, float] | None = None,
    most_rounds: int = 60,
) -> tuple[Run, ...]:
    """One run per ratio; ``layer_ratios`` multiply the layers' shares on every side but the first. Noise: a value a request."""
    rng = np.random.default_rng(seed)
    sides = len(ratios)
    recorders = [Recorder() for _ in ratios]
    for recorder in recorders:
        recorder.set_layers(LAYERS)
        _request(recorder, Tag.WARMUP | Tag.COLD | Tag.CLEAN, 3.0, new_tokens, SHARES)
    times = np.exp((noise or gaussian(0.01))(rng, rounds * sides))
    order: list[int] = []
    for number in range(rounds):
        places, traced = turns(number, sides)
        for side in places:
            shares = SHARES * (np.asarray(layer_ratios) if side else 1)
            shares = shares * np.exp(rng.normal(0, 0.01, len(shares)))
            tag = Tag.TRACED if traced else Tag.CLEAN
            _request(recorders[side], tag, ratios[side] * times[len(order)], new_tokens, shares)
            order.append(side)
    parts = [
        ABTestPart("trial-1", side, sides, tuple(order), floors or {}, len(set(ratios)) == 1, most_rounds)
        for side in range(sides)
    ]
    return tuple(_run(recorder, part, new_tokens) for recorder, part in zip(recorders, parts, strict=True))


def _request(recorder: Recorder, tags: Tag, scale: float, new_tokens: int, shares: Array) -> None:
    start = int(recorder.moments.count) * 100 * MS
    kept = tags & (Tag.WARMUP | Tag.COLD)
    request = recorder.requests.append(
        tags=int(kept), start_ns=start, tokenize_ns=-1, end_ns=-1, input_tokens=5, output_tokens=0
    )
    for step in range(new_tokens):
        duration = int((40 if step == 0 else 12) * MS * scale)
        moment = recorder.moments.count
        if tags & Tag.TRACED:
            recorder.spans.extend(
                {
                    "moment": np.full(len(LAYERS), moment),
                    "layer": np.arange(len(LAYERS)),
                    "start_ns": np.full(len(LAYERS), start),
                    "duration_ns": (shares * duration).astype(np.int64),
                    "self_ns": (shares * duration).astype(np.int64),
                }
            )
        recorder.moments.append(
            request=request,
            kind=KINDS.index("prefill" if step == 0 else "decode"),
            step=step,
            tags=int(tags),
            start_ns=start,
            duration_ns=duration,
            latency_ns=duration + 100_000,
            paused_ns=0,
            tokens=1,
            context=step,
            kv_bytes=0,
        )
        start += duration + 100_000
    recorder.requests.set(request, end_ns=start, output_tokens=new_tokens)
    recorder.output(Output(request, tuple(range(new_tokens)), "text", "length"))


def _run(recorder: Recorder, part: ABTestPart, new_tokens: int) -> Run:
    config = RunConfig(
        ModelConfig("arch:llama"),
        (PassConfig("bfloat16"),) if part.side else (),
        workload=WorkloadConfig(new_tokens=new_tokens, repeats=3, warmup=1),
        name="ABCDEFGH"[part.side],
    )
    facts = RunFacts(status="finished", threads=1, trial=part)
    group = Group(part.id, "ab_test", CREATED)
    return Run(part.side + 1, config.name, CREATED, config, facts, recorder.snapshot(), group=group, role=part.side)


def running(run: Run) -> Run:
    """The same run, still under way."""
    return replace(run, facts=replace(run.facts, status="running"))
