"""Folders of our own that nobody else can write to: one for what a process needs while it runs, and those of the cache.

What a process needs for a while lies in one folder that is named after it and gone when it ends. Where it was killed, the next
start finds that its process is dead and removes the folder, and so it does with drafts in the cache.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import psutil

PREFIX = "tickscope-"
_OLDER = ("tickscope-*.baseline", "tickscope-onnx-*", "tickscope-openvino-*")
"""What versions before 0.4 left in the temporary folder when they were killed; it does not say whose it is."""

_OLD_S = 86400.0
_SAME_START_S = 5.0  # the system's own start, from which processes' starts are told, is known to about a second


_own: dict[int, Path] = {}
"""This process's folder by its number: a forked child has another one."""


def process_mark() -> str:
    """This process's number and when it began, for names of files that are its own: numbers come again."""
    return _mark(os.getpid())


@cache
def _mark(process: int) -> str:
    return f"{process}-{round(psutil.Process(process).create_time())}"


def is_alive(mark: str) -> bool:
    """Whether the process of that mark (or, as older versions wrote, of that number) still runs; True where it is no mark."""
    number, _, began = mark.partition("-")
    if not number.isdigit() or (began and not began.isdigit()):
        return True
    try:
        started = psutil.Process(int(number)).create_time()
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
    return not began or abs(started - int(began)) < _SAME_START_S


def temporary_folder(purpose: str) -> Path:
    """A new folder for this process alone, gone with it at the latest. ``OSError`` where there is no room for it."""
    process = os.getpid()
    if process not in _own or not _own[process].is_dir():
        _own[process] = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{process_mark()}-"))  # mode 0700, and never one that was there
        atexit.register(remove_own_folder)
    return Path(tempfile.mkdtemp(prefix=f"{purpose}-", dir=_own[process]))


def remove_own_folder() -> None:
    """Remove all temporary folders of this process; for its end, however that comes."""
    own = _own.pop(os.getpid(), None)
    if own is not None:
        shutil.rmtree(own, ignore_errors=True)


def remove_folders_of(mark: str) -> None:
    """Remove the temporary folders of another process, which is gone and left them."""
    for left in _listed(Path(tempfile.gettempdir()), f"{PREFIX}{mark}-*"):
        _remove_if_ours(left)


def keep_compiler_private() -> None:
    """Torch's compiler works in a folder of this process, unless the user has named one.

    Its own choice has a name in the temporary folder that anybody can guess and make first; and it takes up libraries that it
    finds there, also those that a full disk has cut short.
    """
    os.environ.setdefault("TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS", "0")  # kept elsewhere, under such a name again
    if not os.environ.get("TORCHINDUCTOR_CACHE_DIR"):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(temporary_folder("inductor"))


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, so that only this user can write there."""
    for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder")


def others_can_write(path: Path) -> bool:
    """Whether another user than this one (or root) owns a file or folder or may write to it; False on Windows."""
    if sys.platform == "win32":
        return False
    facts = path.lstat()
    return facts.st_uid not in (os.getuid(), 0) or bool(facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)) or path.is_symlink()


def is_ours(path: Path) -> bool:
    """Whether it is this user's own, and no link to somewhere else."""
    facts = path.lstat()
    return not stat.S_ISLNK(facts.st_mode) and (sys.platform == "win32" or facts.st_uid == os.getuid())


def sweep_temporary() -> None:
    """Remove what processes that were killed have left in the temporary folder."""
    above = Path(tempfile.gettempdir())
    for left in _listed(above, f"{PREFIX}*-*-*"):
        mark = "-".join(left.name.removeprefix(PREFIX).split("-")[:2])
        if left.name != f"{PREFIX}{mark}" and not is_alive(mark):
            _remove_if_ours(left)
    now_s = datetime.now(UTC).timestamp()
    for pattern in _OLDER:
        for left in _listed(above, pattern):
            with contextlib.suppress(OSError):
                if now_s - left.lstat().st_mtime > _OLD_S:
                    _remove_if_ours(left)


def _listed(folder: Path, pattern: str) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from list(folder.glob(pattern))


def _remove_if_ours(left: Path) -> None:
    with contextlib.suppress(OSError):
        if not is_ours(left):
            return
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
