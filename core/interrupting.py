"""Interrupting: how a cancel ends Python code that does not look whether it was cancelled: a compiler, a stranger's loop.

What can look, looks (``Progress.check``, the tripwire). What still has not ended a while after a cancel is insisted upon:
compilers that were started are killed, and ``Cancelled`` is raised in the middle of the thread's Python code. That is only done
in regions which whoever wrote them has marked, never while what was measured is put away.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType

import psutil

from core.errors import Cancelled

PATIENCE_S = 2.0
"""After a cancel, until it is insisted upon, and between two insistings."""

IMPORTING_S = 30.0
"""How long modules that are being imported are spared: one that was imported by half stays broken until the process ends.

(Every run after a cancel in its first seconds failed with "Could not import module 'LlamaConfig'".)
"""

COMPILERS = (
    "g++",
    "gcc",
    "c++",
    "cc",
    "clang",
    "clang++",
    "cc1",
    "cc1plus",
    "as",
    "ld",
    "collect2",
    "lto1",
    "lld",
    "ld.lld",
    "cl",
)


class Region:
    """Where a thread may be interrupted: a context manager, for one job, that threads (and greenlets) enter as they like."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: Counter[int] = Counter()
        self.insisted = False
        self._first_s: float | None = None  # when it was insisted upon first

    def __enter__(self) -> None:
        with self._lock:
            self._inside[threading.get_ident()] += 1

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        thread = threading.get_ident()
        left = False
        while not left:
            try:
                with self._lock:
                    self._inside[thread] -= 1
                    left = True
                    if self._inside[thread] <= 0:
                        del self._inside[thread]
                        _raise_in(thread, None)
            except Cancelled:  # it came on the way out, and is known
                continue
        if self.insisted and isinstance(error, Exception):  # of a compiler that was killed, say
            raise Cancelled from error

    def insist(self) -> None:
        """End what goes on in here, if anything does, except that what imports modules is spared for a while."""
        with self._lock:
            now_s = time.monotonic()
            self._first_s = now_s if self._first_s is None else self._first_s
            spared = {one for one in self._inside if _imports(one)} if now_s - self._first_s < IMPORTING_S else set()
            found = self._inside.keys() - spared
            if not found:
                return
            self.insisted = True
            for thread in found:
                _raise_in(thread, Cancelled)
        kill_compilers()


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Have an exception raised in a thread at its next step in Python; None takes back one that was not raised yet."""
    given = ctypes.py_object() if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), given)


def _imports(thread: int) -> bool:
    """Whether a thread is importing a module, by a statement or by ``import_module``."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "_find_and_load" and code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def kill_compilers() -> None:
    """Kill the compilers that this process, or one that it has started, is running."""
    for child in _children():
        try:
            if Path(child.name()).stem in COMPILERS or Path(child.name()).name in COMPILERS:
                child.kill()
        except psutil.Error:
            continue


def kill_children() -> None:
    """Kill every process that this one has started, and those that they have."""
    for child in _children():
        try:
            child.kill()
        except psutil.Error:
            continue


def _children() -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = psutil.Process().children(recursive=True)
    except psutil.Error:
        return []
    return found
