"""A copy of an older session that cannot be written itself, to be brought up to date in a temporary folder of this process."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.disk_space import is_full
from core.errors import Refusal
from core.messages.reason import Reason
from core.private_folders import temporary_folder
from core.session.database import log_of

TIMES = 3
"""So many times the size of a session is free before it is copied: what a step of version changes is written anew beside it."""


@contextmanager
def copied(path: Path) -> Iterator[Path]:
    """The copy, in a folder of its own that is for the caller to remove; it is gone already where the block raises.

    Raises:
        Refusal: there is no room for it; everything else that is raised in the block is passed on.
    """
    folder: Path | None = None
    try:
        folder = temporary_folder("session")
        originals = [one for one in (path, log_of(path)) if one.is_file()]
        if shutil.disk_usage(folder).free < TIMES * sum(one.stat().st_size for one in originals):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        for one in originals:
            shutil.copyfile(one, folder / one.name)
        yield folder / path.name
    except BaseException as error:
        forget(folder)
        if isinstance(error, OSError) or is_full(error):
            raise Refusal(Reason("session.older-and-read-only", name=path.name)) from error
        raise


def forget(folder: Path | None) -> None:
    """Remove the folder of a copy."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
