"""llama.cpp as an engine, with its packages made up: right tokens, one sequence at a time, and honest about what it knows."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.config import ModelConfig, PassConfig
from core.errors import Refusal
from core.execution.cache_size import cache_bytes
from core.model_parts.weights import weight_bytes
from core.pass_api.base import PassReport
from core.pass_api.subject import Execution, Subject
from core.planning import plan
from tests.core.passes.test_passes import CPU, CUDA, facts
from tests.support.fake_llama import FILE_BYTES, FakeLlama, install_cyllama, install_llama_cpp_python
from tests.support.tiny import tiny_llama

IDS = torch.arange(6)[None] + 3


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that begins as GGUF's do."""
    path = tmp_path / "Tiny.Q8_0.gguf"
    path.write_bytes(b"GGUF and what follows")
    return path


def from_gguf(file: Path) -> torch.nn.Module:
    """A model as if it had been converted from that file."""
    (file.parent / "source.json").write_text(json.dumps({"file": str(file)}), "utf-8")
    model = tiny_llama(2, 32)
    model.name_or_path = str(file.parent)
    return model


@pytest.fixture(params=["llama_cpp", "cyllama"])
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeLlama:
    """Either package, with the model of ``tiny_llama`` behind it."""
    made = FakeLlama(tiny_llama(2, 32))
    if request.param == "llama_cpp":
        install_llama_cpp_python(monkeypatch, made)
    else:
        install_cyllama(monkeypatch, made, tmp_path)
    return made


def applied(model: torch.nn.Module, **options: Any) -> tuple[Subject, PassReport]:
    subject = Subject(model, "text-generation", Execution(1), 64, 1)
    (report,) = plan.apply_all(subject, [PassConfig("llama_cpp", options)])
    return subject, report


def tokens(model: Any, count: int = 8) -> list[list[int]]:
    fixed = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, "pad_token_id": 0}
    return model.generate(IDS, attention_mask=torch.ones_like(IDS), **fixed).tolist()


def test_generates_the_same_tokens_step_by_step(fake: FakeLlama, file: Path) -> None:
    subject, _ = applied(from_gguf(file))
    assert fake.opened == [file]
    assert tokens(subject.model) == tokens(fake.model)
    fake.widths.clear()
    assert tokens(subject.model) == tokens(fake.model)  # a new sequence, after the first one was forgotten
    assert fake.widths == [6] + [1] * 7


@torch.no_grad()
def test_gives_the_positions_that_are_asked_for(fake: FakeLlama, file: Path) -> None:
    model = applied(from_gguf(file))[0].model
    expected = fake.model(IDS).logits
    torch.testing.assert_close(model(IDS, use_cache=False).logits, expected)
    torch.testing.assert_close(model(IDS, logits_to_keep=2).logits, expected[:, -2:])
    torch.testing.assert_close(model(IDS, logits_to_keep=torch.tensor([1, 4])).logits, expected[:, [1, 4]])


@torch.no_grad()
def test_the_cache_tells_length_and_bytes_and_knows_its_sequence(fake: FakeLlama, file: Path) -> None:
    model = applied(from_gguf(file))[0].model
    first = model(IDS).past_key_values
    assert first.get_seq_length() == 6
    assert cache_bytes(first) == 2 * 2 * 2 * 8 * 6 * 2  # keys and values, layers, heads, width, positions, 16 bits
    model(IDS[:, :1], past_key_values=first)
    assert first.get_seq_length() == 7
    other = model(torch.cat((IDS, IDS[:, :1]), 1)).past_key_values
    with pytest.raises(Refusal, match="one sequence at a time, and this is not the one"):
        model(IDS[:, :1], past_key_values=first)
    model(IDS[:, :1], past_key_values=other)
    with pytest.raises(Refusal, match="choose a batch of 1"):
        model(IDS.repeat(2, 1))
    with pytest.raises(Refusal, match="was opened for 512 positions"):
        model(torch.ones(1, 513, dtype=torch.long))


def test_says_what_runs_and_comes_back(fake: FakeLlama, file: Path) -> None:
    model = from_gguf(file)
    before = weight_bytes(model)
    subject, report = applied(model, repack="false")
    runtime = subject.execution.runtime
    assert runtime.name in ("llama.cpp b1234", "llama.cpp b5678")
    assert str(report.summary).startswith(f"{runtime.name} runs Tiny.Q8_0.gguf (llama tiny Q8_0)")
    assert (report.weight_bytes_before, report.weight_bytes_after, runtime.weight_bytes) == (before, FILE_BYTES, FILE_BYTES)
    assert report.predicted["decode"] == pytest.approx(before / FILE_BYTES)
    assert report.kernels == ()
    assert runtime.census() == {}
    assert runtime.clock is None
    assert "does not tell when its layers" in str(subject.execution.untickable)
    assert (fake.params.n_gpu_layers, fake.params.use_extra_bufts) == (0, False)
    assert (fake.context.n_ctx, fake.context.n_threads, fake.context.n_threads_batch) == (512, 1, 1)
    told = " ".join(map(str, report.notes))
    assert ("AVX2 = 1 | FMA = 1" in told) == (runtime.name == "llama.cpp b1234")
    assert ("does not say which instructions" in told) == (runtime.name == "llama.cpp b5678")
    assert weight_bytes(model) < before
    subject.undo.close()
    subject.undo.close()
    assert "forward" not in model.__dict__
    assert len(fake.freed) == 3


def test_llama_cpp_python_goes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path) -> None:
    ours, theirs = FakeLlama(tiny_llama(2, 32)), FakeLlama(tiny_llama(2, 32))
    install_cyllama(monkeypatch, theirs, tmp_path)
    install_llama_cpp_python(monkeypatch, ours)
    applied(from_gguf(file))
    assert (len(ours.opened), len(theirs.opened)) == (1, 0)


def test_another_file_is_taken_and_a_wrong_one_refused(fake: FakeLlama, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "Tiny.Q4_0.gguf"
    other.write_bytes(b"GGUF")
    model = tiny_llama(2, 32)
    with pytest.raises(Refusal, match="this model comes from none; give one of the same vocabulary as file=PATH"):
        applied(copy.deepcopy(model))
    subject, _ = applied(copy.deepcopy(model), file=str(other))
    assert fake.opened == [other]
    assert tokens(subject.model) == tokens(fake.model)
    with pytest.raises(Refusal, match="There is no file"):
        applied(copy.deepcopy(model), file=str(tmp_path / "none.gguf"))
    other.write_bytes(b"PK")
    with pytest.raises(Refusal, match=r"cannot open Tiny\.Q4_0\.gguf \("):
        applied(copy.deepcopy(model), file=str(other))
    fake.model = tiny_llama(1, 32)
    fake.model.config.vocab_size = 99
    fake.freed.clear()
    with pytest.raises(Refusal, match="a vocabulary of 99 tokens and the model one of 256"):
        applied(copy.deepcopy(model), file=str(file))
    assert len(fake.freed) == 3  # nothing of it stays open


def test_where_it_cannot_be_used(fake: FakeLlama, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def why(target: Any = CPU, **changes: Any) -> str | None:
        return plan.reasons(replace(facts(), **changes), target, [])["llama_cpp"]

    assert why() is None
    assert str(why(CUDA)) == "it is set up for the CPU only"
    assert str(why(task="embedding")) == "takes text generation, not text embedding"
    with pytest.raises(Refusal, match="choose a batch of 1"):
        plan.apply_all(Subject(from_gguf(file), "text-generation", Execution(1), 64, 2), [PassConfig("llama_cpp")])
    for name in ("llama_cpp", "cyllama"):
        monkeypatch.setitem(sys.modules, name, None)
    assert str(why()) == "needs cyllama: pip install 'tickscope[llama]'"
    with pytest.raises(Refusal, match="needs cyllama"):
        applied(from_gguf(file))


def test_a_converted_model_knows_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.models import catalog
    from core.progress import Progress
    from core.runtimes.llama_engine import file_of
    from tests.support.tiny_models import save_gguf

    monkeypatch.setenv("TICKSCOPE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "tiny.gguf"
    save_gguf(path)
    loaded = catalog.load(ModelConfig(str(path)), "cpu", Progress())
    assert file_of(loaded.model) == path
    assert file_of(tiny_llama(1, 32)) is None
