"""What the worker tells the faces: a sentence for people, a traceback for the log, and the state it is in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields

from core.messages.reason import Reason, as_reason

STATES = ("idle", "loading", "ready", "preparing", "running", "cancelling")

NOTICE_KINDS = (
    "loaded",  # a model is in memory; ``Program.loaded`` has its facts
    "unloaded",
    "job_started",  # what it measures can be seen from now on; ``job`` is its kind, ``run`` the id of the run that it makes
    "job_finished",
    "job_cancelled",  # what was measured is kept
    "job_failed",  # what was measured until then is kept; "failed" or "refused" says why
    "cancelled",  # a job, before anything of it was to be seen
    "queued",  # it is done once nothing is measured any more
    "busy",  # another process is in the way of measuring; the sentence names it
    "refused",  # bad input: the sentence says what to do
    "failed",  # a bug or the machine: sentence and traceback
    "warning",  # goes on, but people should know (disk full, will not fit overridden)
    "not_kept",  # the session file does not have what was measured; the sentence says where that is instead
    "session_changed",  # another session is open, or its list of runs changed
)

ENDS = ("job_finished", "job_cancelled", "job_failed")

MEASURING = ("run", "ab_test")
"""Kinds of jobs that measure; the others read or write something."""


@dataclass(frozen=True)
class Notice:
    """``said`` is one sentence for people, None where there is nothing to say; ``detail`` a traceback or nothing;
    ``can_override`` as in ``Refusal``.

    ``job`` is the kind of job that it is about (``core.execution.jobs``), "" for none. Only a face gives words as they are.
    """

    kind: str
    said: Reason | str | None = None
    detail: str = ""
    run: int | None = None
    can_override: bool = False
    job: str = ""

    @property
    def text(self) -> str:
        """The sentence in words, for a face; "" where there is none."""
        return "" if self.said is None else str(self.said)

    @property
    def starts_measuring(self) -> bool:
        """Whether something begins that can be watched."""
        return self.kind == "job_started" and self.job in MEASURING

    @property
    def ends_measuring(self) -> bool:
        """Whether something is over that could be watched."""
        return self.kind in ENDS and self.job in MEASURING

    @property
    def imported(self) -> bool:
        """Whether a trace became the run ``run``."""
        return self.kind == "job_finished" and self.job == "import"

    @property
    def is_trouble(self) -> bool:
        """Whether something was not done as asked, other than by the user's own wish."""
        return self.kind in ("failed", "job_failed", "refused", "not_kept")


class Warnings(logging.Handler):
    """Hands on what parts of the program warn of that know no program, such as a damaged cache. ``close`` ends it."""

    def __init__(self, tell: Callable[[Reason], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell
        logging.getLogger("tickscope").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.msg if isinstance(record.msg, Reason) else as_reason(record.getMessage()))

    def close(self) -> None:
        logging.getLogger("tickscope").removeHandler(self)
        super().close()


@dataclass(frozen=True)
class Status:
    """What the worker is doing now, as the status bar shows it. ``fraction`` and ``seconds_left`` are None while unknown.

    ``said`` are the parts of what it does, from the whole to the step under way.

    ``warming``: requests that do not count are being made, which can be skipped. ``compiling``: a graph is compiled, so that
    nobody knows the time left. ``at_most``: it may be over sooner. ``then``: what follows, of which no time is known.
    """

    state: str = "idle"
    said: tuple[Reason, ...] = ()
    fraction: float | None = None
    seconds_left: float | None = None
    warming: bool = False
    compiling: bool = False
    at_most: bool = False
    then: tuple[Reason, ...] = ()

    @property
    def left(self) -> str:
        """``at most 0:21 left, then measuring quality``; "" where nobody knows it."""
        if self.seconds_left is None:
            return ""
        seconds = self.seconds_left
        left = Reason("notices.at-most-left", seconds=seconds) if self.at_most else Reason("notices.left", seconds=seconds)
        return str(Reason("notices.left-then", left=left, then=self.then) if self.then else left)

    @property
    def text(self) -> str:
        """The parts in words, for a face."""
        return " · ".join(map(str, self.said))


STATUS_REASONS = tuple(one.name for one in fields(Status) if one.type == "tuple[Reason, ...]")
"""The fields of a ``Status`` that are made of reasons, and have to be told as such where it is told to another process."""
