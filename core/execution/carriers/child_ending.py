"""How the process of a run ended, in a sentence: what it was killed by, where it was, and what to do about it."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path

from core.messages.reason import Reason

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
    trouble: Reason | None = None

    def sentence(self, moments: int) -> Reason:
        """What happened, after so many moments."""
        what = self._cause()
        place = self._place()
        if place is not None:
            what = Reason("execution.ended-in", what=what, function=place[0], file=place[1], line=place[2])
        if moments:
            what = Reason("execution.ended-after", what=what, moments=moments)
        return Reason("execution.process-is-gone", what=what)

    @property
    def detail(self) -> str:
        """Its last words, for the log."""
        return "\n".join(self.said)

    def _cause(self) -> Reason:
        if self.trouble is not None:
            return Reason("execution.process-sent-nonsense", trouble=self.trouble)
        if self.status >= 0:
            return Reason("execution.process-ended-itself", status=self.status)
        name = _signal_name(-self.status)
        if name == "SIGKILL" and kills_for_memory() > self.kills_before:
            return Reason("execution.process-out-of-memory")
        if name in _CRASHES:
            return Reason("execution.process-crashed", name=name)
        if name == "SIGABRT":
            return Reason("execution.process-aborted", name=name)
        return Reason("execution.process-killed", name=name)

    def _place(self) -> tuple[str, str, int] | None:
        """Function, file and line: the innermost Python function that is not ours, as far as ``faulthandler`` wrote it down."""
        begin = next((row for row, line in enumerate(self.said) if line.startswith("Current thread")), None)
        if begin is None:
            return None
        for line in self.said[begin + 1 :]:
            frame = _FRAME.match(line)
            if frame is None:
                return None
            if not any(mark in frame["file"] for mark in _OURS):
                return frame["name"], Path(frame["file"]).name, int(frame["line"])
        return None


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
