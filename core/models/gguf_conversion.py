"""Turns a GGUF file into a safetensors folder in the user's cache, once, because dequantizing takes long."""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import machine_cache
from core.error_text import first_line
from core.errors import Refusal
from core.folders import cache_folder
from core.messages.reason import Reason
from core.models import loading
from core.models.gguf_header import ARRAY, GgufHeader, array_bytes
from core.models.memory import ITEM_BYTES
from core.progress import Progress

if TYPE_CHECKING:
    import torch

FORMAT = 2
"""Raised when a conversion of an older Tickscope must not be used any more."""

LONG_ARRAY = 1024
"""Vocabularies are longer than this; arrays that configs are made of (one number per layer) are shorter."""

_SHARD = "2GB"  # saving is cancelled between shards


def converted(path: Path, dtype: str) -> Path | None:
    """A whole conversion of exactly this file that serves ``dtype`` (float32 serves all: dequantizing is exact in it)."""
    for stored in dict.fromkeys((dtype, "float32")):
        folder = _folder_for(path, stored)
        if machine_cache.usable(folder, code=False):
            return folder
    return None


def convert(path: Path, dtype: str, header: GgufHeader, progress: Progress) -> Path:
    """Convert into a temporary folder that takes its name only when it is whole; returns that folder.

    Raises:
        Refusal: no space, or transformers cannot read this architecture from GGUF.
        Cancelled: the temporary folder is gone again.
    """
    folder = _folder_for(path, dtype)
    try:
        unfinished = machine_cache.draft_of(folder)
        try:
            _require_space(folder.parent, header.parameters * ITEM_BYTES[dtype])
            _write(path, dtype, header, unfinished, progress)
            machine_cache.keep(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        what = "there is no space left" if error.errno == errno.ENOSPC else str(error)
        raise Refusal(Reason("models.conversion-not-kept", parent=str(folder.parent), what=what)) from error
    return folder


def _folder_for(path: Path, dtype: str) -> Path:
    """One folder per file state: a file that was replaced is converted anew."""
    facts = path.stat()
    key = f"{FORMAT}|{path.resolve()}|{facts.st_size}|{facts.st_mtime_ns}|{dtype}"
    return cache_folder() / "gguf" / f"{path.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed * 1.05:
        raise Refusal(Reason("models.no-room-to-convert", needed_bytes=needed, folder=str(folder), free_bytes=free))


def _write(path: Path, dtype: str, header: GgufHeader, into: Path, progress: Progress) -> None:
    import torch
    import transformers
    from safetensors import SafetensorError

    doing = Reason("models.converting-file")
    with loading.quiet(progress, doing), _watched_reader(header, progress):
        with loading.refusing(path.name):
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, dtype=getattr(torch, dtype), local_files_only=True, output_loading_info=True
            )
        loading.refuse_missing(path.name, model, report)  # kept, they would look like the file's own
        _forget_quantization(model)
        progress.report(Reason("models.saving-converted"))
        try:
            model.save_pretrained(into, max_shard_size=_SHARD)
        except SafetensorError as error:  # how safetensors passes on what the system said about a file
            full = "os error 28" in str(error) or "os error 112" in str(error)
            raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error
        del model
        gc.collect()
        trouble = _write_tokenizer(path, into, progress) if "tokenizer.ggml.tokens" in header.values else "none in the file"
    progress.check()
    source = {"file": str(path), "dtype": dtype, "format": FORMAT, "tokenizer": trouble or "converted"}
    (into / "source.json").write_text(json.dumps(source), "utf-8")


def _write_tokenizer(path: Path, into: Path, progress: Progress) -> str | None:
    """Convert the tokenizer, or say why that is impossible; the model still runs workloads given as a number of tokens."""
    import transformers

    progress.report(Reason("models.converting-tokenizer"))
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    except Exception as error:  # noqa: BLE001 - the tokenizers library raises bare Exception for a vocabulary it cannot take
        return f"cannot be converted: {first_line(error)}"
    tokenizer.save_pretrained(into)
    return None


def _forget_quantization(model: torch.nn.Module) -> None:
    """The weights are plain numbers now; with these marks transformers refuses to save them."""
    del model.config.quantization_config
    for mark in ("hf_quantizer", "quantization_method"):
        if hasattr(model, mark):
            delattr(model, mark)
    model.is_quantized = False


@contextlib.contextmanager
def _watched_reader(header: GgufHeader, progress: Progress) -> Iterator[None]:
    """While this holds, transformers reads the file once and without its vocabulary, with progress and cancel.

    transformers makes a ``gguf.GGUFReader`` for the config, the weights and the tokenizer each, which then turns 100,000
    tokens and merges into numpy arrays one by one (4 s, and as long again to make Python strings of them). It uses none
    of that but the number of tokens, and that only if the file does not say it. Its bar for the tensors is tqdm's own
    rather than the one with a hook. Both names are replaced for the time being.
    """
    import gguf
    import numpy as np
    from transformers import modeling_gguf_pytorch_utils as loader

    class Reader(gguf.GGUFReader):
        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            progress.check()
            if int(raw_type) == ARRAY and header.number("vocab_size") is not None:
                length, skipped = int(self._get(orig_offs + 4, np.uint64)[0]), array_bytes(self.data, orig_offs)
                if length > LONG_ARRAY:
                    return skipped, [self._get(orig_offs, np.uint32)], [], [gguf.GGUFValueType.ARRAY]
            return super()._get_field_parts(orig_offs, raw_type)

        def _push_field(self, field: Any, skip_sum: bool = False) -> Any:
            progress.report(Reason("models.reading-header"), min(1.0, int(field.offset) / header.data_start))
            return super()._push_field(field, skip_sum)

    readers: dict[str, Reader] = {}

    def read_once(path: Any, mode: str = "r") -> Reader:
        if str(path) not in readers:
            readers[str(path)] = Reader(path, mode)
        return readers[str(path)]

    def bar(items: Any, **_: Any) -> loading.Bar:
        return loading.Bar(progress, Reason("models.dequantizing"), items)

    reader, tqdm = gguf.GGUFReader, loader.tqdm
    gguf.GGUFReader, loader.tqdm = read_once, bar
    try:
        yield
    finally:
        gguf.GGUFReader, loader.tqdm = reader, tqdm
