"""How the process of a run ended, in a sentence: what it was killed by, where it was, and what to do about it."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path

_FRAME = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<name>\S+)')
_OURS = ("core/", "profilers/", "threading.py", "runpy", "<frozen")
_CRASHES = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE")


@dataclass(frozen=True)
class Ending:
    """What is known. ``status`` is that of ``subprocess``: below 0 a signal's number. ``said``: the last lines of its stderr.

    ``kills_before``: how often the system had killed for memory when the process began. ``trouble``: what it sent that made no
    sense.
    """

    status: int
    said: tuple[str, ...]
    kills_before: int
    trouble: str | None = None

    def sentence(self, moments: int) -> str:
        """What happened, after so many moments."""
        after = f" after {moments} moments, which are kept" if moments else ""
        return f"{self._cause()}{self._place()}{after}. The next run starts a new process."

    @property
    def detail(self) -> str:
        """Its last words, for the log."""
        return "\n".join(self.said)

    def _cause(self) -> str:
        if self.trouble is not None:
            return f"The run's process sent what makes no sense ({self.trouble}) and was ended"
        if self.status >= 0:
            return f"The run's process ended itself with exit status {self.status}"
        name = _signal_name(-self.status)
        if name == "SIGKILL" and kills_for_memory() > self.kills_before:
            return "The system ended the run's process because memory ran out; make the batch, the prompt or the model smaller"
        if name in _CRASHES:
            return f"The run's process crashed in native code ({name})"
        if name == "SIGABRT":
            return f"The run's process was given up by its own native code ({name})"
        return f"The run's process was killed ({name})"

    def _place(self) -> str:
        """The innermost Python function that is not ours, as far as ``faulthandler`` wrote it down."""
        begin = next((row for row, line in enumerate(self.said) if line.startswith("Current thread")), None)
        if begin is None:
            return ""
        for line in self.said[begin + 1 :]:
            frame = _FRAME.match(line)
            if frame is None:
                return ""
            if not any(mark in frame["file"] for mark in _OURS):
                return f" in {frame['name']} ({Path(frame['file']).name}, line {frame['line']})"
        return ""


def kills_for_memory() -> int:
    """How many processes the system has killed for memory so far: of this container, or of the whole machine; 0: not told."""
    for path, name in (
        (Path("/sys/fs/cgroup/memory.events"), "oom_kill"),
        (Path("/sys/fs/cgroup/memory/memory.oom_control"), "oom_kill"),
        (Path("/proc/vmstat"), "oom_kill"),
    ):
        try:
            for line in path.read_text(encoding="ascii").splitlines():
                key, _, value = line.partition(" ")
                if key == name and value.strip().isdigit():
                    return int(value)
        except (OSError, ValueError):
            continue
    return 0


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
