"""Disk space: what would fill a disk is refused before it begins, and a disk that filled is said in a sentence."""

from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path

from core.error_text import noted, said
from core.errors import Refusal
from core.messages.reason import Reason

COMPILING_BYTES = 100 << 20
"""For one graph: its C++ text, objects and library, a few MiB for each ten blocks, with room to spare."""

SPARE = 1.05

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_WORDS = ("No space left on device", "os error 28", "os error 112", "Disk quota exceeded")


def require(needed: int, folders: tuple[Path, ...], what: Reason) -> None:
    """Refuse ``what`` (as "Compiling a graph") where one of the folders has less free than ``needed`` bytes."""
    for folder in folders:
        there = next((one for one in (folder, *folder.parents) if one.exists()), folder)
        free = shutil.disk_usage(there).free
        if free < needed * SPARE:
            raise Refusal(Reason("disk_space.too-little", what=what, needed_bytes=needed, folder=str(folder), free_bytes=free))


def require_to_compile(kept_in: Path) -> None:
    """Refuse to compile a graph where the disk of the temporary folder or of the cache is nearly full."""
    require(COMPILING_BYTES, (Path(tempfile.gettempdir()), kept_in), Reason("disk_space.compiling"))


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk is what an error, or one that it came of, is about."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if (isinstance(error, OSError) and error.errno in _FULL) or any(words in said(error) for words in _WORDS):
            return True
        error = noted(error, "inner_exception") or error.__cause__ or error.__context__
    return False
