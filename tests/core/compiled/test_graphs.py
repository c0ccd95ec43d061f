"""Compiled steps: called without dynamo once captured, found on disk at the next start, never used where they do not fit."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from core.compiled import step_graph, step_plan
from core.compiled.key import graph_key
from core.compiled.step_library import LIBRARY
from core.config import PassConfig
from core.errors import Refusal
from core.planning import plan
from core.planning.kernels import as_run
from tests.support.tiny import subject, tiny_llama

IDS = torch.tensor([[5, 9, 2, 7]])


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TICKSCOPE_CACHE", str(tmp_path))
    return tmp_path / "graphs"


def tokens(model: Any, **settings: Any) -> list[int]:
    out = model.generate(IDS, max_new_tokens=6, min_new_tokens=6, do_sample=False, **settings)
    return [int(token) for token in out[0]]


def compiled(model: Any) -> Any:
    made = subject(model)
    made.max_length = 16
    plan.apply_all(made, [PassConfig("compile_decode")])
    return made


def end(made: Any) -> None:
    made.undo.close()


@pytest.fixture(scope="module")
def first_start(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """The cache's folder after a first start, and its tokens; compiling takes ten seconds, so it is done once."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TICKSCOPE_CACHE", str(folder))
        first = compiled(tiny_llama(1))
        with as_run(first):
            found = tokens(first.model, **first.execution.generation)
        assert str(first.afterwards["compile_decode"]()[0]).endswith("it was compiled once.")
        end(first)
    return folder, found


@pytest.fixture
def kept(own_cache: Path, first_start: tuple[Path, list[int]], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The same folder at a second start, in which nothing may be compiled; the tokens of the first."""
    shutil.copytree(first_start[0], own_cache.parent, dirs_exist_ok=True)
    monkeypatch.setattr(step_graph.StepGraph, "_compile", compiled_again)
    return first_start[1]


def compiled_again(*_: Any) -> Any:
    raise NotImplementedError("compiled again")


def test_the_second_start_finds_the_graph_and_compiles_nothing(kept: list[int]) -> None:
    assert kept == tokens(tiny_llama(1))
    second = compiled(tiny_llama(1))
    with as_run(second):
        assert tokens(second.model, **second.execution.generation) == kept
        assert "from disk" in str(second.afterwards["compile_decode"]()[0])
    end(second)


def test_another_model_of_the_same_class_is_another_graph(own_cache: Path) -> None:
    names = {graph_key(model, {}, 1, 16) for model in (tiny_llama(1), tiny_llama(2), tiny_llama(1, 32))}
    assert len(names) == 3
    assert graph_key(tiny_llama(1), {}, 1, 16) == graph_key(tiny_llama(1), {}, 1, 16)
    assert graph_key(tiny_llama(1), {}, 1, 16) != graph_key(tiny_llama(1), {}, 1, 17)
    assert graph_key(tiny_llama(1), {}, 1, 16) != graph_key(tiny_llama(1).bfloat16(), {}, 1, 16)


def test_code_that_was_changed_is_another_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def key(text: str) -> str:
        (tmp_path / "own_model.py").write_text(text)
        spec = importlib.util.spec_from_file_location("own_model", tmp_path / "own_model.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "own_model", module)
        spec.loader.exec_module(module)
        return graph_key(module.Own(), {})

    text = "import torch\nclass Own(torch.nn.Module):\n    def forward(self, x):\n        return x + 1\n"
    assert key(text) == key(text)
    assert key(text) != key(text.replace("x + 1", "x + 2"))
    monkeypatch.delitem(sys.modules, "own_model")
    made = type("Own", (torch.nn.Module,), {"__module__": "own_model"})
    assert graph_key(made(), {}) != key(text)


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("part", [LIBRARY, "plan.json"])
def test_a_graph_that_was_cut_short_on_disk_is_compiled_again(own_cache: Path, part: str) -> None:
    (folder,) = own_cache.iterdir()
    whole = (folder / part).read_bytes()
    (folder / part).write_bytes(whole[: len(whole) // 2])
    second = compiled(tiny_llama(1))
    with as_run(second), pytest.raises(RuntimeError, match="compiled again"):
        tokens(second.model, **second.execution.generation)
    end(second)


def test_where_a_graph_cannot_be_kept_the_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKSCOPE_CACHE", f"{os.devnull}/nothing")  # no folder can be made there, by root neither
    made = compiled(tiny_llama(1))
    with as_run(made), pytest.raises(Refusal, match=r"cannot be kept in .*free some space"):
        tokens(made.model, **made.execution.generation)
    end(made)


@pytest.mark.usefixtures("own_cache")
def test_a_graph_with_ticks_is_kept_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tokens(tiny_llama(1))
    heard = []
    for start in range(2):
        made = compiled(tiny_llama(1))
        step = made.execution.step
        step.call = step.ticked
        step.ticks.install()
        with as_run(made):
            assert tokens(made.model, **made.execution.generation) == expected
        step.ticks.remove()
        heard.append((len(step.ticks._log), step.ticks.expected, step.ticks.problem))
        end(made)
        if start == 0:
            monkeypatch.setattr(step_graph.StepGraph, "_compile", lambda *_: pytest.fail("compiled again"))
    assert heard[0] == heard[1]
    assert heard[0][0] == 5 * heard[0][1] > 0  # five of the six tokens are decoded
    assert heard[0][2] is None


def test_a_call_of_another_shape_does_not_run_the_graph() -> None:
    shape = {"input_ids": torch.zeros(1, 1, dtype=torch.long), "use_cache": True}
    shapes, others = step_plan.signature(shape)
    made = step_plan.Plan((), shapes, others, ("NoneType", 0), ("builtins", "dict"), ())
    assert step_plan.fits(made, shape)
    assert not step_plan.fits(made, shape | {"use_cache": False})
    assert not step_plan.fits(made, shape | {"input_ids": torch.zeros(2, 1, dtype=torch.long)})
    assert not step_plan.fits(made, shape | {"position_ids": torch.zeros(1, 1)})


def test_a_plan_is_the_same_after_being_written_and_read(tmp_path: Path) -> None:
    places = (
        step_plan.Place("weight", "a.b"),
        step_plan.Place("cache", "keys", 3),
        step_plan.Place("in attention_mask", "full"),
    )
    made = step_plan.Plan(
        places, (("a", "(1,)"),), (("b", "1"),), ("StaticCache", 16), ("m", "C"), (("logits", 0),), (1, 2), {"w": "a.b"}
    )
    (tmp_path / "plan.json").write_text(step_plan.written(made))
    assert step_plan.read(tmp_path / "plan.json") == made


def test_compiled_forward_gives_an_encoders_numbers() -> None:
    from tests.core.passes.test_passes import bert

    model = bert()
    with torch.no_grad():
        expected = model(input_ids=IDS).last_hidden_state
        made = subject(model, "embedding")
        (report,) = plan.apply_all(made, [PassConfig("compile_forward")])
        with as_run(made):
            for _ in range(2):
                assert torch.allclose(model(input_ids=IDS).last_hidden_state, expected, atol=1e-5)
    assert made.execution.is_compiled(4, 0)
    assert report.changed_modules == 1
    end(made)
    assert not made.execution.is_compiled(4, 0)


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("part", [LIBRARY, "plan.json"])
def test_one_bit_that_turned_on_disk_is_not_taken(own_cache: Path, part: str, caplog: pytest.LogCaptureFixture) -> None:
    (folder,) = own_cache.iterdir()
    whole = bytearray((folder / part).read_bytes())
    whole[len(whole) // 2] ^= 1
    (folder / part).write_bytes(whole)
    second = compiled(tiny_llama(1))
    with as_run(second), pytest.raises(RuntimeError, match="compiled again"):
        tokens(second.model, **second.execution.generation)
    end(second)
    assert "is not as it was written; it was set aside" in caplog.text.replace(")", "")
