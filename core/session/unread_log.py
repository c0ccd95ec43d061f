"""A log that cannot be read is not thrown away: DuckDB skips what it cannot read of one without a word, and deletes it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.errors import Refusal
from core.messages.reason import Reason
from core.session.database import explain, log_of

EMPTY_BYTES = 3 * 4096
"""Of a file that no table was ever written to: all that its session has is in the log."""

KEPT = ".kept"


def damaged(path: Path) -> Refusal:
    """All of the session was in its log, and none of that can be read."""
    return Refusal(Reason("session.whole-log-damaged", name=path.name, log=log_of(path).name, folder=str(path.parent)))


@contextmanager
def log_kept(path: Path) -> Iterator[bool]:
    """While a session is opened whose rows are all in its log; whether it is one. Both are as before where that fails."""
    log = log_of(path)
    if not (path.is_file() and path.stat().st_size <= EMPTY_BYTES and log.is_file() and log.stat().st_size):
        yield False
        return
    if not os.access(path.parent, os.W_OK):  # opened to be read alone, which leaves both as they are
        yield True
        return
    copies = {one: one.with_name(one.name + KEPT) for one in (path, log)}
    try:
        for one, copy in copies.items():
            shutil.copy2(one, copy)
    except OSError as error:
        for copy in copies.values():
            copy.unlink(missing_ok=True)
        raise Refusal(explain(error, path)) from error
    try:
        yield True
    except BaseException:
        for one, copy in copies.items():
            os.replace(copy, one)
        raise
    finally:
        for copy in copies.values():
            with suppress(OSError):
                copy.unlink(missing_ok=True)
