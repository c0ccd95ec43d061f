"""The one worker thread: it owns model, tokenizer, passes and instruments, and does one job after another."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

Job = Callable[[], None]


class Worker:
    """A long-lived thread with a queue of jobs. A job that raises is given to ``on_error``; the thread lives on."""

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self._on_error = on_error
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._pending = 0
        self._changed = threading.Condition()
        # a plain thread: threads made by Qt have 512 KB stacks on macOS, too little for a deep model
        self._thread = threading.Thread(target=self._run, name="tickscope-worker", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; returns at once."""
        with self._changed:
            self._pending += 1
        self._jobs.put(job)

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits."""
        return self._pending > 0

    def join(self, timeout_s: float | None) -> bool:
        """Wait until nothing is to be done; False if ``timeout_s`` passed first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._pending == 0, timeout_s)

    def close(self) -> None:
        """Finish what is queued, then end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException as error:  # noqa: BLE001 - whatever a model's code raises, the app lives on
                self._on_error(error)
            del job  # a job holds what it works on
            with self._changed:
                self._pending -= 1
                self._changed.notify_all()
