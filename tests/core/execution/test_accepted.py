"""A prompt is given as the model takes it, and refused before the run where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.config import ModelConfig
from core.errors import Refusal
from core.execution.tasks.accepted import accepted, check_tokens, embeddings
from core.progress import Progress
from core.records.run import Run
from tests.support.small_runs import carried_out
from tests.support.tiny_models import save_model, save_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    where: Path = tmp_path_factory.mktemp("model")
    save_model(where)
    save_tokenizer(where)
    return where


def run(folder: Path, prompt: str = "w1 w2 w3 w4") -> Run:
    return carried_out(ModelConfig(str(folder)), prompt=prompt, new_tokens=4)


def change(folder: Path, name: str, **settings: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_what_the_model_does_not_take_is_left_out(folder):
    plain = run(folder).trace.outputs[0]
    change(folder, "tokenizer_config.json", model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    assert run(folder).trace.outputs[0] == plain


def test_only_named_arguments_are_accepted():
    class Named:
        def forward(self, input_ids: Any, **kwargs: Any) -> None: ...

    class Anything:
        def forward(self, **kwargs: Any) -> None: ...

    given = {"input_ids": 1, "token_type_ids": 2}
    assert accepted(given, Named()) == {"input_ids": 1}
    assert accepted(given, Anything()) == given


def test_a_prompt_of_which_the_tokenizer_makes_nothing_is_refused_before_the_run(folder):
    path = folder / "tokenizer.json"
    before = path.read_text()
    change(folder, "tokenizer.json", normalizer={"type": "Replace", "pattern": {"Regex": "z+"}, "content": ""})
    try:
        with pytest.raises(Refusal, match="The prompt has no tokens for"):
            run(folder, "zzz")
    finally:
        path.write_text(before)


def test_a_token_beyond_the_embeddings_is_refused_before_the_run(folder):
    path = folder / "tokenizer.json"
    before = path.read_text()
    words = json.loads(before)
    words["model"]["vocab"] |= {f"w{number}": number + 3 for number in range(61, 101)}
    path.write_text(json.dumps(words))
    try:
        with pytest.raises(Refusal, match=r"knows 104 tokens, but the model has 64: 'w99' of the prompt is token 102"):
            run(folder, "w1 w99")
        assert run(folder, "w1 w2").facts.status == "finished"  # its other words are fine
    finally:
        path.write_text(before)


def test_a_model_that_tells_no_embeddings_is_not_judged():
    class Mute:
        def get_input_embeddings(self) -> None:
            raise NotImplementedError

    class Loaded:
        model = Mute()

        class facts:  # noqa: N801 - as the attribute is called
            name = "mute"

    assert embeddings(Mute()) is None
    check_tokens([5_000_000], Loaded())  # type: ignore[arg-type]


def test_a_tokenizer_that_needs_another_package_names_that_one(tmp_path, monkeypatch):
    from core.models import loading
    from core.models.loading import load_tokenizer

    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None)  # as where it is not installed
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02\n\x0c\n\x03<s>")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(Refusal, match="pip install sentencepiece"):
        load_tokenizer(tmp_path, ModelConfig(str(tmp_path)), Progress())
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")  # tiktoken's own format
    with pytest.raises(Refusal, match="cannot be read"):
        load_tokenizer(tmp_path, ModelConfig(str(tmp_path)), Progress())
