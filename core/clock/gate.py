"""The gate: between two moments, with the clock stopped, it lets the face paint and the writer write.

Painting in the same process makes inference slower (measured on 2 cores with SmolLM2-135M int8: +16 to +21 % at 30 Hz).
So a guest asks, the worker lets it in before it opens the next moment, and waits, bounded, until it leaves.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable


class PauseClient:
    """Someone who wants the clock stopped for a little while. ``wake`` is called on the worker thread and must only wake."""

    def __init__(self, gate: Gate, wake: Callable[[], None], limit_s: float) -> None:
        self._gate = gate
        self._wake = wake
        self._limit_s = limit_s
        self._left = threading.Event()
        self.wanted = False
        self.inside = False
        self.overran = 0

    def ask(self) -> None:
        """Ask for the next pause. Costs the worker nothing until it is between two moments."""
        self.wanted = True
        self._gate.wanted = True

    def leave(self) -> None:
        """Done; the clock may go on."""
        self.inside = False
        self._left.set()

    def let_in(self) -> None:
        """Worker: the pause begins for this guest."""
        self.wanted = False
        self._left.clear()
        self.inside = True
        self._wake()

    def wait(self) -> None:
        """Worker: until the guest leaves, or its limit is over (it may then still be working: counted in ``overran``)."""
        if not self._left.wait(self._limit_s):
            self.inside = False
            self.overran += 1


class Gate:
    """One per program. ``wanted`` is the only thing the worker looks at when nobody asked."""

    def __init__(self) -> None:
        self.wanted = False
        self.clock_runs = False
        self._guests: list[PauseClient] = []
        self._disturbed_ns = 0
        self._paintings: deque[tuple[int, int]] = deque(maxlen=256)  # from and to, since somebody took the disturbance

    def guest(self, wake: Callable[[], None], limit_s: float) -> PauseClient:
        """A new guest, who stays known until ``dismiss``."""
        guest = PauseClient(self, wake, limit_s)
        self._guests.append(guest)
        return guest

    def dismiss(self, guest: PauseClient) -> None:
        """Forget a guest; lets go of a worker that waits for it."""
        if guest in self._guests:
            self._guests.remove(guest)
        guest.leave()

    def pause(self) -> int:
        """Worker, between moments: let in who asked and wait for them. Returns the nanoseconds it took."""
        start = time.perf_counter_ns()
        self.wanted = False
        inside = [guest for guest in self._guests if guest.wanted]
        for guest in inside:
            guest.let_in()
        for guest in inside:
            guest.wait()
        return time.perf_counter_ns() - start

    def disturb(self, duration_ns: int) -> None:
        """GUI: painting took this long while the clock was running."""
        if self.clock_runs:
            self._disturbed_ns += duration_ns
            end = time.perf_counter_ns()
            self._paintings.append((end - duration_ns, end))

    def paintings(self) -> list[tuple[int, int]]:
        """From when to when (``perf_counter_ns``) was painted while the clock was running, since ``take_disturbance``."""
        return list(self._paintings)

    def take_disturbance(self) -> int:
        """Worker, at a moment's end: nanoseconds of painting since the last call."""
        taken, self._disturbed_ns = self._disturbed_ns, 0
        if taken:
            self._paintings.clear()
        return taken
