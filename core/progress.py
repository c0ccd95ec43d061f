"""How a long step says how far it is and learns that it should stop."""

from __future__ import annotations

import threading

from core.errors import Cancelled


class Progress:
    """Written by the worker, read by anyone. ``fraction`` is None while the length is unknown."""

    def __init__(self) -> None:
        self.text = ""
        self.fraction: float | None = None
        self.cancelled = threading.Event()

    def report(self, text: str | None = None, fraction: float | None = None) -> None:
        """Say what is being done and how much of it is (0 to 1); raises ``Cancelled`` where the user asked for that."""
        if text is not None:
            self.text = text
        self.fraction = fraction
        self.check()

    def check(self) -> None:
        """Raise ``Cancelled`` if the user asked to stop."""
        if self.cancelled.is_set():
            raise Cancelled
