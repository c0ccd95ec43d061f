"""llama.cpp's bindings: one small face for the Python packages that bring llama.cpp, which differ in how they are called.

llama-cpp-python comes first where it is installed: it is compiled on the user's own machine, for that processor, and gives
logits without a copy. cyllama comes ready-made, compiled for any processor, and gives logits as a list of Python numbers.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from core.error_text import said
from core.errors import Refusal
from core.messages.reason import Reason

PACKAGES = ("llama_cpp", "cyllama")
"""What brings llama.cpp, the better first."""

LARGEST_STEP = 512
"""Tokens computed at once of a longer prompt; llama.cpp's own default, to which its kernels are tuned."""


@dataclass(frozen=True)
class Settings:
    """How a file is opened. ``context``: positions there is room for. ``repack``: weights are rearranged for the processor."""

    threads: int
    context: int
    repack: bool


class Binding(Protocol):
    """One GGUF file, opened by llama.cpp for one sequence."""

    build: str  # llama.cpp's own, e.g. "b9190"
    package: str  # with its version, for people
    features: str | None  # what llama.cpp says of the instructions that it was compiled for; None: this package does not tell
    copies_logits: bool  # number by number
    weight_bytes: int  # of all tensors, as llama.cpp counts them
    kind: str  # as llama.cpp describes the model, e.g. "llama 256M Q4_1"
    vocabulary: int

    def decode(self, tokens: Sequence[int], start: int, wanted: Sequence[int]) -> npt.NDArray[np.float32]:
        """Read tokens at the positions from ``start`` on.

        Args:
            tokens: new ones of the one sequence.
            start: positions read before; 0 begins a new sequence.
            wanted: which of the new tokens' logits are given, ascending.

        Returns:
            logits [len(wanted), vocabulary], of the caller's own.

        Raises:
            RuntimeError: llama.cpp could not compute them, with its code.
        """
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...


def package() -> str | None:
    """The package that is used; None where there is none."""
    return next((name for name in PACKAGES if find_spec(name) is not None), None)


def open_file(path: Path, settings: Settings) -> Binding:
    """The file in llama.cpp; ``Refusal`` where llama.cpp cannot read it."""
    try:
        return LlamaCppPython(path, settings) if package() == "llama_cpp" else Cyllama(path, settings)
    except (RuntimeError, ValueError, OSError) as error:
        raise Refusal(Reason("runtimes.llama-cannot-open", name=path.name, problem=said(error))) from error


class LlamaCppPython:
    """Through llama-cpp-python's plain functions."""

    copies_logits = False

    def __init__(self, path: Path, settings: Settings) -> None:
        import llama_cpp as api

        self._api = api
        _silence(api)
        api.llama_backend_init()
        params = api.llama_model_default_params()
        params.n_gpu_layers, params.use_extra_bufts = 0, settings.repack
        self._model = api.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise RuntimeError("its model cannot be loaded")
        asked = api.llama_context_default_params()
        asked.n_ctx = asked.n_batch = settings.context
        asked.n_ubatch = min(LARGEST_STEP, settings.context)
        asked.n_threads = asked.n_threads_batch = settings.threads
        self._context = api.llama_init_from_model(self._model, asked)
        if not self._context:
            api.llama_model_free(self._model)
            raise RuntimeError("there is no memory for its keys and values")
        self._batch = api.llama_batch_init(settings.context, 0, 1)
        told = getattr(api, "llama_version", None)
        self.build = told().decode() if told is not None else f"of llama-cpp-python {api.__version__}"
        self.package = f"llama-cpp-python {api.__version__}"
        self.features: str | None = api.llama_print_system_info().decode().strip(" |")
        self.weight_bytes = int(api.llama_model_size(self._model))
        self.vocabulary = int(api.llama_vocab_n_tokens(api.llama_model_get_vocab(self._model)))
        text = ctypes.create_string_buffer(256)
        api.llama_model_desc(self._model, text, len(text))
        self.kind = text.value.decode()

    def decode(self, tokens: Sequence[int], start: int, wanted: Sequence[int]) -> npt.NDArray[np.float32]:
        """See ``Binding``."""
        api, batch, chosen = self._api, self._batch, set(wanted)
        if start == 0:
            api.llama_memory_clear(api.llama_get_memory(self._context), False)
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place], batch.pos[place] = token, start + place
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            batch.logits[place] = place in chosen
        code = api.llama_decode(self._context, batch)
        if code != 0:
            raise RuntimeError(f"llama_decode gave {code}")
        api.llama_synchronize(self._context)
        rows = np.ctypeslib.as_array(api.llama_get_logits(self._context), (len(wanted), self.vocabulary))
        return np.array(rows, np.float32)  # the next step writes over llama.cpp's own

    def close(self) -> None:
        """See ``Binding``; nothing the second time."""
        if self._context:
            self._api.llama_batch_free(self._batch)
            self._api.llama_free(self._context)
            self._api.llama_model_free(self._model)
        self._context = self._model = None


class Cyllama:
    """Through cyllama's classes."""

    copies_logits = True
    features: str | None = None

    def __init__(self, path: Path, settings: Settings) -> None:
        import cyllama
        from cyllama.llama import llama_cpp as api

        class Model(api.LlamaModel):
            @property
            def n_vocab(self) -> int:  # which cyllama 0.2.18 asks its model for in get_logits_ith, and its model has not
                return int(self.get_vocab().n_vocab)

        api.disable_logging()
        api.ggml_backend_load_all()
        params = api.LlamaModelParams()
        params.n_gpu_layers, params.use_extra_bufts = 0, settings.repack
        self._model: Any = Model(str(path), params)
        asked = api.LlamaContextParams()
        asked.n_ctx = asked.n_batch = settings.context
        asked.n_ubatch = min(LARGEST_STEP, settings.context)
        asked.n_threads = asked.n_threads_batch = settings.threads
        self._context: Any = api.LlamaContext(self._model, asked)
        self._batch: Any = api.LlamaBatch(n_tokens=settings.context, embd=0, n_seq_max=1)
        self.package = f"cyllama {cyllama.__version__}"
        self.build = _build_of(Path(str(cyllama.__file__)).with_name("build_config.json")) or f"of {self.package}"
        self.weight_bytes = int(self._model.size)
        self.vocabulary = self._model.n_vocab
        self.kind = str(self._model.desc)

    def decode(self, tokens: Sequence[int], start: int, wanted: Sequence[int]) -> npt.NDArray[np.float32]:
        """See ``Binding``."""
        context, batch, chosen = self._context, self._batch, set(wanted)
        if start == 0:
            context.kv_cache_clear(False)
        batch.clear()
        for place, token in enumerate(tokens):
            batch.add(token, start + place, [0], place in chosen)
        try:
            context.decode(batch)
        except ValueError as error:
            raise RuntimeError(said(error)) from error
        context.synchronize()
        return np.array([context.get_logits_ith(place) for place in wanted], np.float32)

    def close(self) -> None:
        """See ``Binding``; nothing the second time."""
        for part in (self._batch, self._context, self._model):
            if part is not None:
                part.close()
        self._batch = self._context = self._model = None


_KEPT: list[Any] = []
"""What llama.cpp calls for as long as the process lives."""


def _silence(api: Any) -> None:
    """llama.cpp tells a lot on standard error; from here on it tells nothing."""
    if _KEPT:
        return

    @api.llama_log_callback
    def ignore(_level: int, _text: bytes, _data: Any) -> None:
        return

    api.llama_log_set(ignore, ctypes.c_void_p(0))
    _KEPT.append(ignore)


def _build_of(path: Path) -> str | None:
    """The build of llama.cpp that cyllama's own record names."""
    try:
        return str(json.loads(path.read_text("utf-8"))["versions"]["llama_cpp_version"])
    except (OSError, ValueError, KeyError):
        return None
