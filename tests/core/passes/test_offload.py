"""Offload: weights lie on the disk until their block runs, loading is a layer of its own, and nothing is left behind."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from core.config import PassConfig
from core.errors import Cancelled, Refusal
from core.model_parts.weights import weight_bytes
from core.models.sample_inputs import small_call
from core.models.stages import layers_of
from core.pass_api.subject import Execution, Subject
from core.passes import offload
from core.passes.offload import chosen_blocks
from core.planning import plan
from profilers.layer_clock import LayerClock
from profilers.trace import KINDS, Tag
from tests.core.execution.test_moments import Bench, workload
from tests.core.passes.test_kernel_passes import apply, build, tokens, undo
from tests.support.tiny import tiny_llama


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "offloaded"


def choice(folder: Path, **options: Any) -> PassConfig:
    return PassConfig("offload", {"folder": str(folder), **options})


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "qwen2_moe"])
@pytest.mark.parametrize("past_cache", [True, False])
def test_tokens_are_the_same_and_the_weights_are_not_in_memory(name: str, past_cache: bool, folder: Path) -> None:
    model = build(name)
    expected, before = tokens(model), weight_bytes(model)
    blocks = model.get_submodule(
        "model.layers" if name in ("llama", "qwen2_moe") else "transformer.h" if name == "gpt2" else "model.decoder.layers"
    )
    held = sum(parameter.nbytes for parameter in blocks[1].parameters())
    _, (report,) = apply(model, choice(folder, past_cache=past_cache))
    assert tokens(model) == expected
    assert report.changed_modules == 1
    assert str(report.summary).startswith("blocks 1 of 2 → disk, ")
    assert report.weight_bytes_before == before
    # four bytes of each weight stay
    assert before - held <= weight_bytes(model) <= before - held + 4 * len(list(blocks[1].parameters()))
    assert sum(file.stat().st_size for file in folder.rglob("*.weights")) >= held
    assert ("hardly read" in str(report.notes[-1])) is not past_cache


def test_weights_come_back_bit_for_bit_in_bfloat16(folder: Path) -> None:
    model = build("llama").to(torch.bfloat16)
    call = small_call(model)
    assert call is not None
    expected = call()
    before = {name: parameter.clone() for name, parameter in model.model.layers[0].named_parameters()}
    made, _ = apply(model, choice(folder, blocks="0-1"))
    assert all(torch.equal(one, other) for one, other in zip(call(), expected, strict=True))
    model.model.layers[0].weights()
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.model.layers[0].named_parameters())
    undo(made)


def test_between_calls_nothing_of_a_block_is_loaded(folder: Path) -> None:
    model = build("bert")
    weight = model.encoder.layer[1].output.dense.weight
    shape, parameters = weight.shape, sum(parameter.numel() for parameter in model.parameters())
    made, (report,) = apply(model, choice(folder), task="embedding")
    model(torch.arange(6)[None])
    assert weight.untyped_storage().nbytes() == 4
    assert weight.shape == shape
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert "at most one block's" in str(report.notes[0])
    undo(made)


def test_switching_it_off_removes_files_hooks_and_layers(folder: Path) -> None:
    model = build("llama")
    paths = [path for path, _ in model.named_modules()]
    made, _ = apply(model, choice(folder))
    assert len(list(folder.iterdir())) == 1
    undo(made)
    assert list(folder.iterdir()) == []
    assert [path for path, _ in model.named_modules()] == paths
    assert not any("forward" in module.__dict__ or hasattr(module, "_hf_hook") for module in model.modules())


def test_loading_is_a_layer_of_the_stage_transfer(folder: Path) -> None:
    bench = Bench(tiny_llama(), workload(new_tokens=5, repeats=2, warmup=0))
    plain = Bench(tiny_llama(), workload(new_tokens=5, repeats=2, warmup=0)).run()
    plan.apply_all(bench.subject, [choice(folder, blocks="1-2")])
    layers = layers_of(bench.model)
    loading = [row for row, layer in enumerate(layers) if layer.stage == "transfer"]
    assert [(layers[row].path, layers[row].type) for row in loading] == [
        ("model.layers.1.weights", "Transfer"),
        ("model.layers.2.weights", "Transfer"),
    ]
    bench.watch.clock = LayerClock(bench.model)
    trace = bench.run()
    assert [output.token_ids for output in trace.outputs] == [output.token_ids for output in plain.outputs]
    traced = (trace.moments["tags"] & Tag.TRACED > 0).sum()
    for row in loading:
        mine = trace.spans["layer"] == row
        assert mine.sum() == traced > 0
        assert (trace.spans["duration_ns"][mine] > 0).all()
    assert [KINDS[kind] for kind in trace.moments["kind"][:5]] == ["prefill"] + ["decode"] * 4
    undo(bench.subject)


def test_shared_weights_stay_in_memory(folder: Path) -> None:
    model = build("llama")
    first, second = (layer.self_attn.q_proj for layer in model.model.layers)
    second.weight = first.weight
    expected = tokens(model)
    made, _ = apply(model, choice(folder))
    assert second.weight.untyped_storage().nbytes() == first.weight.nbytes
    assert tokens(model) == expected
    undo(made)


@pytest.mark.parametrize(
    ("text", "count", "found"),
    [("50%", 5, [3, 4]), ("100%", 3, [0, 1, 2]), ("0-1+4", 6, [0, 1, 4]), ("2 3", 4, [2, 3]), ("1", 2, [1])],
)
def test_blocks_are_named_by_share_or_number(text: str, count: int, found: list[int]) -> None:
    assert chosen_blocks(text, count) == found


@pytest.mark.parametrize(
    ("text", "sentence"), [("1%", "1% of 4 blocks is none"), ("3-4", "this model has blocks 0 to 3"), ("3-2", "cannot")]
)
def test_blocks_that_are_not_there_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(Refusal, match=sentence):
        chosen_blocks(text, 4)


def test_what_cannot_be_offloaded_is_refused(folder: Path) -> None:
    with pytest.raises(Refusal, match="give a share such as 50%"):
        apply(build("llama"), choice(folder, blocks="half"))
    with pytest.raises(Refusal, match="in the CPU's memory already"):
        apply(build("llama"), choice(folder, where="cpu"))
    with pytest.raises(Refusal, match="No list of transformer blocks"):
        apply(torch.nn.Sequential(torch.nn.Linear(2, 2)), choice(folder))
    model = build("llama", num_hidden_layers=2)
    model.model.layers[1] = model.model.layers[0]
    model.spare = torch.nn.ModuleList(list(model.model.layers[0].modules())[1:])
    for module in list(model.spare):
        for name, parameter in list(module._parameters.items()):
            other = torch.nn.Module()
            other.register_parameter(name, parameter)
            model.spare.append(other)
    with pytest.raises(Refusal, match="no weights of their own"):
        apply(model, choice(folder))
    assert not folder.exists() or list(folder.iterdir()) == []


def test_a_full_disk_is_refused_before_anything_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload.shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(Refusal, match=r"Offloading needs .* and 10 B is free"):
        apply(build("llama"), choice(folder))
    assert list(folder.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_is_refused_and_left_clean(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(offload.os, "fsync", full)
    model = build("llama")
    expected = tokens(model)
    made = Subject(model, "text-generation", Execution(1), 16, 2)
    with pytest.raises(Refusal, match=r"cannot be kept in .* \(No space left on device\)"):
        plan.apply_all(made, [choice(folder)])
    undo(made)
    assert list(folder.iterdir()) == []
    assert tokens(model) == expected


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Refusal, match="give the pass offload another folder"):
        apply(build("llama"), choice(tmp_path / "file" / "below"))


def test_weights_that_are_gone_are_told_in_a_sentence(folder: Path) -> None:
    model = build("llama")
    made, _ = apply(model, choice(folder))
    for file in folder.rglob("*.weights"):
        file.unlink()
    with pytest.raises(Refusal, match="offloaded weights cannot be read"):
        tokens(model)
    undo(made)


def test_a_file_cut_short_is_told_in_a_sentence(folder: Path) -> None:
    model = build("llama")
    made, _ = apply(model, choice(folder))
    file = next(folder.rglob("*.weights"))
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(Refusal, match="offloaded weights cannot be read"):
        tokens(model)
    undo(made)


def test_cancelling_leaves_no_files(folder: Path) -> None:
    made = Subject(build("llama"), "text-generation", Execution(1), 16, 2)
    made.progress.cancelled.set()
    with pytest.raises(Cancelled):
        plan.apply_all(made, [choice(folder)])
    undo(made)
    assert not folder.exists() or not list(folder.iterdir())


def test_folders_of_killed_processes_are_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "11-abc").mkdir(parents=True)
    (folder / "22-def").mkdir()
    (folder / "notes-of-mine").mkdir()
    monkeypatch.setattr(offload, "is_alive", lambda mark: mark != "11")
    made, _ = apply(build("llama"), choice(folder))
    assert not (folder / "11-abc").exists()
    assert (folder / "22-def").exists()
    assert (folder / "notes-of-mine").exists()
    undo(made)


def test_in_the_memory_of_the_cpu_the_weights_are_copied() -> None:
    """Not verified on hardware: the accelerator is left out, what it would get is looked at."""
    kept = {"weight": torch.nn.Parameter(torch.arange(4.0), requires_grad=False)}
    load = offload._Memory().put(0, kept)
    offload._let_go(kept)
    assert kept["weight"].untyped_storage().nbytes() == 4
    transfer, _ = offload._classes()
    transfer(kept, load)()
    assert kept["weight"].tolist() == [0, 1, 2, 3]
