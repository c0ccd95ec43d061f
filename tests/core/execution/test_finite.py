"""A model whose numbers are none is told, in its notes; its times are real all the same."""

import pytest
import torch

from core.config import ModelConfig
from core.execution.finite import choosable
from core.execution.recording import NOT_FINITE
from tests.support.small_runs import carried_out
from tests.support.tiny_models import save_model, save_tokenizer


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_generating_model_that_gives_none_is_told_once(tmp_path, value):
    model = save_model(tmp_path)
    with torch.no_grad():
        model.lm_head.weight[5] = value
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    run = carried_out(ModelConfig(str(tmp_path)), prompt_tokens=4, new_tokens=3, repeats=2)
    assert run.facts.status == "finished"
    assert run.facts.model.notes.count(NOT_FINITE) == 1
    assert (run.trace.moments["latency_ns"] > 0).all()


def test_a_norm_without_numbers_is_told_and_a_sound_model_is_not(tmp_path):
    model = save_model(tmp_path)
    save_tokenizer(tmp_path)
    sound = carried_out(ModelConfig(str(tmp_path)), prompt_tokens=4, new_tokens=3)
    assert NOT_FINITE not in sound.facts.model.notes
    (tmp_path / "none").mkdir()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    model.save_pretrained(tmp_path / "none")
    save_tokenizer(tmp_path / "none")
    assert NOT_FINITE in carried_out(ModelConfig(str(tmp_path / "none")), prompt_tokens=4, new_tokens=3).facts.model.notes


@pytest.mark.parametrize(
    ("logits", "fine"),
    [
        ([0.0, 1.0], True),
        ([float("-inf"), 1.0], True),
        ([float("-inf"), float("-inf")], False),
        ([float("nan"), 1.0], False),
        ([1.0, float("inf")], False),
    ],
)
def test_a_ruled_out_token_is_no_fault(logits, fine):
    assert choosable(torch.tensor([[[float("nan")] * 2, logits]])) is fine
    assert choosable(torch.tensor([logits], dtype=torch.bfloat16)) is fine


@pytest.mark.parametrize("nothing", [None, (), torch.tensor([1]), torch.zeros(1, 0, 4)])
def test_where_there_are_no_logits_nothing_is_said(nothing):
    assert choosable(nothing)
