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

from core.messages.reason import Reason

SHOWN = 80
"""Characters of what a model printed that are told."""


@dataclass
class Changes:
    """What was found changed when the work was over, in words; filled when ``kept`` ends."""

    found: list[Reason] = field(default_factory=list)
    printed: int = 0
    first_line: str = ""

    def sentences(self, whose: Reason | str) -> tuple[Reason, ...]:
        """For people; empty where nothing was changed."""
        told: list[Reason] = []
        if self.found:
            told.append(Reason("surroundings.changed", whose=whose, what=tuple(self.found)))
        if self.printed:
            line = self.first_line[:SHOWN].strip()
            if line:
                told.append(Reason("surroundings.printed-beginning", whose=whose, count=self.printed, line=line))
            else:
                told.append(Reason("surroundings.printed", whose=whose, count=self.printed))
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
            changes.found.append(Reason("surroundings.stdout"))
            sys.stdout = stream
        if listener.closed_by_model:
            changes.found.append(Reason("surroundings.stdout-closed"))
        for name, before, write, read in states:
            with suppress(Exception):  # a folder that was removed meanwhile cannot be gone back to
                now = read()
                if now != before:
                    changes.found.append(name(before, now))
                    write(before)


_Told = Callable[[Any, Any], Reason]
_State = tuple[_Told, Callable[[], Any], Callable[[Any], object]]


def _states(*, threads: bool) -> list[_State]:
    """Of each state how a change is told, how it is read and how it is written."""
    found: list[_State] = [
        (lambda _, now: Reason("surroundings.folder", now=str(now)), _folder, os.chdir),
        (lambda *_: Reason("surroundings.collector-off"), gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
        (lambda *_: Reason("surroundings.collector-frozen"), lambda: gc.get_freeze_count() > 0, lambda _: gc.unfreeze()),
        (lambda _, now: Reason("surroundings.switch-interval", now_s=now), sys.getswitchinterval, sys.setswitchinterval),
        (lambda _, now: Reason("surroundings.umask", now=now), _umask, os.umask),
        (lambda _, now: Reason("surroundings.recursion-limit", now=now), sys.getrecursionlimit, sys.setrecursionlimit),
    ]
    torch = sys.modules.get("torch")
    if torch is not None:
        found += _of_torch(torch)
    if torch is not None and threads:
        found.append((_threads, torch.get_num_threads, torch.set_num_threads))
    return found


def _of_torch(torch: Any) -> list[_State]:
    return [
        (lambda _, now: Reason("surroundings.default-dtype", now=str(now)), torch.get_default_dtype, torch.set_default_dtype),
        (_gradients, torch.is_grad_enabled, torch.set_grad_enabled),
        (
            lambda _, now: Reason("surroundings.product-precision", now=str(now)),
            torch.get_float32_matmul_precision,
            torch.set_float32_matmul_precision,
        ),
        (_deterministic, torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
        (lambda _, now: Reason("surroundings.default-device", now=str(now)), torch.get_default_device, _default_device),
    ]


def _gradients(_: bool, now: bool) -> Reason:
    return Reason("surroundings.gradients-on") if now else Reason("surroundings.gradients-off")


def _deterministic(_: bool, now: bool) -> Reason:
    return Reason("surroundings.deterministic-on") if now else Reason("surroundings.deterministic-off")


def _threads(was: int, now: int) -> Reason:
    return Reason("surroundings.threads", was=was, now=now)


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
