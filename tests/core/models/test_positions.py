"""How long a sequence a model can read: tables end, rotations and slopes do not, and RoBERTa's begin after the padding."""

from __future__ import annotations

from typing import Any

import pytest

from core.config import ModelConfig
from core.errors import Refusal
from core.execution.workload import beyond_context
from core.models.files import first_number
from core.models.positions import before_loading, of_model
from tests.support.small_runs import carried_out
from tests.support.tiny import TINY_LLAMA, tiny_llama

SIZES = "hidden_size=32&intermediate_size=64&num_hidden_layers=1&num_attention_heads=4&vocab_size=128"
T5 = "arch:t5?d_model=32&d_kv=8&d_ff=64&num_layers=1&num_heads=4&vocab_size=128"


@pytest.mark.parametrize("kind", ["roberta", "camembert", "xlm-roberta", "mpnet", "data2vec-text"])
def test_positions_begin_after_the_padding(kind):
    spec = f"arch:{kind}?{SIZES}&max_position_embeddings=66&pad_token_id=1"
    done = carried_out(ModelConfig(spec), prompt_tokens=64)
    assert done.facts.model is not None
    assert (done.facts.model.context_length, done.facts.model.context_is_soft) == (64, False)
    with pytest.raises(Refusal, match="has room for 64 tokens, but 65"):
        carried_out(ModelConfig(spec), prompt_tokens=65)


def test_where_positions_are_a_table_its_end_is_the_end():
    spec = f"arch:bert?{SIZES}&max_position_embeddings=66"
    assert carried_out(ModelConfig(spec), prompt_tokens=66).facts.status == "finished"
    with pytest.raises(Refusal, match="has room for 66"):
        carried_out(ModelConfig(spec), prompt_tokens=67)
    opt = f"arch:opt?hidden_size=32&ffn_dim=64&word_embed_proj_dim=32&{SIZES.partition('&')[2].partition('&')[2]}"
    opt += "&max_position_embeddings=20"  # its table has two rows more
    assert carried_out(ModelConfig(opt), prompt_tokens=16, new_tokens=4).facts.status == "finished"
    with pytest.raises(Refusal, match="has room for 20"):
        carried_out(ModelConfig(opt), prompt_tokens=17, new_tokens=4)


def test_relative_positions_have_no_end():
    done = carried_out(ModelConfig(T5), prompt_tokens=600, new_tokens=2)
    assert done.facts.model is not None
    assert done.facts.model.context_length is None
    assert before_loading({"model_type": "t5", "n_positions": 512, "relative_attention_num_buckets": 32}, 512) is None


def test_a_text_longer_than_a_rotating_model_was_made_for_runs_and_says_so():
    spec = TINY_LLAMA.replace("max_position_embeddings=4096", "max_position_embeddings=16")
    done = carried_out(ModelConfig(spec), prompt_tokens=20, new_tokens=2)
    facts = done.facts.model
    assert facts is not None
    assert (facts.context_length, facts.context_is_soft) == (16, True)
    assert "A request is 22 tokens long, but" in str(facts.notes[-1])
    assert "was made for 16" in str(facts.notes[-1])
    assert beyond_context(facts, 16) is None


def test_the_tokenizers_limit_counts_where_it_is_lower():
    model = tiny_llama(1)
    assert of_model(model, 4096, 100) == (100, True)
    assert of_model(model, 4096, None) == (4096, True)
    assert of_model(model, None, 100) == (None, False)


def test_before_loading_the_config_alone_is_asked():
    assert before_loading({"model_type": "roberta", "pad_token_id": 1}, 514) == 512
    assert before_loading({"model_type": "roberta"}, 514) == 512
    assert before_loading({"model_type": "bert"}, 512) == 512
    assert before_loading({"model_type": "bert"}, None) is None


@pytest.mark.parametrize("value", [True, -1, 0, "512", None, 3.5])
def test_what_is_no_length_is_none(value: Any):
    assert first_number({"n_ctx": value}, ["n_ctx"]) is None
