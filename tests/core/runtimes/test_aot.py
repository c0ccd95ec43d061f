"""AOTInductor: compiled once, found again at the next start, with the model's own weights and torch's results."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, GPT2Config, LlamaConfig

from core.config import PassConfig
from core.errors import Refusal
from core.pass_api.base import PassReport
from core.pass_api.subject import Execution, Subject
from core.planning import plan
from tests.core.passes.test_passes import CPU, CUDA, facts

IDS = torch.arange(12).reshape(2, 6) + 3
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 64}


def bert() -> torch.nn.Module:
    return AutoModel.from_config(BertConfig(**SMALL, max_position_embeddings=32))


def llama() -> torch.nn.Module:
    return AutoModelForCausalLM.from_config(LlamaConfig(**SMALL, num_key_value_heads=2, initializer_range=0.2))


def gpt2() -> torch.nn.Module:
    config = GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=64, n_positions=64, initializer_range=0.2)
    return AutoModelForCausalLM.from_config(config)


def made(build: Callable[[], torch.nn.Module], seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build().eval().requires_grad_(False)


def applied(model: torch.nn.Module, task: str) -> tuple[Subject, PassReport]:
    subject = Subject(model, task, Execution(1), 32, 1)
    (report,) = plan.apply_all(subject, [PassConfig("aot_inductor")])
    return subject, report


def tokens(model: Any, ids: torch.Tensor, count: int = 8) -> list[list[int]]:
    fixed = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, "pad_token_id": 0}
    return model.generate(ids, attention_mask=torch.ones_like(ids), **fixed).tolist()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TICKSCOPE_CACHE", str(tmp_path))
    return tmp_path


class Library:
    """The exported graph itself, in the place of the compiled library (the compiler takes half a minute each time)."""

    def __init__(self, path: str) -> None:
        self._graph = torch.export.load(path)
        self._module = self._graph.module(check_guards=False)  # as the library, which has none

    def get_constant_fqns(self) -> list[str]:
        return [*self._graph.state_dict, *self._graph.constants]

    def load_constants(self, given: dict[str, torch.Tensor], *, check_full_update: bool, user_managed: bool) -> None:
        assert check_full_update
        assert user_managed
        for name, tensor in (*self._module.named_parameters(), *self._module.named_buffers()):
            tensor.data = given[name]

    def __call__(self, tensors: list[torch.Tensor]) -> Any:
        return self._module(tensors)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands in for inductor; collects what was to be compiled."""
    asked: list[Any] = []

    def keep(graph: Any, *, package_path: Any, inductor_configs: dict[str, Any]) -> None:
        assert inductor_configs["aot_inductor.package_constants_in_so"] is False
        asked.append(package_path)
        torch.export.save(graph, package_path)  # into memory: writing archives to a full disk ends the process

    monkeypatch.setattr("torch._inductor.aoti_compile_and_package", keep)
    monkeypatch.setattr("torch._inductor.aoti_load_package", Library)
    return asked


_GRAPHS: list[Any] = []


@pytest.fixture
def exported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny encoder is exported for the first test only: that takes seconds, and it is always the same graph."""
    export = torch.export.export

    def once(*args: Any, **kwargs: Any) -> Any:
        if not _GRAPHS:
            _GRAPHS.append(export(*args, **kwargs))
        return _GRAPHS[0]

    monkeypatch.setattr("torch.export.export", once)


@torch.no_grad()
def test_a_compiled_encoder_gives_the_same_numbers_and_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, model = made(bert), made(bert)
    subject, report = applied(model, "embedding")
    assert "was compiled now" in str(report.notes[0])
    assert subject.execution.runtime.name.startswith("AOTInductor 2.")
    assert subject.execution.runtime.clock is None
    assert "does not tell when its layers begin" in str(subject.execution.untickable)
    for ids in (IDS, IDS[:1], IDS[:, :3]):
        given, expected = model(input_ids=ids), plain(input_ids=ids)
        assert type(given) is type(expected)
        torch.testing.assert_close(given.last_hidden_state, expected.last_hidden_state, rtol=0, atol=1e-4)
        torch.testing.assert_close(given.pooler_output, expected.pooler_output, rtol=0, atol=1e-4)
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1] * 6])
    masked = model(input_ids=IDS, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(masked, plain(input_ids=IDS, attention_mask=mask).last_hidden_state, rtol=0, atol=1e-4)
    with pytest.raises(Refusal, match="input_ids is 1 × 1"):  # torch found out that it treats one position apart
        model(input_ids=IDS[:1, :1])
    with pytest.raises(Refusal, match="input_ids is 1 × 33"):  # it knows 32 positions, and would read on past them
        model(input_ids=torch.ones(1, 33, dtype=torch.long))
    with pytest.raises(Refusal, match=r"could not run .*fits the model"):
        model(input_ids=torch.full((1, 4), 64))  # the first token that it does not know

    def not_again(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr("torch._inductor.aoti_compile_and_package", not_again)
    other, same = made(bert, seed=1), made(bert, seed=1)  # the library holds no weights
    _, report = applied(other, "embedding")
    assert "was on disk" in str(report.notes[0])
    torch.testing.assert_close(other(IDS).last_hidden_state, same(IDS).last_hidden_state, rtol=0, atol=1e-4)
    subject.undo.close()
    assert torch.equal(model(IDS).last_hidden_state, plain(IDS).last_hidden_state)
    assert subject.execution.runtime is None


@pytest.mark.parametrize("build", [llama, gpt2])
@torch.no_grad()
def test_language_models_are_one_graph(build: Callable[[], torch.nn.Module], uncompiled: list[Any]) -> None:
    plain, model = made(build), made(build)
    subject, report = applied(model, "text-generation")
    assert str(report.summary) == "one compiled graph for prefill and decode alike"
    for ids in (IDS, IDS[:1], IDS[:, :3]):
        assert tokens(model, ids) == tokens(plain, ids)
    torch.testing.assert_close(model(IDS).logits, plain(IDS).logits, rtol=0, atol=1e-4)
    last = model(IDS, logits_to_keep=1).logits
    torch.testing.assert_close(last, plain(IDS).logits[:, -1:], rtol=0, atol=1e-4)
    cache = model(IDS).past_key_values
    assert cache.get_seq_length() == IDS.shape[1]
    assert len(uncompiled) == 1
    subject.undo.close()
    assert tokens(model, IDS) == tokens(plain, IDS)


@pytest.mark.usefixtures("exported_once")
def test_what_was_cut_short_is_made_again(uncompiled: list[Any], cache: Path) -> None:
    applied(made(bert), "embedding")
    (folder,) = (cache / "aot").iterdir()
    (folder / "outline.json").unlink()
    _, report = applied(made(bert), "embedding")
    assert "was compiled now" in str(report.notes[0])
    assert sorted(one.name for one in (cache / "aot").iterdir()) == [folder.name, f"{folder.name}.damaged"]
    assert len(uncompiled) == 2


@pytest.mark.usefixtures("exported_once")
def test_other_results_than_torch_are_refused(uncompiled: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Library, "__call__", lambda self, tensors: [2 * one for one in self._module(tensors)])
    model = made(bert)
    subject = Subject(model, "embedding", Execution(1), 32, 1)
    with pytest.raises(Refusal, match="gives other results than torch"):
        plan.apply_all(subject, [PassConfig("aot_inductor")])
    subject.undo.close()
    assert torch.equal(model(IDS).last_hidden_state, made(bert)(IDS).last_hidden_state)


def test_where_it_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def why(target: Any = CPU, **changes: Any) -> str | None:
        return plan.reasons(facts(**changes), target, [])["aot_inductor"]

    assert str(why(CUDA)) == "it is set up for the CPU only"
    assert "not text to text" in str(why(task="seq2seq"))
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert "needs a C++ compiler" in str(why())


@pytest.mark.usefixtures("exported_once")
def test_a_compiler_that_fails_is_a_refusal(uncompiled: list[Any], monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    def failing(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("C++ compile error\n\nand much more")

    monkeypatch.setattr("torch._inductor.aoti_compile_and_package", failing)
    model = made(bert)
    with pytest.raises(Refusal, match=r"cannot compile BertModel \(C\+\+ compile error\)"):
        applied(model, "embedding")
    assert list((cache / "aot").iterdir()) == []
    assert "forward" not in model.__dict__


@pytest.mark.usefixtures("exported_once")
@pytest.mark.parametrize("full", [OSError(28, "No space left on device"), RuntimeError("g++: No space left on device")])
def test_a_disk_that_fills_is_a_refusal_that_says_so(
    uncompiled: list[Any], monkeypatch: pytest.MonkeyPatch, cache: Path, full: Exception
) -> None:
    def filling(*_args: Any, **_kwargs: Any) -> None:
        raise full

    monkeypatch.setattr("torch._inductor.aoti_compile_and_package", filling)
    with pytest.raises(Refusal, match=r"free some space"):
        applied(made(bert), "embedding")
    assert list((cache / "aot").iterdir()) == []


def test_without_room_nothing_is_compiled(uncompiled: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil._ntuple_diskusage(100, 99, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(Refusal, match=r"Compiling a graph needs 100 MiB in .* and 1 B is free"):
        applied(made(bert), "embedding")
    assert uncompiled == []
