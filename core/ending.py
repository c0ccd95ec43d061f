"""The end of the process: in the usual way where nothing holds it up, and without asking anyone where something does."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from core.interrupting import kill_children
from core.private_folders import remove_own_folder

LIMIT_S = 5.0
"""How long is waited for a job that was cancelled, for what it measured to be written, and for other threads at the end."""

hanging = threading.Event()
"""Set where a thread is known to hang, so that the process can only be ended from outside of it."""


def within(limit_s: float, job: Callable[[], object]) -> bool:
    """Whether ``job`` ended within the limit, in a thread of its own; what it raises is logged."""

    def do() -> None:
        try:
            job()
        except Exception:
            logging.getLogger("tickscope").exception("Something went wrong while the program was ending.")

    thread = threading.Thread(target=do, name="tickscope-ending", daemon=True)
    thread.start()
    thread.join(limit_s)
    return not thread.is_alive()


def leave(status: int) -> int:
    """``status``, for the interpreter to end with; where threads would keep it from that, the process ends here.

    A signal that comes from now on finds nothing more to cancel: it ends the process, which leaves nothing behind either.
    """
    _end_at_a_signal()
    others = [one for one in threading.enumerate() if one is not threading.main_thread() and not one.daemon]
    if not hanging.is_set():
        deadline_s = time.perf_counter() + LIMIT_S
        for one in others:
            one.join(max(0.0, deadline_s - time.perf_counter()))
        if not any(one.is_alive() for one in others):
            return status
        print("tickscope: The model's own threads go on; Tickscope ends without them.", file=sys.stderr)  # noqa: T201
    return break_off(status)


def _end_at_a_signal() -> None:
    if threading.current_thread() is threading.main_thread():  # only there can handlers be set
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda came, _: break_off(128 + came))


def break_off(status: int) -> NoReturn:
    """End the process here and now, with all that it has started, and leave nothing behind."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    kill_children()
    remove_own_folder()
    os._exit(status)
