"""Warm-up: requests that do not count, until their times have stopped falling, somebody skips it, or ten seconds are over."""

from __future__ import annotations

import threading
import time

import numpy as np

from core.analysis.stopping import WARMUP_S, cap_of_time, settled
from core.messages.reason import Reason
from profilers.trace import Array, Recorder, Tag

AS_ASKED = Reason("execution.as-asked")
"""Why it was enough: as many requests were made as somebody asked for."""

LEAST_MOMENTS = 3
"""Seen before a request may be cut short: a first token, a clean one after it and a traced one, so nothing is left cold."""


class WarmedUp(BaseException):
    """Ends the warm-up request that is under way. Like ``Cancelled`` it is no ``Exception``."""


class WarmUp:
    """The warm-up of one run. ``skip`` and ``seconds_left`` are for any thread; everything else for the worker.

    ``limit_s``: it takes no longer, where that is left to the program; may be set lower before it begins.

    Args:
        recorder: where its moments are.
        asked: so many requests; None: until it has settled, ten seconds at most.
    """

    def __init__(self, recorder: Recorder, asked: int | None) -> None:
        self._recorder = recorder
        self._asked = asked
        self._skipped = threading.Event()
        self.limit_s = WARMUP_S
        self._began: float | None = None  # when every sort of moment had been seen: compiling does not count

    def skip(self) -> None:
        """End it as soon as every sort of moment was seen once."""
        self._skipped.set()

    @property
    def seconds_left(self) -> float | None:
        """At most so many seconds, where it is limited by time."""
        return None if self._asked is not None else max(0.0, self.limit_s - self._elapsed_s())

    def check(self) -> None:
        """Called before each moment: ends the request where it is too long to wait for its end."""
        if self._recorder.moments.count < LEAST_MOMENTS:
            return
        self._begin()
        if self._over() is not None:
            raise WarmedUp

    def why_over(self) -> Reason | None:
        """Why no further request is needed; None: go on. Asked between two requests."""
        done = self._recorder.requests.count
        if self._asked is not None and done >= self._asked:
            return AS_ASKED
        over = self._over()
        if done and over is not None:
            return over
        if not done or self._asked is not None:
            return None
        self._begin()
        return settled(self._times(), self._elapsed_s())

    def _begin(self) -> None:
        if self._began is None:
            self._began = time.perf_counter()

    def _over(self) -> Reason | None:
        if self._skipped.is_set():
            return Reason("execution.skipped")
        late = self._asked is None and self._elapsed_s() >= self.limit_s
        return cap_of_time(self.limit_s) if late else None

    def _elapsed_s(self) -> float:
        return 0.0 if self._began is None else time.perf_counter() - self._began

    def _times(self) -> list[Array]:
        """Of each warm-up request the times of its moments; what compiled is left out of it."""
        moments = self._recorder.moments.view()
        usable = (moments["tags"] & int(Tag.COMPILE)) == 0
        return [
            np.maximum(moments["duration_ns"][usable & (moments["request"] == request)], 1).astype(np.float64)
            for request in range(self._recorder.requests.count)
        ]
