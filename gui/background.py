"""Slow work beside the GUI thread, and the one place where answers that came too late are dropped."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

Done = Callable[[Future[Any]], None]
InBackground = Callable[[Callable[[], Any], Done], None]
"""``Bridge.in_background``: do the work on another thread, then ``done(future)`` on the GUI thread."""


def at_once(work: Callable[[], Any], done: Done) -> None:
    """Do the work here and now; errors go into the future as they do from another thread."""
    future: Future[Any] = Future()
    try:
        future.set_result(work())
    except (ValueError, OSError, ArithmeticError, LookupError) as error:
        future.set_exception(error)
    done(future)


class Answers:
    """What one panel asked for in the background, by generation: an answer counts only while its generation is the newest."""

    def __init__(self, in_background: InBackground) -> None:
        self._in_background = in_background
        self._generation = 0

    def ask(self, work: Callable[[], Any], done: Done) -> None:
        """Ask instead of all that was asked before: of two clicks only the last one's answer is shown."""
        self.drop()
        self.add(work, done)

    def add(self, work: Callable[[], Any], done: Done) -> None:
        """Ask beside what was asked before (two deletions are two)."""
        mine = self._generation

        def newest(future: Future[Any]) -> None:
            if mine == self._generation:
                done(future)

        self._in_background(work, newest)

    def drop(self) -> None:
        """What was asked until now counts no more: another session, run or theme is on show."""
        self._generation += 1
