"""The verdict on one difference: a word of three, whichever language it is said in."""

from __future__ import annotations

from enum import StrEnum

from core.messages.reason import Reason


class Word(StrEnum):
    """The values stand in JSON (``ab --json``, ``compare --json``), where they are codes; ``said`` is what people read."""

    FASTER = "faster"
    SLOWER = "slower"
    UNDECIDED = "can't tell"

    @property
    def said(self) -> Reason:
        """The word as a clause: faster."""
        return _SAID[self]


_SAID = {
    Word.FASTER: Reason("analysis.faster"),
    Word.SLOWER: Reason("analysis.slower"),
    Word.UNDECIDED: Reason("analysis.undecided"),
}
