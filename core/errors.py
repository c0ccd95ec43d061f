"""The errors that are meant for people: one sentence that says what happened and what to do."""

from __future__ import annotations

from core.messages.reason import Reason, as_reason, of_text


class Refusal(ValueError):
    """Something the user asked for cannot be done. ``str(refusal)`` is one sentence for people, with the remedy in it.

    ``reason`` is that sentence as code and facts. ``can_override`` marks a refusal that an explicit switch (``force``) lifts,
    such as "will not fit in memory".
    """

    def __init__(self, reason: Reason | str, *, can_override: bool = False) -> None:
        super().__init__(reason)
        self.reason = as_reason(reason)
        self.can_override = can_override


class NotWritten(Refusal):
    """What was asked was done, and then its result could not be written: a failure, and not for what was asked."""


class Cancelled(BaseException):
    """The user cancelled. Not an ``Exception``, so that no library's ``except Exception`` swallows it."""


def reason_of(error: BaseException) -> Reason:
    """What an error says: its reason where it was raised with one, else its words, else its name."""
    given = error.args[0] if error.args else None
    return given if isinstance(given, Reason) else of_text(str(error) or type(error).__name__)
