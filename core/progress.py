"""How a long step says how far it is and learns that it should stop."""

from __future__ import annotations

import threading
from collections.abc import Callable

from core.errors import Cancelled
from core.interrupting import PATIENCE_S, Region
from core.messages.reason import Reason

DEAF = 3
"""What was insisted upon so often does not hear."""


class Progress:
    """Written by the worker, read by anyone. ``fraction`` is None while the length is unknown.

    ``interruptible`` is entered around code that need not look whether it was cancelled. ``on_deaf`` is called once if even
    insisting does not help.
    """

    def __init__(self, on_deaf: Callable[[], None] = lambda: None) -> None:
        self._on_deaf = on_deaf
        self.said: tuple[Reason, ...] = ()  # what is being done; () until the first report
        self.fraction: float | None = None
        self.cancelled = threading.Event()
        self.interruptible = Region()
        self._over = threading.Event()
        self.also: Callable[[], None] | None = None  # asked too whenever it is checked; may raise what ends the step

    def report(self, doing: Reason | None = None, fraction: float | None = None) -> None:
        """Say what is being done and how much of it is (0 to 1); raises ``Cancelled`` where the user asked for that."""
        if doing is not None:
            self.said = (doing,)
        self.fraction = fraction
        self.check()

    def check(self) -> None:
        """Raise ``Cancelled`` if the user asked to stop."""
        if self.cancelled.is_set():
            raise Cancelled
        if self.also is not None:
            self.also()

    def cancel(self) -> None:
        """Ask to stop; where that is not heard after a while, it is insisted upon until ``end``."""
        if not self.cancelled.is_set():
            self.cancelled.set()
            if not self._over.is_set():
                threading.Thread(target=self._insist, name="tickscope-cancel", daemon=True).start()

    def end(self) -> None:
        """The job is over."""
        self._over.set()

    def _insist(self) -> None:
        insisted = 0
        while not self._over.wait(PATIENCE_S):
            insisted += 1
            if insisted == DEAF:
                self._on_deaf()
            self.interruptible.insist()
