"""The process behind ``carriers.child``: started with a lifeline, heard to its last words, killed with all it has started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import core
from core.execution.carriers.child_ending import kills_for_memory
from core.execution.link import Link, LinkError
from core.private_folders import process_mark, sweep_temporary

CLOSE_S = 3.0
"""How long a process may take to end by itself."""

FROZEN_COMMAND = "child-process"
"""What the frozen app is called with to become one; see ``gui.__main__``."""

ERROR_LINES = 400
LINE_BYTES = 4096
"""Of what it writes to its stderr the last lines are kept, and of each its beginning: an endless one takes no memory here."""


class WorkerProcess:
    """One worker process, its link and its last words."""

    def __init__(self) -> None:
        lifeline, self._hold = os.pipe() if os.name == "posix" else (-1, -1)
        self.kills_before = kills_for_memory()
        roots = [str(Path(core.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        command = [sys.executable, "-P", "-u", "-X", "faulthandler", "-m", "core.execution.carriers.child_process"]
        if getattr(sys, "frozen", False):
            command = [sys.executable, FROZEN_COMMAND]
        self._popen = subprocess.Popen(
            [*command, str(lifeline), process_mark()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
            pass_fds=() if lifeline < 0 else (lifeline,),
            start_new_session=True,
            bufsize=0,
        )
        if lifeline >= 0:
            os.close(lifeline)
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self.link = Link(self._popen.stdout, self._popen.stdin)
        self.said: deque[str] = deque(maxlen=ERROR_LINES)
        self._listening = threading.Thread(target=self._listen, name="tickscope-child-errors", daemon=True)
        self._listening.start()
        self._commands: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        threading.Thread(target=self._command, name="tickscope-child-commands", daemon=True).start()

    def _listen(self) -> None:
        stream, rest = self._popen.stderr, b""
        assert stream is not None
        with contextlib.suppress(OSError, ValueError):  # it was closed
            while chunk := stream.read(1 << 16):
                *lines, rest = (rest + chunk).split(b"\n")
                self.said.extend(_shown(line) for line in lines[-ERROR_LINES:])
                rest = rest[:LINE_BYTES]
        if rest:
            self.said.append(_shown(rest))

    def send(self, what: str, **values: Any) -> None:
        """Give it a command, after those before it, without waiting: it may not have begun to read, or be stopped."""
        self._commands.put({"what": what, **values})

    def _command(self) -> None:
        with contextlib.suppress(OSError, ValueError, LinkError):  # it is gone, and whoever reads from it learns that
            while (command := self._commands.get()) is not None:
                self.link.send(**command)

    @property
    def number(self) -> int:
        """Its process number."""
        return self._popen.pid

    def kill(self) -> None:
        """End it, with all that it has started, at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "posix":
                os.killpg(self._popen.pid, signal.SIGKILL)
            else:
                self._popen.kill()

    def ended(self) -> int:
        """Wait until it is gone and everything of it with it; returns its exit status."""
        try:
            status = self._popen.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            status = self._popen.wait()
        if self._hold >= 0:
            with contextlib.suppress(OSError):
                os.write(self._hold, b".")  # whoever it started goes too, and its folder
            os.close(self._hold)
            self._hold = -1
        self._commands.put(None)
        self._listening.join(1.0)
        for stream in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        sweep_temporary()
        return status


def _shown(line: bytes) -> str:
    return line[:LINE_BYTES].decode("utf-8", "replace")
