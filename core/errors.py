"""The errors that are meant for people: one sentence that says what happened and what to do."""

from __future__ import annotations

from core.messages.reason import Reason, as_reason


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
