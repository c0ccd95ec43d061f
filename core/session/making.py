"""Tells a session file that was killed while it was being made from a copy that lacks its log: neither holds anything."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.private_folders import is_alive, process_mark

PREFIX, SUFFIX = ".tickscope-", ".new"


@contextmanager
def being_made(path: Path) -> Iterator[None]:
    """While a file gets its tables: a mark lies beside it, which stays where this process is killed meanwhile."""
    mark = path.with_name(f"{PREFIX}{process_mark()}-{_number(path)}{SUFFIX}")
    with suppress(OSError):  # no room for a mark: then there is none for the file either, which says so
        mark.touch()
    try:
        yield
    finally:
        with suppress(OSError):
            mark.unlink(missing_ok=True)


def was_being_made(path: Path) -> bool:
    """Whether a process that is gone was making this file; its mark is removed, and those of others that are gone."""
    found = False
    with suppress(OSError):
        for mark in path.parent.glob(f"{PREFIX}*{SUFFIX}"):
            process, _, number = mark.name.removeprefix(PREFIX).removesuffix(SUFFIX).rpartition("-")
            if not is_alive(process):
                mark.unlink(missing_ok=True)  # first: where nothing can be removed, the file is left alone too
                found = found or number == str(_number(path))
    return found


def _number(path: Path) -> int:
    return zlib.crc32(os.fsencode(path.name))
