"""Moments come from the real generate loop, alternate, add up, and can be cut short anywhere."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from core.config import WorkloadConfig
from core.engine.forms.base import form_of
from core.engine.gate import Gate
from core.engine.moments import Moments
from core.engine.requests import Requests
from core.engine.watch import Watch
from core.errors import Cancelled
from core.progress import Progress
from profilers.layer_clock import LayerClock
from profilers.trace import KINDS, Recorder, Tag, Trace
from profilers.tripwire import Tripwire
from tests.tiny import loaded, subject, tiny_llama


class Bench:
    """One model and everything a run of it needs."""

    def __init__(self, model: Any, workload: WorkloadConfig, *, traced: bool = True, task: str = "text-generation") -> None:
        self.model = model
        self.recorder, self.gate, self.progress = Recorder(), Gate(), Progress()
        self.subject = subject(model, task)
        self.tripwire = Tripwire(model, Cancelled)
        self.watch = Watch(clock=LayerClock(model) if traced else None)
        self.workload = workload
        self.latencies: list[int | None] = []
        self.turns: tuple[bool, ...] | None = None
        self.form = form_of(loaded(model, task), workload, "cpu")
        self.requests = Requests(self.form, self.subject, workload.new_tokens, self.recorder)
        self.compiles = 0
        self.pause_steps: range | None = None

    def run(self) -> Trace:
        try:
            with Moments(
                self.subject,
                self.recorder,
                self.gate,
                self.progress,
                self.tripwire,
                self.watch,
                lambda: self.compiles,
                self.requests.read_text,
                pause_steps=self.pause_steps,
            ) as moments:
                for number in range(self.workload.warmup + self.workload.repeats):
                    tags = Tag.WARMUP if number < self.workload.warmup else Tag(0)
                    self.latencies.append(self.requests.make(moments, tags | (Tag.COLD if number == 0 else Tag(0)), self.turns))
        finally:
            self.tripwire.clear()
        return self.recorder.snapshot()


def workload(**changes: Any) -> WorkloadConfig:
    return WorkloadConfig(**{"prompt_tokens": 6, "new_tokens": 9, "repeats": 4, "warmup": 1, **changes})


def test_every_token_of_every_request_is_one_moment() -> None:
    trace = Bench(tiny_llama(), workload()).run()
    moments = trace.moments
    assert len(moments["kind"]) == 5 * 9
    for request in range(5):
        kinds = [KINDS[kind] for kind in moments["kind"][moments["request"] == request]]
        assert kinds == ["prefill"] + ["decode"] * 8
    assert moments["tokens"][:3].tolist() == [6, 1, 1]
    assert moments["context"][:3].tolist() == [0, 6, 7]


def test_tokens_are_those_of_plain_generate() -> None:
    model = tiny_llama()
    bench = Bench(model, workload())
    trace = bench.run()
    inputs = bench.form.inputs().tensors
    plain = model.generate(**inputs, max_new_tokens=9, min_new_tokens=9, do_sample=False)[0, 6:].tolist()
    assert [list(output.token_ids) for output in trace.outputs] == [plain] * 5
    assert "forward" not in model.__dict__


def test_clean_and_traced_moments_alternate_and_the_first_measured_prefill_is_clean() -> None:
    trace = Bench(tiny_llama(), workload()).run()
    tags, kinds, requests = (trace.moments[name] for name in ("tags", "kind", "request"))
    measured = requests >= 1
    for kind, turns in (("prefill", [False, True, False, True]), ("decode", [False, True, True, False])):
        traced = (tags[measured & (kinds == KINDS.index(kind))] & Tag.TRACED) > 0
        assert traced[:4].tolist() == turns
        assert abs(traced.sum() - (~traced).sum()) <= 2
    assert ((tags & Tag.TRACED > 0) != (tags & Tag.CLEAN > 0)).all()
    with_spans = np.unique(trace.spans["moment"])
    assert with_spans.tolist() == np.flatnonzero(tags & Tag.TRACED).tolist()


def test_without_a_layer_clock_all_moments_are_clean() -> None:
    trace = Bench(tiny_llama(), workload(), traced=False).run()
    assert (trace.moments["tags"] & Tag.CLEAN > 0).all()
    assert len(trace.spans["moment"]) == 0


def test_layer_self_times_add_up_to_each_traced_moment() -> None:
    trace = Bench(tiny_llama(), workload()).run()
    own = np.bincount(trace.spans["moment"], weights=trace.spans["self_ns"], minlength=len(trace.moments["kind"]))
    traced = np.flatnonzero(trace.moments["tags"] & Tag.TRACED)
    assert own[traced].tolist() == trace.moments["duration_ns"][traced].tolist()


def test_latencies_and_pauses_fill_each_request() -> None:
    """t0 to the last token = sum of latencies + what the gate paused: no time is lost, none counted twice."""
    trace = Bench(tiny_llama(), workload()).run()
    moments, requests = trace.moments, trace.requests
    for request in range(5):
        mine = moments["request"] == request
        whole = requests["end_ns"][request] - requests["start_ns"][request]
        told = moments["latency_ns"][mine].sum() + moments["paused_ns"][mine].sum()
        assert told == whole
    assert (moments["latency_ns"] >= moments["duration_ns"]).all()


def test_a_pause_is_not_latency() -> None:
    bench = Bench(tiny_llama(1), workload(repeats=1, warmup=0))
    paused_s = 0.05

    def dawdle() -> None:
        threading.Timer(paused_s, guest.leave).start()
        if bench.recorder.moments.count < 4:
            guest.ask()

    guest = bench.gate.guest(dawdle, 5)
    guest.ask()
    moments = bench.run().moments
    long = moments["paused_ns"] >= paused_s * 1e9
    assert long.sum() >= 2
    assert (moments["latency_ns"][long] < moments["paused_ns"][long]).all()


def test_painting_while_the_clock_runs_marks_the_moment() -> None:
    model = tiny_llama(1)
    bench = Bench(model, workload(repeats=1, warmup=0), traced=False)
    norm, calls = model.model.norm, []
    plain = norm.forward

    def with_painting(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            bench.gate.disturb(10**9)
        return plain(*args)

    norm.forward = with_painting
    tags = bench.run().moments["tags"]
    assert np.flatnonzero(tags & Tag.PERTURBED).tolist() == [2]


def test_a_compilation_and_a_collection_mark_their_moment() -> None:
    import gc

    model = tiny_llama(1)
    bench = Bench(model, workload(repeats=1, warmup=0), traced=False)
    norm, calls = model.model.norm, []
    plain = norm.forward

    def with_events(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            bench.compiles += 1
        if len(calls) == 4:
            gc.collect()
        return plain(*args)

    norm.forward = with_events
    tags = bench.run().moments["tags"]
    assert np.flatnonzero(tags & Tag.COMPILE).tolist() == [1]
    assert 3 in np.flatnonzero(tags & Tag.GC)


@pytest.mark.parametrize("stop_at", [1, 5, 14])
def test_cancel_inside_a_forward_keeps_what_was_measured(stop_at: int) -> None:
    model = tiny_llama()
    bench = Bench(model, workload(repeats=2, warmup=0))
    norm, calls = model.model.layers[0].input_layernorm, []
    plain = norm.forward

    def cancelling(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == stop_at:
            bench.progress.cancelled.set()
            bench.tripwire.pull()
        return plain(*args)

    norm.forward = cancelling
    bench.tripwire = Tripwire(model, Cancelled)
    bench.watch = Watch(clock=LayerClock(model))
    with pytest.raises(Cancelled):
        bench.run()
    trace = bench.recorder.snapshot()
    assert len(trace.moments["kind"]) == stop_at - 1
    assert len(trace.requests["start_ns"]) == (stop_at - 1) // 9 + 1
    assert norm.forward is cancelling
    assert "forward" not in model.__dict__
    assert sum("forward" in module.__dict__ for module in model.modules()) == 1


def test_an_exception_in_a_layer_leaves_the_model_usable() -> None:
    model = tiny_llama()
    bench = Bench(model, workload())

    def broken(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError("a bug in the model")

    model.model.layers[1].mlp.forward = broken
    bench.tripwire, bench.watch = Tripwire(model, Cancelled), Watch(clock=LayerClock(model))
    with pytest.raises(RuntimeError, match="a bug in the model"):
        bench.run()
    del model.model.layers[1].mlp.forward
    trace = Bench(model, workload()).run()
    assert len(trace.outputs) == 5


def test_an_encoder_has_one_forward_moment_a_request() -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, vocab_size=128)
    trace = Bench(BertModel(config).eval(), workload(batch=2), task="embedding").run()
    assert [KINDS[kind] for kind in trace.moments["kind"]] == ["forward"] * 5
    assert (trace.moments["latency_ns"] >= trace.moments["duration_ns"]).all()
    assert trace.moments["tokens"].tolist() == [12] * 5
    assert len(trace.outputs[0].values) == 32


def test_the_two_moments_after_a_pause_are_settling() -> None:
    bench = Bench(tiny_llama(1), workload(repeats=1, warmup=0), traced=False)
    asked = []

    def stay() -> None:
        threading.Timer(0.02, guest.leave).start()

    guest = bench.gate.guest(stay, 5)
    norm = bench.model.model.norm
    plain = norm.forward

    def asking(*args: Any) -> Any:
        asked.append(1)
        if len(asked) == 3:
            guest.ask()
        return plain(*args)

    norm.forward = asking
    tags = bench.run().moments["tags"]
    assert np.flatnonzero(tags & Tag.SETTLING).tolist() == [3, 4]


def test_where_pauses_keep_away_from_request_ends_no_first_token_is_settling() -> None:
    bench = Bench(tiny_llama(1), workload(repeats=3, warmup=0), traced=False)

    def stay() -> None:
        threading.Timer(0.005, guest.leave).start()
        guest.ask()  # again and again

    guest = bench.gate.guest(stay, 5)
    guest.ask()
    bench.pause_steps = range(1, 8)
    moments = bench.run().moments
    settling = moments["tags"] & Tag.SETTLING > 0
    assert settling[moments["step"] == 1].all()
    assert not settling[moments["step"] == 0].any()
