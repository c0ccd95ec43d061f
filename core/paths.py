"""Paths that somebody typed, or that a file of somebody else names: asked about without an exception, whatever they are."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from core.error_text import said
from core.errors import Refusal
from core.messages.reason import Reason

SHOWN = 100
"""Characters of a path that cannot be one that are shown in a sentence about it."""


def typed(text: str | Path) -> Path:
    """The path that somebody typed, with ``~`` as their home.

    Raises:
        Refusal: no system could have such a path: it is too long, holds characters that no name can hold, or the home of
            somebody who is not here. Whether anything is there is another question.
    """
    try:
        path = Path(text).expanduser()
        os.stat(path)
    except (ValueError, RuntimeError) as error:  # a NUL, half a character of two; "~nobody"
        raise Refusal(Reason("paths.no-path", text=shown(text), problem=why(error))) from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EILSEQ, errno.EINVAL):
            raise Refusal(Reason("paths.no-path", text=shown(text), problem=error.strerror)) from error
    return path


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; False also for what cannot be a path."""
    try:
        return Path(path).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def is_there(path: str | Path) -> bool:
    """Whether there is anything of that name; False also for what cannot be a path, and for a spec of many options."""
    try:
        return Path(path).exists()
    except (OSError, ValueError, RuntimeError):
        return False


def shown(text: str | Path) -> str:
    """A path for a sentence: its beginning, with what cannot be printed written out."""
    whole = str(text)
    begin = whole[:SHOWN] + ("…" if len(whole) > SHOWN else "")
    return begin if begin.isprintable() else ascii(begin)


def why(error: BaseException) -> str:
    """What a system said about a path, without the path (which may be endless)."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeError):
        return "it holds half a character"
    return (said(error) or type(error).__name__).rstrip(".")[:120]


def read_text(path: Path, most_bytes: int = 256 << 20) -> str:
    """The text of a file in UTF-8, with its size looked at first.

    Raises:
        OSError: it cannot be read, is no ordinary file (a pipe or a device has no end), or is larger than ``most_bytes``.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path, most_bytes).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def read_bytes(path: Path, most_bytes: int = 256 << 20) -> bytes:
    """The content of a file, with its size looked at first; ``OSError`` as ``read_text``."""
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode) and not stat.S_ISDIR(facts.st_mode):  # of a folder the system says it better
        raise OSError(errno.EINVAL, "it is no ordinary file")
    if facts.st_size > most_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {most_bytes >> 20} MiB")
    return path.read_bytes()
