"""The header of a GGUF file, read in tens of milliseconds (the gguf package's own reader takes 4 s for 49,152 tokens).

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from core.errors import Refusal
from core.messages.reason import Reason

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, ARRAY = 8, 9
_VERSIONS = (2, 3)
_MOST = 1 << 24  # more entries than any real header has: damage
_DIMENSIONS = 4  # of a tensor, by the format
_NO_COUNT = 1 << 40  # nothing that a model has so many of
_ALIGNMENTS = [1 << power for power in range(3, 21)]


@dataclass(frozen=True)
class GgufHeader:
    """``values`` holds the metadata; of arrays only their length. ``data_start`` is where the tensors begin, in bytes."""

    values: dict[str, Any]
    parameters: int
    common_type: str  # the quantization most weights have, e.g. "Q4_1"
    largest_elements: int
    data_start: int
    end: int  # how long the file must be, in bytes
    tensors: int = 0

    @property
    def architecture(self) -> str:
        """GGUF's name of it, e.g. ``llama``."""
        return str(self.values.get("general.architecture", ""))

    def number(self, key: str) -> int | None:
        """An integer of the architecture's own section, e.g. ``block_count``."""
        value = self.values.get(f"{self.architecture}.{key}")
        return value if type(value) is int and 0 < value < _NO_COUNT else None


def read_header(path: Path) -> GgufHeader:
    """Read and check the header; ``Refusal`` if this is no GGUF file, a part of one, or cut off."""
    if path.is_dir():
        raise Refusal(Reason("models.gguf-is-a-folder", path=str(path)))
    if not path.is_file():
        raise Refusal(Reason("models.no-file", path=str(path)))
    facts = path.stat()
    return _read(path, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: Path, size: int, _modified_ns: int) -> GgufHeader:
    """Kept for the next question about the same file: describing and loading ask several times."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise Refusal(Reason("models.not-a-gguf-file", path=str(path)))
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                header = _parse(data, path)
        except (struct.error, IndexError, ValueError, OverflowError, RecursionError) as error:
            if isinstance(error, Refusal):
                raise
            raise Refusal(Reason("models.gguf-header-damaged", path=str(path))) from error
    if header.end > size:
        raise Refusal(Reason("models.gguf-cut-off", path=str(path), end_bytes=header.end, size_bytes=size))
    parts = header.values.get("split.count", 1)
    if type(parts) is not int or parts > 1:
        raise Refusal(Reason("models.gguf-is-split", path=str(path)))
    return header


def array_bytes(data: Any, at: int) -> int:
    """Length in bytes of the array value (type, count, items) at ``at`` of a file's bytes."""
    cursor = _Cursor(data, at)
    cursor.value(ARRAY)
    return cursor.at - at


class _Cursor:
    """Reads little-endian values one after another."""

    def __init__(self, data: Any, at: int) -> None:
        self.data = data
        self.at = at

    def number(self, form: str) -> Any:
        value = struct.unpack_from(form, self.data, self.at)[0]
        self.at += struct.calcsize(form)
        return value

    def text(self) -> str:
        length = self.number("<Q")
        end = self.at + length
        if end > len(self.data):
            raise IndexError
        raw = self.data[self.at : end]
        self.at = end
        return raw.decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind == ARRAY:
            return self._skip_array()
        raise IndexError

    def _skip_array(self) -> int:
        kind, length = self.number("<I"), self.number("<Q")
        if kind in _SCALARS:
            self.at += length * struct.calcsize(_SCALARS[kind])
        elif kind == _STRING and length <= _MOST:
            unpack, data, at = struct.Struct("<Q").unpack_from, self.data, self.at
            for _ in range(length):
                at += 8 + unpack(data, at)[0]
                if at > len(data):
                    raise IndexError
            self.at = at
        elif length <= _MOST:
            for _ in range(length):
                self.value(kind)
        else:
            raise IndexError
        if self.at > len(self.data):
            raise IndexError
        return int(length)


def _parse(data: mmap.mmap, path: Path) -> GgufHeader:
    cursor = _Cursor(data, 4)
    version = cursor.number("<I")
    if version not in _VERSIONS:
        raise Refusal(Reason("models.gguf-version", path=str(path), version=version))
    tensor_count, value_count = cursor.number("<Q"), cursor.number("<Q")
    if max(tensor_count, value_count) > _MOST:
        raise IndexError
    values = {}
    for _ in range(value_count):
        key = cursor.text()
        if key in values:
            raise IndexError
        values[key] = cursor.value(cursor.number("<I"))
    tensors = [_tensor(cursor) for _ in range(tensor_count)]
    if len({name for name, *_ in tensors}) < len(tensors):
        raise IndexError
    alignment = values.get("general.alignment", 32)
    if alignment not in _ALIGNMENTS or type(alignment) is not int:
        raise IndexError
    data_start = -(-cursor.at // alignment) * alignment
    elements: Counter[str] = Counter()
    end = data_start
    for name, count, kind, offset in tensors:
        type_name, tensor_bytes = _stored(kind, count, path)
        end = max(end, data_start + offset + tensor_bytes)
        if name != "rope_freqs.weight":
            elements[type_name] += count
    common = elements.most_common(1)[0][0] if elements else ""
    largest = max((count for _, count, _, _ in tensors), default=0)
    return GgufHeader(values, elements.total(), common, largest, data_start, end, len(tensors))


def _tensor(cursor: _Cursor) -> tuple[str, int, int, int]:
    name = cursor.text()
    count = cursor.number("<I")
    if count > _DIMENSIONS:
        raise IndexError
    dimensions = [cursor.number("<Q") for _ in range(count)]
    if max(dimensions, default=1) >= _NO_COUNT:
        raise IndexError
    return name, prod(dimensions), cursor.number("<I"), cursor.number("<Q")


def _stored(kind: int, elements: int, path: Path) -> tuple[str, int]:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        known = GGMLQuantizationType(kind)
    except ValueError as error:
        raise Refusal(Reason("models.gguf-quantization-unknown", path=str(path), kind=kind)) from error
    block, block_bytes = GGML_QUANT_SIZES[known]
    return known.name, -(-elements // block) * block_bytes
