"""Moments come from the real generate loop, alternate, add up, and can be cut short anywhere."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from core.clock.gate import Gate
from core.config import WorkloadConfig
from core.errors import Cancelled
from core.execution import calls
from core.execution.instrumentation import Instrumentation
from core.execution.moments import SETTLING_PAUSE_NS, Moments
from core.execution.requests import Requests
from core.execution.tasks.base import form_of
from core.progress import Progress
from profilers.cancel_patch import CancelPatch
from profilers.layer_clock import LayerClock
from profilers.trace import KINDS, Recorder, Tag, Trace
from tests.support.tiny import loaded, subject, tiny_llama


class Bench:
    """One model and everything a run of it needs."""

    def __init__(
        self,
        model: Any,
        workload: WorkloadConfig,
        *,
        traced: bool = True,
        task: str = "text-generation",
        tokenizer: Any = None,
    ) -> None:
        self.model = model
        self.recorder, self.gate, self.progress = Recorder(), Gate(), Progress()
        self.subject = subject(model, task)
        self.tripwire = CancelPatch(model, Cancelled)
        self.watch = Instrumentation(clock=LayerClock(model) if traced else None)
        self.workload = workload
        self.latencies: list[int | None] = []
        self.turns: tuple[bool, ...] | None = None
        self.form = form_of(replace(loaded(model, task), tokenizer=tokenizer), workload, "cpu")
        self.requests = Requests(self.form, self.subject, workload.new_tokens, self.recorder)
        self.compiles = 0
        self.pause_steps: range | None = None
        self.yield_turn: Callable[[], None] | None = None

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
                frames=self.form.frames(self.subject),
                yield_turn=self.yield_turn,
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
    paused_s = 0.3  # more than a moment takes, also on a busy machine

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
    bench.tripwire = CancelPatch(model, Cancelled)
    bench.watch = Instrumentation(clock=LayerClock(model))
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
    bench.tripwire, bench.watch = CancelPatch(model, Cancelled), Instrumentation(clock=LayerClock(model))
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


def test_what_stops_the_clock_without_the_gate_makes_no_moment_settle() -> None:
    """The other sides' turns of a trial, say: they are in the pause, and the page of measures says that they do not count."""
    bench = Bench(tiny_llama(1), workload(repeats=1, warmup=0), traced=False)
    others = threading.Event()

    def others_turn() -> None:
        others.wait(0.003)

    bench.yield_turn = others_turn
    moments = bench.run().moments
    assert (moments["paused_ns"] > SETTLING_PAUSE_NS).all()
    assert not (moments["tags"] & Tag.SETTLING).any()


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


# -- gaps of several moments -------------------------------------------------------------------------------------------------


def tiny_t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    shape = {"d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 2, "num_heads": 4, "vocab_size": 64}
    return T5ForConditionalGeneration(T5Config(**shape, decoder_start_token_id=0, eos_token_id=None)).eval()


def test_an_encoder_before_a_decoder_is_a_moment_of_its_own_and_part_of_the_first_token() -> None:
    bench = Bench(tiny_t5(), workload(new_tokens=4), task="seq2seq")
    trace = bench.run()
    moments = trace.moments
    for request in range(5):
        mine = moments["request"] == request
        assert [KINDS[kind] for kind in moments["kind"][mine]] == ["encode", "prefill", *["decode"] * 3]
        assert moments["step"][mine].tolist() == [0, 1, 2, 3, 4]
        assert moments["latency_ns"][mine][0] == -1
        assert moments["latency_ns"][mine][1] >= moments["duration_ns"][mine][:2].sum()
        traced = moments["tags"][mine] & Tag.TRACED > 0
        assert traced[0] == traced[1]  # one gap, traced as a whole or not at all
        told = moments["latency_ns"][mine][1:].sum() + moments["paused_ns"][mine].sum()
        assert told == trace.requests["end_ns"][request] - trace.requests["start_ns"][request]
    assert moments["tokens"][:3].tolist() == [6, 1, 1]
    assert moments["context"][:4].tolist() == [0, 0, 1, 2]
    assert (moments["kv_bytes"][1:4] > 0).all()
    assert trace.requests["output_tokens"].tolist() == [4] * 5
    assert (moments["drafted"] == -1).all()


def test_the_chunks_of_a_prompt_are_traced_together() -> None:
    bench = Bench(tiny_llama(), workload(new_tokens=3))
    bench.subject.execution.generation["prefill_chunk_size"] = 2
    moments = bench.run().moments
    kinds = [KINDS[kind] for kind in moments["kind"][moments["request"] == 1]]
    assert kinds == ["prefill", "prefill_chunk", "prefill_chunk", "decode", "decode"]
    traced = moments["tags"] & Tag.TRACED > 0
    first = [traced[moments["request"] == request][:3].tolist() for request in range(1, 5)]
    assert first == [[False] * 3, [True] * 3, [False] * 3, [True] * 3]
    assert (moments["tags"][moments["request"] == 0][:3] & Tag.COLD > 0).all()
    assert not (moments["tags"][moments["request"] == 0][3:] & Tag.COLD).any()


@pytest.mark.parametrize(
    ("args", "kwargs", "told"),
    [
        ((), {"input_ids": torch.zeros(2, 5, dtype=torch.long), "pixel_values": torch.zeros(1, 3, 8, 8)}, (10, 5)),
        ((), {"encoder_outputs": 1, "decoder_input_ids": torch.zeros(2, 1, dtype=torch.long)}, (2, 1)),
        ((), {"input_ids": None, "inputs_embeds": torch.zeros(1, 7, 16)}, (7, 7)),
        ((), {"pixel_values": torch.zeros(2, 3, 8, 8)}, (0, 3)),
        ((), {"input_features": torch.zeros(1, 80, 100)}, (0, 80)),
        ((torch.zeros(2, 4, dtype=torch.long),), {}, (8, 4)),
        ((torch.zeros(2, 4),), {}, (0, 4)),
        (("text",), {"x": torch.zeros(3)}, (0, 0)),
        ((), {}, (0, 0)),
    ],
)
def test_whatever_a_model_is_given_its_call_can_be_read(args: Any, kwargs: dict[str, Any], told: tuple[int, int]) -> None:
    call = calls.read(args, kwargs)
    assert (call.tokens, call.width, call.context, call.kept) == (*told, 0, None)


def test_a_module_that_knows_no_tokens_has_moments_too() -> None:
    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    model, recorder = Plain(), Recorder()
    asked = subject(model, "module")
    moments = Moments(
        asked,
        recorder,
        Gate(),
        Progress(),
        CancelPatch(model, Cancelled),
        Instrumentation(clock=LayerClock(model)),
        lambda: 0,
        lambda: None,
    )
    with moments:
        for _ in range(2):
            moments.begin(Tag(0), 0)
            model(torch.zeros(3, 4))
            moments.token_visible()
            moments.end()
    found = recorder.snapshot().moments
    assert [KINDS[kind] for kind in found["kind"]] == ["forward"] * 2
    assert (found["tokens"].tolist(), found["kv_bytes"].tolist()) == ([0, 0], [-1, -1])
