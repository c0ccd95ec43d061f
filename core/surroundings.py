"""What a model's code can change of the process around it (folder, threads, dtype, collector, stdout): put back and told."""

from __future__ import annotations

import gc
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

SHOWN = 80
"""Characters of what a model printed that are told."""


@dataclass
class Changes:
    """What was found changed when the work was over, in words; filled when ``kept`` ends."""

    found: list[str] = field(default_factory=list)
    printed: int = 0
    first_line: str = ""

    def sentences(self, whose: str) -> tuple[str, ...]:
        """For people; empty where nothing was changed."""
        told = []
        if self.found:
            told.append(f"The code of {whose} changed {', '.join(self.found)}; that was put back after the run.")
        if self.printed:
            line = self.first_line[:SHOWN].strip()
            begin = f", beginning with {line!r}" if line else ""
            told.append(f"The code of {whose} printed {self.printed:,} characters{begin}; printing takes part of its time.")
        return tuple(told)


@contextmanager
def kept(*, threads: bool = True) -> Iterator[Changes]:
    """While it lasts, code of others may change what it likes; afterwards it is as before, and what changed is told.

    ``threads`` False: we set torch's threads meanwhile ourselves, and nobody else is blamed for it.

    What is printed on this thread is counted instead of shown (stdout may be somebody's JSON), and stdout cannot be closed. For
    the thread that calls the model; torch must have been imported if it ever is.
    """
    changes = Changes()
    states = [(name, read(), write, read) for name, read, write in _states(threads=threads)]
    stream = sys.stdout
    listener = _Listener(stream, changes)
    sys.stdout = listener
    try:
        yield changes
    finally:
        if sys.stdout is listener:
            sys.stdout = stream
        elif sys.stdout is not stream:
            changes.found.append("where Python prints to")
            sys.stdout = stream
        if listener.closed_by_model:
            changes.found.append("stdout (it closed it)")
        for name, before, write, read in states:
            with suppress(Exception):  # a folder that was removed meanwhile cannot be gone back to
                now = read()
                if now != before:
                    changes.found.append(name(before, now))
                    write(before)


_Told = Callable[[Any, Any], str]


def _states(*, threads: bool) -> list[tuple[_Told, Callable[[], Any], Callable[[Any], object]]]:
    """Of each state how a change is told, how it is read and how it is written."""
    found: list[tuple[_Told, Callable[[], Any], Callable[[Any], object]]] = [
        (lambda _, now: f"the working folder (to {now})", _folder, os.chdir),
        (lambda *_: "the garbage collector (off)", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
        (lambda *_: "the garbage collector (frozen)", lambda: gc.get_freeze_count() > 0, lambda _: gc.unfreeze()),
        (lambda _, now: f"the interpreter's switch interval (to {now:g} s)", sys.getswitchinterval, sys.setswitchinterval),
        (lambda _, now: f"the mode of new files (umask {now:03o})", _umask, os.umask),
        (lambda _, now: f"the recursion limit (to {now:,})", sys.getrecursionlimit, sys.setrecursionlimit),
    ]
    torch = sys.modules.get("torch")
    if torch is not None:
        found += [
            (lambda _, now: f"torch's default dtype (to {now})", torch.get_default_dtype, torch.set_default_dtype),
            (lambda _, now: f"gradients ({'on' if now else 'off'})", torch.is_grad_enabled, torch.set_grad_enabled),
            (
                lambda _, now: f"the precision of torch's products (to {now})",
                torch.get_float32_matmul_precision,
                torch.set_float32_matmul_precision,
            ),
            (
                lambda _, now: f"torch's deterministic algorithms ({'on' if now else 'off'})",
                torch.are_deterministic_algorithms_enabled,
                torch.use_deterministic_algorithms,
            ),
            (lambda _, now: f"torch's default device (to {now})", torch.get_default_device, _default_device),
        ]
    if torch is not None and threads:
        found.append((lambda was, now: f"torch's threads (from {was} to {now})", torch.get_num_threads, torch.set_num_threads))
    return found


def _umask() -> int:
    """Reading it is setting it; nobody else may write what is made in between."""
    before = os.umask(0o077)
    os.umask(before)
    return before


def _default_device(before: Any) -> None:
    """The processor is what torch has where none was set; setting it would slow every call that makes a tensor."""
    import torch

    torch.set_default_device(None if before.type == "cpu" else before)


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


class _Listener(io.TextIOBase):
    """Stands in for stdout: counts what the thread that made it prints, and passes on what all others print."""

    def __init__(self, stream: Any, changes: Changes) -> None:
        self._stream = stream
        self._changes = changes
        self._thread = threading.get_ident()
        self.closed_by_model = False

    def write(self, text: str) -> int:
        if threading.get_ident() != self._thread:
            return int(self._stream.write(text) or 0)
        if not self._changes.printed:
            self._changes.first_line = text[: 4 * SHOWN].splitlines()[0] if text.strip() else ""
        self._changes.printed += len(text)
        return len(text)

    def flush(self) -> None:
        if threading.get_ident() != self._thread:
            self._stream.flush()

    def close(self) -> None:
        if threading.get_ident() == self._thread:
            self.closed_by_model = True

    def __del__(self) -> None:  # TextIOBase would close it, which is nobody's doing
        """Nothing is held."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
