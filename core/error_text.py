"""What an error says, in words that can be had from any error: a model's own may raise where it is asked for its message."""

from __future__ import annotations

import traceback
from typing import Any

from core.errors import Cancelled
from core.messages.reason import Reason, of_text

MOST = 100_000
"""Characters of a message that are looked at; an error may carry a whole tensor, or a file."""


def said(error: BaseException) -> str:
    """Its message; "" where there is none, and where its own ``__str__`` raises or gives no text.

    What runs in there is a stranger's code. Asked plainly it would raise in the middle of the handler that tells the error, so
    that neither the error's name nor the job that failed would be told.
    """
    try:
        return str(error)[:MOST].strip()
    except Cancelled:
        raise
    except BaseException:  # noqa: BLE001 - whatever it is, the error that it hides is the one to tell
        return ""


def first_line(error: BaseException, otherwise: str | None = None) -> str:
    """The first line of its message; where there is none ``otherwise``, or else its name."""
    lines = said(error).splitlines()
    return lines[0].strip() if lines else type(error).__name__ if otherwise is None else otherwise


def named(error: BaseException) -> str:
    """Its name and its message."""
    message = said(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def reason_of(error: BaseException) -> Reason:
    """What an error says: its reason where it was raised with one, else its words, else its name."""
    given = error.args[0] if error.args else None
    return given if isinstance(given, Reason) else of_text(said(error) or type(error).__name__)


def trace(error: BaseException) -> str:
    """Its traceback as Python prints it; where its own code stands in the way of that, the places and its name."""
    try:
        return "".join(traceback.format_exception(error))
    except Cancelled:
        raise
    except BaseException:  # noqa: BLE001 - as above
        return "".join([*traceback.format_tb(error.__traceback__), type(error).__name__, "\n"])


def noted(error: BaseException, name: str) -> Any:
    """What was set on it under a name, without its own ``__getattr__`` being asked; None where nothing was."""
    return object.__getattribute__(error, "__dict__").get(name)


def note(error: BaseException, name: str, value: object) -> None:
    """Set something on it for whoever catches it next."""
    object.__getattribute__(error, "__dict__")[name] = value
