"""Follows a program while it works: progress on stderr, signals into a cancel, notices into an exit status."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, Protocol

from core.commands import BAD_INPUT, CANCELLED, DONE, FAILED
from core.ending import LIMIT_S, break_off
from core.notices import ENDS, Notice, Status
from core.plain_text import visible

if TYPE_CHECKING:
    import queue

LOOK_S = 0.15  # how often the program is asked; nothing of it is on the measured thread
LINE_EVERY_S = 2.0

PATIENCE_S = 60.0
"""For letting go of the model in the end."""

GIVEN_UP = "tickscope: What is going on does not react to the cancel; Tickscope ends without it."

_STATUS_OF = {
    "job_finished": DONE,
    "job_cancelled": CANCELLED,
    "cancelled": CANCELLED,
    "job_failed": FAILED,
    "failed": FAILED,
    "refused": BAD_INPUT,
}


class Followed(Protocol):
    """As much of ``core.program.Program`` as is needed here."""

    notices: queue.SimpleQueue[Notice]

    @property
    def status(self) -> Status: ...

    def cancel(self) -> None: ...

    def abandon(self) -> None: ...

    def join(self, timeout_s: float | None = None) -> bool: ...


def follow(
    program: Followed,
    progress: Progress,
    stop: threading.Event,
    debug: bool = False,
    look: Callable[[], Status] | None = None,
) -> int:
    """Until the program is idle again; returns the exit status. ``stop`` set cancels.

    What does not react to a cancel within ``LIMIT_S``, or until a second signal, is left behind: what was measured is written
    without it. ``look`` tells the status to show where there is more to say than the program's own.
    """
    outcome: int | None = None
    asked_s: float | None = None
    over = lost = False
    while not over:
        over = program.join(LOOK_S)
        if stop.is_set() and asked_s is None:
            asked_s = time.monotonic()
            program.cancel()
        if not over and asked_s is not None and (time.monotonic() - asked_s > LIMIT_S or _impatient(stop)):
            over, outcome = True, CANCELLED
            program.abandon()
            progress.say(GIVEN_UP)
        if not over:
            progress.show(program.status if look is None else look())
        for notice in _drained(program.notices):
            outcome = _worse(outcome, _STATUS_OF.get(notice.kind))
            lost |= notice.kind == "not_kept"
            _tell(notice, progress, debug)
    progress.close()
    return FAILED if outcome is None or lost else outcome


def _impatient(stop: threading.Event) -> bool:
    return isinstance(stop, Stop) and stop.again.is_set()


def _worse(before: int | None, new: int | None) -> int | None:
    """A later refusal says more precisely why a run failed; a failure is not made good by what ends after it."""
    if new is None or (before == BAD_INPUT and new == FAILED):
        return before
    return new if before in (None, DONE, FAILED) else before


def _drained(notices: queue.SimpleQueue[Notice]) -> Iterator[Notice]:
    while True:
        try:
            yield notices.get_nowait()
        except Empty:
            return


def _tell(notice: Notice, progress: Progress, debug: bool) -> None:
    if notice.kind in ("refused", "failed"):
        hint = " --force overrides this." if notice.can_override else ""
        progress.say(f"tickscope: {notice.text}{hint}")
        if debug and notice.detail:
            progress.say(notice.detail.rstrip())
    elif notice.kind in ("warning", "busy", "not_kept", "cancelled"):
        progress.say(f"tickscope: {notice.text}")
    elif notice.kind == "loaded" or (notice.kind in ENDS and not _in_report(notice)):
        progress.say(notice.text)


def _in_report(notice: Notice) -> bool:
    """Whether what is printed in the end says it too."""
    return notice.job == "run" and notice.kind != "job_cancelled"


class Progress:
    """What a person sees on stderr meanwhile: a bar on a terminal, else a line every two seconds at most."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._bar: Any = None
        self._last_line_s: float | None = None
        self._last_line = ""
        self._terminal = self._stream.isatty()

    def show(self, status: Status) -> None:
        """Bring the bar, or the lines, up to date."""
        if not status.text:
            return
        if self._terminal:
            self._draw(status)
            return
        now_s, text = time.monotonic(), line(status)
        if text != self._last_line and (self._last_line_s is None or now_s - self._last_line_s >= LINE_EVERY_S):
            self._last_line_s, self._last_line = now_s, text
            self._write(text)

    def say(self, sentence: str) -> None:
        """A sentence of its own, above the bar."""
        self._clear()
        self._write(sentence)

    def close(self) -> None:
        """Leave nothing of the bar behind."""
        self._clear()

    def _draw(self, status: Status) -> None:
        from tqdm import tqdm

        if self._bar is None:
            tqdm.monitor_interval = 0  # no watching thread beside a measurement
            layout = "{desc} {percentage:3.0f}% |{bar}| {postfix}"
            self._bar = tqdm(total=1.0, file=self._stream, leave=False, bar_format=layout, dynamic_ncols=True)
        self._bar.set_description_str(visible(status.text), refresh=False)
        self._bar.set_postfix_str(status.left, refresh=False)
        self._bar.n = min(status.fraction or 0.0, 1.0)
        self._bar.refresh()

    def _clear(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _write(self, text: str) -> None:
        self._stream.write(f"{visible(text, lines=True)}\n")
        self._stream.flush()


def line(status: Status) -> str:
    """The status as one line of text."""
    parts = [status.text]
    if status.fraction is not None:
        parts.append(f"{100 * status.fraction:.0f} %")
    if status.left:
        parts.append(status.left)
    return " · ".join(parts)


class Stop(threading.Event):
    """Set by a first signal; a second one sets ``again``."""

    def __init__(self) -> None:
        super().__init__()
        self.again = threading.Event()
        self.number: int = signal.SIGINT

    def status(self, outcome: int) -> int:
        """The exit status of a command that a signal may have cancelled: 130 for Ctrl-C, 143 for a polite kill."""
        return 128 + self.number if outcome == CANCELLED and self.is_set() else outcome


@contextmanager
def interrupts() -> Iterator[Stop]:
    """Ctrl-C and a polite kill ask to stop, a second one not to wait, a third one ends the process. Put back at the end."""
    stop = Stop()

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.again.is_set():
            break_off(128 + number)
        if stop.is_set():
            stop.again.set()
        else:
            stop.number = number
            stop.set()

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield stop
        return
    names = [name for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), handle) for name in names}
    try:
        yield stop
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
