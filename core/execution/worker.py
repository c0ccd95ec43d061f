"""The one worker thread: it owns model, tokenizer, passes and instruments, and does one job after another."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import NoReturn

Job = Callable[[], None]

_workers: set[tuple[int, int]] = set()
"""Process and thread of each worker there was."""


class Worker:
    """A long-lived thread with a queue of jobs. A job that raises is given to ``on_error``; the thread lives on."""

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self._on_error = on_error
        self._jobs: queue.SimpleQueue[tuple[Job, bool] | None] = queue.SimpleQueue()
        self._pending = [0, 0]  # jobs at all, and jobs that somebody waits for
        self.closing = False
        self._changed = threading.Condition()
        # a plain thread: threads made by Qt have 512 KB stacks on macOS, too little for a deep model
        self._thread = threading.Thread(target=self._run, name="tickscope-worker", daemon=True)
        self._thread.start()

    def submit(self, job: Job, *, awaited: bool = True) -> None:
        """Queue a job; returns at once. One that is not ``awaited`` is not ``busy``; it should end early when ``closing``."""
        self._count(1, awaited)
        self._jobs.put((job, awaited))

    @property
    def busy(self) -> bool:
        """Whether an awaited job runs or waits."""
        return self._pending[True] > 0

    def join(self, timeout_s: float | None) -> bool:
        """Wait until nothing is to be done; False if ``timeout_s`` passed first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._pending[False] == 0, timeout_s)

    def close(self, timeout_s: float | None = None) -> bool:
        """Finish what is queued, then end the thread; False if ``timeout_s`` passed first."""
        self.closing = True
        self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        _keep_alive(threading.get_ident())
        while (queued := self._jobs.get()) is not None:
            job, awaited = queued
            try:
                job()
            except BaseException as error:  # noqa: BLE001 - whatever a model's code raises, the app lives on
                self._on_error(error)
            del job, queued  # a job holds what it works on
            self._count(-1, awaited)

    def _count(self, change: int, awaited: bool) -> None:
        with self._changed:
            self._pending[False] += change
            self._pending[True] += change * awaited
            self._changed.notify_all()


def _keep_alive(thread: int) -> None:
    """``os._exit`` in the code of a model, on this thread, is an error of that model and does not end the program.

    It would end without a word, and with it the last second of a run. Other threads, and forked children, end as ever.
    """
    _workers.add((os.getpid(), thread))
    if getattr(os._exit, "spares_workers", False):
        return
    plain = os._exit

    def leave(status: int) -> NoReturn:
        if (os.getpid(), threading.get_ident()) in _workers:
            raise SystemExit(status)
        plain(status)

    leave.__dict__["spares_workers"] = True
    os._exit = leave
