"""Where weights lie in physical memory: laid anew between rounds of an A/B test, so that it is chance and not a side's luck.

Two copies of one model differ: pages are given out as they are free, and which of them meet in one set of a cache is settled
for as long as they stay. So one side is steadily a little faster than its equal, which no number of rounds takes away. Moved to
other pages before each round, the difference is noise like any other, and the interval holds it. The idea is that of
Stabilizer (Curtsinger and Berger, ASPLOS 2013). ``python -m benchmarks.placement`` shows both.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

LEAST_BYTES = 1 << 16
"""Of a tensor that is worth a mapping of its own."""

MOST_RANGES = 8000
"""Each may take two mappings more, and Linux gives a process 65,530."""

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

_READ_WRITE = 3  # PROT_READ | PROT_WRITE
_PRIVATE_ANONYMOUS = 0x22  # MAP_PRIVATE | MAP_ANONYMOUS
_FIXED = 0x10  # MAP_FIXED
_TO_THERE = 3  # MREMAP_MAYMOVE | MREMAP_FIXED
_FAILED = ctypes.c_void_p(-1).value


def renew(model: torch.nn.Module) -> int:
    """Move a model's weights on the CPU to other pages; returns how many bytes were (0 where that cannot be done).

    Nothing may compute with them meanwhile. Addresses stay what they are, so whoever holds one (a compiled graph, say) need not
    know. Only pages that are this process's own are moved: weights that lie in a mapped file stay there.
    """
    ranges = list(_ranges(model)) if can_renew() else []
    return sum(length for start, length in ranges if _move(start, length))


@lru_cache(maxsize=1)
def can_renew() -> bool:
    """Whether pages can be moved here without changing how they are measured: on Linux, unless it makes huge pages by itself.

    A move would break those into small ones. Where they are, which small page a weight is in is settled anyway.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        return "[always]" not in HUGE_PAGES.read_text(encoding="ascii")
    except OSError:  # a kernel without huge pages
        return True


def _ranges(model: torch.nn.Module) -> Iterator[tuple[int, int]]:
    """Start and length of the whole pages inside each weight, each once."""
    own = _own_memory()
    seen: set[int] = set()
    for tensor in (part for whole in (*model.parameters(), *model.buffers()) for part in _parts(whole.data)):
        if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
            continue
        storage = tensor.untyped_storage()
        start, length = storage.data_ptr(), storage.nbytes()
        if length < LEAST_BYTES or start in seen or len(seen) >= MOST_RANGES:
            continue
        seen.add(start)
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (start + length) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first and any(low <= first and last <= high for low, high in own):
            yield first, last - first


def _parts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensors that a tensor is made of (a quantized one of values and scales), or the tensor itself."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        yield tensor
    else:
        for name in flatten()[0]:
            yield from _parts(getattr(tensor, name))


def _own_memory() -> list[tuple[int, int]]:
    """The mappings of this process that belong to no file and may be written, from low to high, neighbours as one."""
    found: list[tuple[int, int]] = []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        span, rights, _, _, inode, *_ = line.split()
        if inode == "0" and rights.startswith("rw") and rights.endswith("p"):
            start, end = (int(part, 16) for part in span.split("-"))
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], end)
            else:
                found.append((start, end))
    return found


@lru_cache(maxsize=1)
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc


def _move(start: int, length: int) -> bool:
    """Put what is in these pages into others, under the same addresses; whether that could be done."""
    libc = _libc()
    other = libc.mmap(None, length, _READ_WRITE, _PRIVATE_ANONYMOUS, -1, 0)
    if other in (None, _FAILED):
        return False
    ctypes.memmove(other, start, length)
    if libc.mremap(other, length, length, _TO_THERE, start) == start:
        return True
    # The kernel looks for everything that can go wrong first, but may have let go of the old pages all the same.
    there = libc.mmap(start, length, _READ_WRITE, _PRIVATE_ANONYMOUS | _FIXED, -1, 0)
    assert there == start, "the weights of a model were lost"
    ctypes.memmove(start, other, length)
    libc.munmap(other, length)
    return False
