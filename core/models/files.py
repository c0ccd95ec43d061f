"""What a model folder holds, from its config and the headers of its weight files; nothing is loaded, torch is not imported."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from core.errors import Refusal
from core.messages.reason import Reason
from core.models import packed, positions
from core.models.experts import EXPERT_TENSOR
from core.models.json_file import decoded, read_json
from core.paths import shown

LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
CONTEXT_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "n_ctx",
    "max_target_positions",  # of a decoder that listens
)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_NO_COUNT = 1 << 40
UNLIMITED = 1_000_000
"""A tokenizer that knows no limit writes 10^30 as its longest text; no model here has a longer context than this."""

_PLAIN_NAME = re.compile(r"[\w.\-+ ]{1,200}")
"""The name of a file in the same folder, and no way out of it."""

_DTYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I8": "int8", "U8": "uint8"}
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "BOOL": 8}
_HEADER_LIMIT = 100 << 20  # the format's own limit for the JSON


@dataclass(frozen=True)
class Weights:
    """The weight files of a folder. ``parameters`` is None for pickled weights, which cannot be looked into safely."""

    files: tuple[Path, ...]
    pickled: bool
    parameters: int | None
    file_bytes: int
    stored_as: str
    largest_tensor_bytes: int = 0
    expert_parameters: int = 0
    tensors: int | None = None
    tensor_bytes: int = 0


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a model folder; ``Refusal`` where there is no folder, nothing in it, or no config."""
    if not folder.exists():
        raise Refusal(Reason("models.no-folder", folder=str(folder)))
    if not folder.is_dir():
        raise Refusal(Reason("models.not-a-model-folder", folder=str(folder)))
    path = folder / "config.json"
    if path.is_file():
        return read_json(path)
    names = sorted(child.name for child in folder.iterdir())
    if not names:
        raise Refusal(Reason("models.empty-folder", folder=str(folder)))
    ggufs = [name for name in names if name.endswith(".gguf")]
    if ggufs:
        raise Refusal(Reason("models.gguf-in-folder", folder=str(folder), folder_2=str(folder / ggufs[0])))
    if "adapter_config.json" in names:
        raise Refusal(Reason("models.adapter-alone", folder=str(folder)))
    raise Refusal(Reason("models.no-folder-config-json", folder=str(folder)))


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the text model: itself, or the part of a multimodal one."""
    part = config.get("text_config")
    return part if isinstance(part, dict) else config


def first_number(config: Mapping[str, Any], keys: Iterable[str]) -> int | None:
    """The first of ``keys`` that the config gives as a whole number above 0 that something real could have."""
    return next((value for key in keys if type(value := config.get(key)) is int and 0 < value < _NO_COUNT), None)


def blocks(config: Mapping[str, Any]) -> int | None:
    """Transformer blocks of the text model; of an encoder-decoder those of both halves."""
    part = text_part(config)
    halves = [first_number(part, keys) for keys in (("encoder_layers", "num_layers"), ("decoder_layers", "num_decoder_layers"))]
    if part.get("is_encoder_decoder") and halves[0]:
        return halves[0] + (halves[1] or halves[0])
    return first_number(part, LAYER_KEYS)


def context_length(folder: Path, config: Mapping[str, Any]) -> int | None:
    """Longest input in tokens, as far as files tell it; the loaded model knows better (``core.models.positions``)."""
    part = text_part(config)
    length = positions.before_loading(part, first_number(part, CONTEXT_KEYS))
    settings = folder / "tokenizer_config.json"
    limit = read_json(settings).get("model_max_length") if settings.is_file() else None
    if length and isinstance(limit, int) and 0 < limit < UNLIMITED:
        return min(length, limit)
    return length


def has_processor(folder: Path) -> bool:
    """Whether the folder says how images or sound become inputs."""
    return any((folder / name).is_file() for name in PROCESSOR_FILES)


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder holds a tokenizer's vocabulary."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def find_weights(folder: Path, *, allow_pickle: bool, packing: Mapping[str, Any] | None = None) -> Weights:
    """The weights of a model folder, checked for missing and cut-off files.

    ``packing``: what its config says of how they are packed (``core.models.packed``).

    Raises:
        Refusal: there are none, a shard is missing or cut off, or they are pickled and ``allow_pickle`` is off.
    """
    for index, single in (
        ("model.safetensors.index.json", "model.safetensors"),
        ("pytorch_model.bin.index.json", "pytorch_model.bin"),
    ):
        files = _shards(folder / index) if (folder / index).is_file() else []
        if not files and (folder / single).is_file():
            files = [folder / single]
        if not files:
            continue
        if single.endswith(".bin"):
            if not allow_pickle:
                raise Refusal(Reason("models.pickled-only", folder=str(folder), name=files[0].name))
            return Weights(tuple(files), True, None, sum(path.stat().st_size for path in files), "pickle")
        return _measure(files, packing or {})
    raise Refusal(Reason("models.no-weights", folder=str(folder)))


def read_safetensors(path: Path) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """Tensors of a safetensors file by name: dtype as the file calls it, shape, bytes. ``Refusal`` if cut off or not one.

    The format: https://huggingface.co/docs/safetensors (8 bytes of little-endian length, a JSON header, the data).
    """
    size = path.stat().st_size
    broken = Reason("models.safetensors-damaged", path=str(path))
    if not path.is_file():  # a pipe would be waited at for ever
        raise Refusal(broken)
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= _HEADER_LIMIT:
            raise Refusal(broken)
        if 8 + length > size:
            raise _cut_off(path, size, 8 + length)
        text = file.read(length)
    try:
        header = decoded(text)
        header.pop("__metadata__", None)
        tensors = {name: _tensor(entry) for name, entry in header.items()}
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise Refusal(broken) from error
    if 8 + length + end > size:
        raise _cut_off(path, size, 8 + length + end)
    return tensors


def _tensor(entry: Any) -> tuple[str, tuple[int, ...], int]:
    """Dtype, shape and bytes of one entry of a header; ``ValueError`` where they are not such, or do not belong together."""
    dtype, shape, (first, last) = entry["dtype"], entry["shape"], entry["data_offsets"]
    numbers = [first, last, *shape]
    if not isinstance(dtype, str) or any(type(number) is not int or not 0 <= number < 1 << 63 for number in numbers):
        raise ValueError("no dtype, shape and place")
    bits = _BITS.get(dtype)
    if last < first or (bits is not None and prod(shape) * bits != 8 * (last - first)):
        raise ValueError("its bytes are not those of its shape")
    return dtype, tuple(shape), last - first


def _cut_off(path: Path, size: int, expected: int) -> Refusal:
    return Refusal(Reason("models.weights-cut-off", path=str(path), expected_bytes=expected, size_bytes=size))


def _shards(index: Path) -> list[Path]:
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise Refusal(Reason("models.index-names-no-files", index=str(index)))
    odd = [name for name in named.values() if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name)]
    if odd:
        raise Refusal(Reason("models.index-names-no-weight-file", index=str(index), odd=shown(str(odd[0]))))
    files = [index.parent / name for name in sorted(set(named.values()))]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise Refusal(
            Reason(
                "models.weight-files-missing",
                parent=str(index.parent),
                missing_count=len(missing),
                files_count=len(files),
                missing=missing[0],
            )
        )
    return files


def _measure(files: list[Path], packing: Mapping[str, Any]) -> Weights:
    parameters, largest, experts, tensors, held = 0, 0, 0, 0, 0
    elements: Counter[str] = Counter()
    for path in files:
        for name, (dtype, shape, tensor_bytes) in read_safetensors(path).items():
            tensors += 1
            held += tensor_bytes
            count = packed.numbers(name, dtype, shape, packing)
            if count is None:
                count = 0 if dtype in ("I64", "I32", "BOOL") else prod(shape)  # position ids and masks are no weights
            parameters += count
            experts += count if EXPERT_TENSOR.search(name) else 0
            elements[dtype] += count
            largest = max(largest, tensor_bytes if count else 0)
    common = elements.most_common(1)[0][0] if elements else ""
    stored_as = f"safetensors {packed.told(packing) if packing else _DTYPE_NAMES.get(common, common)}".strip()
    file_bytes = sum(path.stat().st_size for path in files)
    return Weights(tuple(files), False, parameters, file_bytes, stored_as, largest, experts, tensors, held)
