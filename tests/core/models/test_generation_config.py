"""What a model's own generation config asks for is set back to neutral or told, whatever it is."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from core.config import ModelConfig
from core.execution.tasks.generating import ended, greedily
from core.models import catalog, generation
from core.pass_api.base import PassContext, passes
from core.progress import Progress
from core.records.run import Run
from core.targets.base import targets
from tests.support.small_runs import carried_out
from tests.support.tiny import tiny_llama
from tests.support.tiny_models import save_model, save_tokenizer

ODD: dict[str, Any] = {
    "max_time": 0.001,
    "stop_strings": ["w5", "w9"],
    "num_beams": 4,
    "num_return_sequences": 3,
    "num_beam_groups": 2,
    "prompt_lookup_num_tokens": 5,
    "return_dict_in_generate": True,
    "cache_implementation": "static",
    "cache_config": {"backend": "fp8"},
    "early_stopping": True,
    "watermarking_config": {"greenlist_ratio": 0.5},
    "compile_config": {"fullgraph": True},
    "exponential_decay_length_penalty": (2, 3.0),
    "sequence_bias": [[[5], 10.0]],
    "forced_eos_token_id": 2,
    "num_assistant_tokens_schedule": "constant",
    "constraints": ["w5"],
    "force_words_ids": [[5]],
    "dola_layers": "low",
    "continuous_batching_config": {"page_size": 4},
    "speculation_type": "mtp",
}
"""Values for fields that take no plain number; all others are given 0.5, or 3 where they count something."""

WHOLE = ("max", "min_l", "min_new", "num", "no_", "encoder_no", "prefill", "assistant_e", "assistant_l", "target_l")


def odd_value(name: str) -> Any:
    plain = 3 if name.startswith(WHOLE) else True if name.startswith(("output", "do_", "token_h", "use_")) else 0.5
    return ODD.get(name, plain)


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny_llama()


def test_every_field_of_transformers_is_known():
    """A field that a new transformers brings must be put into one of the lists by somebody."""
    known = generation.KEPT | generation.SILENT | set(generation.TOLD)
    assert set(vars(transformers.GenerationConfig())) == known
    assert not generation.KEPT & generation.SILENT
    assert not (generation.KEPT | generation.SILENT) & set(generation.TOLD)


@pytest.mark.parametrize("name", sorted(generation.SILENT | set(generation.TOLD)))
def test_each_field_is_neutral_or_told(llama, name):
    prompt = {"input_ids": torch.tensor([[9, 8, 7, 9, 8]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}
    llama.generation_config = transformers.GenerationConfig(eos_token_id=2, pad_token_id=0)
    plain = greedily(llama, prompt, 6, {})
    setattr(llama.generation_config, name, odd_value(name))
    notes = generation.settle(llama)
    assert getattr(llama.generation_config, name) is None
    assert bool(notes) == (name in generation.TOLD)
    assert all(name in str(note) for note in notes)
    seen: list[int] = []
    result = greedily(llama, prompt, 6, {}, lambda sequences: seen.append(sequences.shape[1]))
    assert torch.equal(result, plain)
    assert seen == [6, 7, 8, 9, 10, 11]


def test_a_field_that_nobody_knows_yet_is_left_out_and_told(llama, monkeypatch):
    class Newer(transformers.GenerationConfig):
        def __init__(self, **kwargs: Any) -> None:
            self.leaps = kwargs.pop("leaps", None)
            super().__init__(**kwargs)

    monkeypatch.setattr(sys.modules["transformers"], "GenerationConfig", Newer)  # it has put another in its own place
    llama.generation_config = Newer(leaps=4)
    assert "leaves out leaps" in str(generation.settle(llama)[0])
    assert llama.generation_config.leaps is None


def test_values_that_change_nothing_are_not_told(llama):
    same = {"num_beams": 1, "repetition_penalty": 1.0, "num_return_sequences": 1, "no_repeat_ngram_size": 0, "max_length": 20}
    llama.generation_config = transformers.GenerationConfig(**same, cache_implementation="hybrid", do_sample=True, top_k=5)
    assert generation.settle(llama) == ()


def test_what_the_tokens_mean_stays(llama):
    mine = {"forced_bos_token_id": 7, "suppress_tokens": [5], "eos_token_id": [2, 3], "decoder_start_token_id": 4}
    llama.generation_config = transformers.GenerationConfig(**mine, lang_to_id={"<|en|>": 40}, return_timestamps=True)
    (note,) = generation.settle(llama)
    assert "keeps forced_bos_token_id, suppress_tokens" in str(note)
    assert {name: getattr(llama.generation_config, name) for name in mine} == mine
    assert llama.generation_config.lang_to_id == {"<|en|>": 40}
    assert llama.generation_config.return_timestamps is False


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Any:
    where = tmp_path_factory.mktemp("words")
    save_model(where)
    save_tokenizer(where)
    return where


def run_with(folder: Any, settings: dict[str, Any], *, prompt: str = "w1 w2 w3 w4", new_tokens: int = 8) -> Run:
    path = folder / "generation_config.json"
    path.write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **settings}))
    return carried_out(ModelConfig(str(folder)), prompt=prompt, new_tokens=new_tokens)


def test_a_run_is_as_plain_whatever_the_file_says(folder):
    plain = run_with(folder, {}).trace.outputs[0]
    odd = run_with(folder, {"stop_strings": ["w5"], "max_time": 0.001, "return_dict_in_generate": True, "num_beams": 4})
    assert odd.trace.outputs[0] == plain
    assert plain.finish_reason == "length"
    assert odd.facts.model is not None
    assert "leaves out max_time, num_beams, stop_strings" in _sorted(str(odd.facts.model.notes[0]))


def _sorted(note: str) -> str:
    before, _, rest = note.partition("leaves out ")
    names, _, after = rest.partition(", so that")
    return f"{before}leaves out {', '.join(sorted(names.split(', ')))}{after}"


def test_tokens_guessed_by_the_file_alone_are_not_guessed(folder):
    text = " ".join(["w16 w23 w33 w47 w15 w46"] * 3)
    done = run_with(folder, {"prompt_lookup_num_tokens": 5}, prompt=text, new_tokens=20)
    moments = done.trace.moments
    assert len(moments["kind"]) == 20
    assert done.trace.requests["output_tokens"].tolist() == [20]


def test_a_model_without_cache_says_so_and_refuses_passes_that_need_one(folder):
    done = run_with(folder, {"use_cache": False}, new_tokens=3)
    facts = done.facts.model
    assert facts is not None
    assert not facts.keeps_cache
    assert "each token reads the whole text anew" in str(facts.notes[0])
    context = PassContext(facts, targets.get("cpu").probe(), frozenset())
    for name in ("kv_cache", "prompt_lookup", "assistant", "early_exit", "chunked_prefill", "compile_decode"):
        assert "use_cache" in str(passes.get(name).check(context)), name
        usual = PassContext(replace(facts, keeps_cache=True), context.target, frozenset())
        assert "use_cache" not in str(passes.get(name).check(usual))


def test_only_as_many_tokens_as_were_asked_for_end_by_length():
    assert [ended(8, 8, finished=True), ended(3, 8, finished=True), ended(3, 8, finished=False)] == [
        "length",
        "stop",
        "cancelled",
    ]


def test_a_generate_that_stops_by_itself_is_told_so(folder, monkeypatch):
    """Models may bring a ``generate`` of their own that knows better than to go on."""
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "pad_token_id": 0}))
    load = catalog.load

    def stopping(config: ModelConfig, device: str, progress: Progress) -> Any:
        loaded = load(config, device, progress)
        own = loaded.model.generate

        def generate(**arguments: Any) -> Any:
            return own(**{**arguments, "max_new_tokens": 3, "min_new_tokens": 3})

        loaded.model.__dict__["generate"] = generate
        return loaded

    monkeypatch.setattr(catalog, "load", stopping)
    done = run_with(folder, {})
    assert done.trace.outputs[0].finish_reason == "stop"
    assert done.trace.requests["output_tokens"].tolist() == [3]
