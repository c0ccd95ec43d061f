"""llama.cpp's two Python packages, made up for tests: the functions that Tickscope calls, with a torch model behind them."""

from __future__ import annotations

import ctypes
import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache

FEATURES = b"CPU : AVX2 = 1 | FMA = 1 | "
FILE_BYTES = 4_000


class FakeLlama:
    """What happens behind both packages: one sequence, read by ``model``, and what was asked of it."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.opened: list[Path] = []
        self.params: Any = None
        self.context: Any = None
        self.widths: list[int] = []
        self.freed: list[str] = []
        self._cache = DynamicCache()
        self.logits = np.zeros(0, np.float32)

    def open(self, path: Path, params: Any) -> bool:
        """Whether the file looks like one of GGUF's."""
        self.opened.append(path)
        self.params = params
        return path.read_bytes()[:4] == b"GGUF"

    def clear(self) -> None:
        """Forget the sequence."""
        self._cache = DynamicCache()

    def read(self, tokens: list[int], positions: list[int], wanted: list[bool]) -> int:
        """llama_decode's code: -1 where positions do not follow, 1 where there is no room."""
        start = self._cache.get_seq_length()
        if positions != list(range(start, start + len(tokens))):
            return -1
        if start + len(tokens) > self.context.n_ctx:
            return 1
        self.widths.append(len(tokens))
        with torch.no_grad():
            found = self.model(torch.tensor([tokens]), past_key_values=self._cache).logits[0]
        self.logits = np.ascontiguousarray(found[torch.tensor(wanted)].numpy(), np.float32)
        return 0


def _module(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__dict__.update(contents)
    return module


def install_llama_cpp_python(monkeypatch: pytest.MonkeyPatch, fake: FakeLlama) -> None:
    """As if llama-cpp-python were installed."""

    def batch(count: int, _embd: int, _sequences: int) -> Any:
        lists = {name: [0] * count for name in ("token", "pos", "n_seq_id", "logits")}
        return SimpleNamespace(n_tokens=0, seq_id=[[0] for _ in range(count)], **lists)

    def context(_model: Any, params: Any) -> object:
        fake.context = params
        return object()

    def decode(_context: Any, one: Any) -> int:
        count = one.n_tokens
        return fake.read(one.token[:count], one.pos[:count], [bool(flag) for flag in one.logits[:count]])

    def describe(_model: Any, text: Any, _size: int) -> None:
        text.value = b"llama tiny Q8_0"

    functions = {
        "llama_log_callback": lambda function: function,
        "llama_log_set": lambda *_: None,
        "llama_backend_init": lambda: None,
        "llama_model_default_params": SimpleNamespace,
        "llama_context_default_params": SimpleNamespace,
        "llama_model_load_from_file": lambda path, params: fake.open(Path(path.decode()), params) or None,
        "llama_init_from_model": context,
        "llama_batch_init": batch,
        "llama_version": lambda: b"b1234",
        "llama_print_system_info": lambda: FEATURES,
        "llama_model_size": lambda _model: FILE_BYTES,
        "llama_model_get_vocab": lambda model: model,
        "llama_vocab_n_tokens": lambda _vocab: fake.model.config.vocab_size,
        "llama_model_desc": describe,
        "llama_get_memory": lambda found: found,
        "llama_memory_clear": lambda *_: fake.clear(),
        "llama_decode": decode,
        "llama_synchronize": lambda _context: None,
        "llama_get_logits": lambda _context: fake.logits.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
    }
    for name in ("llama_batch_free", "llama_free", "llama_model_free"):
        functions[name] = lambda _what, name=name: fake.freed.append(name)
    monkeypatch.setitem(sys.modules, "llama_cpp", _module("llama_cpp", __version__="0.3.0", **functions))


class _Part:
    """One of cyllama's objects."""

    fake: FakeLlama

    def close(self) -> None:
        self.fake.freed.append(type(self).__name__)


class _Model(_Part):
    size, desc = FILE_BYTES, "llama tiny Q8_0"

    def __init__(self, path: str, params: Any) -> None:
        if not self.fake.open(Path(path), params):
            raise ValueError("Failed to load model from file")

    def get_vocab(self) -> Any:
        return SimpleNamespace(n_vocab=self.fake.model.config.vocab_size)


class _Batch(_Part):
    def __init__(self, *, n_tokens: int, embd: int, n_seq_max: int) -> None:
        self.rows: list[tuple[int, int, bool]] = []

    def clear(self) -> None:
        self.rows.clear()

    def add(self, token: int, position: int, _sequences: list[int], wanted: bool) -> None:
        self.rows.append((token, position, wanted))


class _Context(_Part):
    def __init__(self, model: Any, params: Any) -> None:
        self.model, self.fake.context = model, params
        self._kept: list[int] = []

    def kv_cache_clear(self, _data: bool) -> None:
        self.fake.clear()

    def decode(self, batch: _Batch) -> None:
        tokens, positions, wanted = zip(*batch.rows, strict=True)
        if (code := self.fake.read(list(tokens), list(positions), list(wanted))) != 0:
            raise ValueError(f"llama_decode returned {code}")
        self._kept = [place for place, flag in enumerate(wanted) if flag]

    def synchronize(self) -> None:
        """All is done at once."""

    def get_logits_ith(self, place: int) -> list[float]:
        assert self.fake.logits.shape[1] == self.model.n_vocab  # as 0.2.18 asks its model
        return list(map(float, self.fake.logits[self._kept.index(place)]))


def install_cyllama(monkeypatch: pytest.MonkeyPatch, fake: FakeLlama, folder: Path) -> None:
    """As if cyllama, and only it, were installed; ``folder`` gets its record of what it was built from."""
    known = {"LlamaModel": _Model, "LlamaBatch": _Batch, "LlamaContext": _Context}
    parts: dict[str, Any] = {name: type(name, (part,), {"fake": fake}) for name, part in known.items()}
    plain = dict.fromkeys(("LlamaModelParams", "LlamaContextParams"), SimpleNamespace)
    silent = {name: lambda: None for name in ("disable_logging", "ggml_backend_load_all")}
    api = _module("cyllama.llama.llama_cpp", **parts, **plain, **silent)
    (folder / "build_config.json").write_text(json.dumps({"versions": {"llama_cpp_version": "b5678"}}), "utf-8")
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    inner = _module("cyllama.llama", llama_cpp=api)
    outer = _module("cyllama", llama=inner, __version__="0.2.0", __file__=str(folder / "__init__.py"))
    for module in (outer, inner, api):
        monkeypatch.setitem(sys.modules, module.__name__, module)
