"""Passes on the cache and on long inputs: static and fp8 caches, prompts in chunks, texts in windows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from core.config import ModelConfig, PassConfig, RunConfig, WorkloadConfig
from core.errors import Refusal
from core.execution.model_slot import ModelSlot
from core.execution.preparation import prepare
from core.execution.tasks.windows import call_in_windows
from core.execution.workload import check_length
from core.pass_api.base import PassReport
from core.pass_api.subject import Execution, Subject, Windows
from core.passes.kv_cache import bytes_per_token
from core.passes.long_text import longest_input
from core.planning import plan
from core.progress import Progress
from profilers.trace import KINDS
from tests.core.execution.test_moments import Bench, workload
from tests.core.passes.test_kernel_passes import IDS, apply, build, tokens, undo
from tests.support.tiny import TINY_BERT, loaded, tiny_llama

# -- KV cache -------------------------------------------------------------------------------------------------------------


def generated(model: Any, **arguments: Any) -> Any:
    fixed = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    return model.generate(IDS, attention_mask=torch.ones_like(IDS), return_dict_in_generate=True, **fixed, **arguments)


@pytest.mark.parametrize("name", ["llama", "opt", "qwen2_moe"])
def test_a_static_cache_is_set_aside_at_once_and_gives_the_same_tokens(name: str) -> None:
    model = build(name)
    expected = tokens(model)
    made, (report,) = apply(model, "kv_cache")
    assert made.execution.generation == {"cache_implementation": "static", "max_cache_len": 16, "disable_compile": True}
    cache = generated(model, **made.execution.generation).past_key_values
    assert type(cache).__name__ == "StaticCache"
    assert cache.layers[0].keys.shape[2] == made.max_length
    assert tokens(model, **made.execution.generation) == expected
    assert report.changed_modules == 2
    assert str(report.summary).startswith("static cache of 16 positions")
    assert 0 < report.predicted["decode"] < 1
    undo(made)
    assert made.execution.generation == {}
    assert "_previous_max_cache_length" not in model.__dict__
    assert type(generated(model).past_key_values).__name__ == "DynamicCache"


def test_an_fp8_cache_takes_a_quarter_of_float32() -> None:
    model = build("llama")
    assert bytes_per_token(model) == 2 * 2 * 2 * 8 * 4  # layers, keys and values, KV heads, head size, float32
    made, (report,) = apply(model, PassConfig("kv_cache", {"kind": "fp8"}))
    result = generated(model, **made.execution.generation)
    keys, _scale = result.past_key_values.layers[0]._quantized_keys
    assert keys.dtype == torch.float8_e4m3fn
    assert str(report.summary) == "fp8 cache, 256 B → 64 B per token"
    assert result.sequences.shape == (2, 12)
    again = generated(model, **made.execution.generation)
    assert again.sequences.tolist() == result.sequences.tolist()  # the arguments are not used up
    undo(made)
    assert made.execution.generation == {}


def test_an_fp8_cache_is_refused_where_layers_see_only_a_part_of_the_text() -> None:
    model = build("mistral", sliding_window=4)
    with pytest.raises(Refusal, match="not all of its layers attend to the whole text"):
        apply(model, PassConfig("kv_cache", {"kind": "fp8"}))


def test_caches_are_refused_where_there_is_none_to_replace() -> None:
    with pytest.raises(Refusal, match="text generation only"):
        apply(build("bert"), "kv_cache", task="embedding")
    stateful = transformers.AutoModelForCausalLM.from_config(
        transformers.MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=32, state_size=4)
    )
    with pytest.raises(Refusal, match="MambaForCausalLM keeps no KV cache"):
        apply(stateful, "kv_cache")
    model = build("llama")
    model._can_compile_fullgraph = False
    with pytest.raises(Refusal, match="has no static KV cache"):
        apply(model, "kv_cache")


# -- prompts in chunks ----------------------------------------------------------------------------------------------------


def with_pass(bench: Bench, choice: PassConfig) -> PassReport:
    bench.subject.max_length = int(bench.workload.prompt_tokens or 0) + bench.workload.new_tokens
    (report,) = plan.apply_all(bench.subject, [choice])
    return report


def test_each_chunk_of_a_prompt_is_a_moment() -> None:
    bench = Bench(tiny_llama(), workload(prompt_tokens=14, new_tokens=3, repeats=1, warmup=0))
    plain = Bench(tiny_llama(), workload(prompt_tokens=14, new_tokens=3, repeats=1, warmup=0)).run()
    report = with_pass(bench, PassConfig("chunked_prefill", {"tokens": 6}))
    trace = bench.run()
    moments = trace.moments
    assert [KINDS[kind] for kind in moments["kind"]] == ["prefill", "prefill_chunk", "prefill_chunk", "decode", "decode"]
    assert moments["tokens"].tolist() == [6, 6, 2, 1, 1]
    assert moments["context"].tolist() == [0, 6, 12, 14, 15]
    assert trace.outputs[0].token_ids == plain.outputs[0].token_ids
    assert str(report.summary) == "prompts read 6 tokens at a time"
    assert (moments["latency_ns"] >= 0).tolist() == [False, False, True, True, True]  # the last chunk gives the first token
    undo(bench.subject)
    assert bench.subject.execution.generation == {}


@pytest.mark.parametrize("name", ["llama", "opt", "gpt2"])
def test_chunks_change_no_token(name: str) -> None:
    model = build(name)
    expected = tokens(model)
    made, _ = apply(model, PassConfig("chunked_prefill", {"tokens": 4}))
    assert tokens(model, **made.execution.generation) == expected


def test_chunks_that_would_change_nothing_are_refused() -> None:
    with pytest.raises(Refusal, match="Chunks of 256 tokens change nothing in a request of 16"):
        apply(build("llama"), "chunked_prefill")
    with pytest.raises(Refusal, match="for text generation"):
        apply(build("bert"), "chunked_prefill", task="embedding")
    model = build("llama")
    model._is_stateful = True
    with pytest.raises(Refusal, match="keeps a state instead of a cache"):
        apply(model, PassConfig("chunked_prefill", {"tokens": 4}))


# -- long texts in windows ------------------------------------------------------------------------------------------------


class Tokenizer:
    """As much of a tokenizer as windows look at."""

    all_special_ids = (1, 2)
    model_max_length = 10**30


def encoder(auto: str = "AutoModel", **changes: Any) -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 128}
    config = transformers.BertConfig(**{**shape, "max_position_embeddings": 16, "initializer_range": 0.2, **changes})
    return getattr(transformers, auto).from_config(config).eval().requires_grad_(False)


def seen(model: Any, windows: Windows, ids: torch.Tensor, tokenizer: Any = None) -> tuple[Any, list[list[int]]]:
    """What came out, and the ids that each window read."""
    made = Subject(model, "embedding", Execution(1, windows=windows), ids.shape[1], 1, tokenizer=tokenizer)
    read: list[list[int]] = []
    plain = model.forward

    def forward(**given: Any) -> Any:
        read.append(given["input_ids"][0].tolist())
        assert {tensor.shape for tensor in given.values()} == {given["input_ids"].shape}
        return plain(**given)

    model.__dict__["forward"] = forward
    with torch.no_grad():
        output = call_in_windows(made, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    del model.__dict__["forward"]
    return output, read


def test_each_window_begins_and_ends_as_the_text_does() -> None:
    ids = torch.tensor([[1, *range(10, 21), 2]])
    output, read = seen(encoder(), Windows(8, 2, "centre"), ids, Tokenizer())
    assert read == [
        [1, 10, 11, 12, 13, 14, 15, 2],
        [1, 14, 15, 16, 17, 18, 19, 2],
        [1, 15, 16, 17, 18, 19, 20, 2],  # moved back: every window has the same width
    ]
    assert output.last_hidden_state.shape == (1, 13, 32)
    assert output.logits is None


def test_padded_texts_are_cut_without_repeating_their_ends() -> None:
    ids = torch.tensor([[1, *range(10, 20), 2], [1, *range(30, 36), 2, 0, 0, 0, 0]])
    made = Subject(encoder(), "embedding", Execution(1, windows=Windows(8, 2, "mean")), 12, 2, tokenizer=Tokenizer())
    output = call_in_windows(made, {"input_ids": ids, "attention_mask": (ids != 0).long()})
    assert output.last_hidden_state.shape == (2, 12, 32)
    assert torch.isfinite(output.last_hidden_state).all()


def test_centre_takes_each_token_from_the_window_where_it_is_deepest() -> None:
    model, ids = encoder(), torch.arange(12)[None] + 3
    output, read = seen(model, Windows(8, 4, "centre"), ids)
    assert read == [list(range(3, 11)), list(range(7, 15))]
    first, second = (model(ids[:, start : start + 8]).last_hidden_state for start in (0, 4))
    torch.testing.assert_close(output.last_hidden_state, torch.cat([first[:, :6], second[:, 2:]], 1))


def test_mean_counts_shared_tokens_once() -> None:
    model, ids = encoder(), torch.arange(12)[None] + 3
    output, _ = seen(model, Windows(8, 4, "mean"), ids)
    first, second = (model(ids[:, start : start + 8]).last_hidden_state for start in (0, 4))
    shared = (first[:, 4:] + second[:, :4]) / 2
    torch.testing.assert_close(output.last_hidden_state, torch.cat([first[:, :4], shared, second[:, 4:]], 1))


def test_classes_are_the_mean_over_windows() -> None:
    model, ids = encoder("AutoModelForSequenceClassification", num_labels=3), torch.arange(12)[None] + 3
    output, _ = seen(model, Windows(8, 4, "centre"), ids)
    first, second = (model(ids[:, start : start + 8]).logits.softmax(-1) for start in (0, 4))
    torch.testing.assert_close(output.logits.softmax(-1), (first + second) / 2)
    assert output.logits.softmax(-1).sum().item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("settings", "read"), [({"problem_type": "multi_label_classification"}, "sigmoid"), ({"num_labels": 1}, "")]
)
def test_other_kinds_of_classes_are_averaged_in_their_own_way(settings: dict[str, Any], read: str) -> None:
    model = encoder("AutoModelForSequenceClassification", **{"num_labels": 3, **settings})
    ids = torch.arange(12)[None] + 3
    output, _ = seen(model, Windows(8, 4, "centre"), ids)
    parts = [model(ids[:, start : start + 8]).logits for start in (0, 4)]
    told = [part.sigmoid() if read else part for part in (*parts, output.logits)]
    torch.testing.assert_close(told[2], (told[0] + told[1]) / 2)


def test_labels_of_tokens_and_answers_are_put_side_by_side() -> None:
    ids = torch.arange(12)[None] + 3
    labels, _ = seen(encoder("AutoModelForTokenClassification", num_labels=5), Windows(8, 4, "centre"), ids)
    assert labels.logits.shape == (1, 12, 5)
    answers, _ = seen(encoder("AutoModelForQuestionAnswering"), Windows(8, 4, "centre"), ids)
    assert answers.start_logits.shape == answers.end_logits.shape == (1, 12)


def test_a_text_of_one_window_is_read_as_ever() -> None:
    model, ids = encoder(), torch.arange(8)[None] + 3
    output, read = seen(model, Windows(8, 2, "centre"), ids)
    assert len(read) == 1
    assert torch.equal(output.last_hidden_state, model(ids).last_hidden_state)


def test_each_window_is_a_moment_of_a_run() -> None:
    bench = Bench(encoder(), workload(prompt_tokens=40, repeats=2, warmup=0), task="embedding")
    bench.subject.max_length = 40
    (report,) = plan.apply_all(bench.subject, [PassConfig("long_text", {"overlap": 4})])
    trace = bench.run()
    assert report.options["window"] == 16
    assert str(report.summary) == "40 tokens read in windows of 16, 4 shared"
    assert [KINDS[kind] for kind in trace.moments["kind"]] == ["forward"] * 6
    assert trace.moments["tokens"].tolist() == [16] * 6
    assert len(trace.outputs[0].values) == 32
    assert (trace.moments["latency_ns"] >= 0).tolist() == [False, False, True] * 2
    undo(bench.subject)
    assert bench.subject.execution.windows is None


@pytest.mark.parametrize(
    ("options", "length", "sentence"),
    [
        ({"overlap": 4}, 16, "16 tokens and fits one window of 16"),
        ({"window": 17}, 40, "longer than the 16 that this model can read"),
        ({"overlap": 9}, 40, "more than half of the window of 16"),
    ],
)
def test_windows_that_cannot_be_are_refused(options: dict[str, Any], length: int, sentence: str) -> None:
    made = Subject(encoder(), "embedding", Execution(1), length, 1)
    with pytest.raises(Refusal, match=sentence):
        plan.apply_all(made, [PassConfig("long_text", options)])


def test_windows_are_for_encoders() -> None:
    with pytest.raises(Refusal, match="for encoders"):
        apply(build("llama"), "long_text")


def test_the_longest_input_is_the_model_s_or_the_tokenizer_s() -> None:
    made = Subject(encoder(), "embedding", Execution(1), 40, 1, tokenizer=Tokenizer())
    assert longest_input(made) == 16
    made.tokenizer = type("Short", (), {"model_max_length": 12})()
    assert longest_input(made) == 12
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 32}
    roberta = transformers.RobertaModel(transformers.RobertaConfig(**shape, max_position_embeddings=20, pad_token_id=1))
    assert longest_input(Subject(roberta, "embedding", Execution(1), 40, 1)) == 18  # it counts from behind its padding
    assert longest_input(Subject(torch.nn.Linear(2, 2), "embedding", Execution(1), 40, 1)) is None
    with pytest.raises(Refusal, match="names no longest input"):
        plan.apply_all(Subject(torch.nn.Linear(2, 2), "embedding", Execution(1), 40, 1), [PassConfig("long_text")])


def test_a_text_beyond_the_context_is_refused_unless_read_in_windows() -> None:
    facts = loaded(encoder(), "embedding").facts
    asked = WorkloadConfig(prompt_tokens=5000)
    with pytest.raises(Refusal, match="has room for 4096"):
        check_length(facts, asked, 5000)
    assert check_length(facts, asked, 5000, in_windows=True) == 5000


def test_a_run_of_a_text_beyond_the_context_is_prepared_with_windows() -> None:
    asked = RunConfig(
        model=ModelConfig(TINY_BERT),
        workload=WorkloadConfig(prompt_tokens=200),
        passes=(PassConfig("long_text", {"overlap": 32}),),
    )
    holder = ModelSlot()
    holder.load(asked.model, "cpu", Progress())
    prepared = prepare(asked, holder, Progress())
    assert prepared.subject.execution.windows == Windows(64, 32, "centre")
    with pytest.raises(Refusal, match="has room for 64"):
        prepare(replace(asked, passes=()), holder, Progress())
    holder.unload()
