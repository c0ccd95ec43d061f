"""What the worker tells the faces: a sentence for people, a traceback for the log, and the state it is in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

STATES = ("idle", "loading", "ready", "preparing", "running", "cancelling")

NOTICE_KINDS = (
    "loaded",  # a model is in memory; ``Program.loaded`` has its facts
    "unloaded",
    "load_cancelled",
    "run_started",  # ``run`` is its id
    "run_finished",
    "run_cancelled",  # what was measured is kept
    "run_failed",
    "trial_started",
    "trial_finished",
    "trial_cancelled",  # what was measured is kept
    "trial_failed",
    "imported",  # a trace became the run ``run``
    "busy",  # another process is in the way of measuring; the sentence names it
    "refused",  # bad input: the sentence says what to do
    "failed",  # a bug or the machine: sentence and traceback
    "warning",  # goes on, but people should know (disk full, will not fit overridden)
    "not_kept",  # the session file does not have what was measured; the sentence says where that is instead
    "session_changed",  # another session is open, or its list of runs changed
)


@dataclass(frozen=True)
class Notice:
    """``text`` is one sentence for people; ``detail`` a traceback or nothing; ``can_override`` as in ``Refusal``."""

    kind: str
    text: str
    detail: str = ""
    run: int | None = None
    can_override: bool = False


class Warnings(logging.Handler):
    """Hands on what parts of the program warn of that know no program, such as a damaged cache. ``close`` ends it."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell
        logging.getLogger("tickscope").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage())

    def close(self) -> None:
        logging.getLogger("tickscope").removeHandler(self)
        super().close()


@dataclass(frozen=True)
class Status:
    """What the worker is doing now, as the status bar shows it. ``fraction`` and ``seconds_left`` are None while unknown.

    ``warming``: requests that do not count are being made, which can be skipped. ``compiling``: a graph is compiled, so that
    nobody knows the time left.
    """

    state: str = "idle"
    text: str = ""
    fraction: float | None = None
    seconds_left: float | None = None
    warming: bool = False
    compiling: bool = False
