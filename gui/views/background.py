"""How a view has slow work done: beside the GUI thread where the window offers that, at once where it does not."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

InBackground = Callable[[Callable[[], Any], Callable[[Future[Any]], None]], None]
"""``Bridge.in_background``: do the work on another thread, then ``done(future)`` on the GUI thread."""


def at_once(work: Callable[[], Any], done: Callable[[Future[Any]], None]) -> None:
    """Do the work here and now; errors go into the future as they do from another thread."""
    future: Future[Any] = Future()
    try:
        future.set_result(work())
    except (ValueError, OSError, ArithmeticError, LookupError) as error:
        future.set_exception(error)
    done(future)
