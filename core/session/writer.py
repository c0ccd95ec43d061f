"""The writer thread: carries what the recorder collects into the session file while the run goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import duckdb

from core.clock.gate import Gate
from core.error_text import named
from core.errors import Refusal
from core.messages.reason import Reason
from core.records.deltas import Written
from core.records.run import RunFacts
from core.session.database import explain
from core.session.store import SessionStore
from profilers.trace import Recorder

PERIOD_S = 1.0
"""Between two appends. With the wait for a pause a killed process loses less than the promised 2 s."""

PATIENCE_S = 0.5
"""How long to wait for a pause of the gate before writing anyway (a moment may last minutes)."""

STAY_S = 0.25
"""How long the worker may be kept waiting; a second's rows take a few tens of ms."""


@dataclass
class _Followed:
    run_id: int
    recorder: Recorder
    facts: Callable[[], RunFacts]
    written: Written = field(default_factory=Written)
    known: RunFacts | None = None  # facts as the file has them
    ended: bool = False


class Writer:
    """Appends every followed run once a second, in the gate's pauses where it can.

    When the file cannot be written (disk full, say) the rows stay in the recorder, ``on_trouble`` is called once with a
    sentence, and every period tries again; what could not be written at a run's end is tried on until ``close``.
    """

    def __init__(self, store: SessionStore, gate: Gate, on_trouble: Callable[[Reason], None] = lambda sentence: None) -> None:
        self.store = store
        self.on_trouble = on_trouble
        self._gate = gate
        self._inside = threading.Event()
        self._guest = gate.guest(self._inside.set, STAY_S)
        self._wake = threading.Event()
        self._changed = threading.Condition()
        self._followed: list[_Followed] = []
        self._flushes = 0
        self._troubled = False
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="tickscope-writer", daemon=True)
        self._thread.start()

    def follow(self, run_id: int, recorder: Recorder, facts: Callable[[], RunFacts]) -> None:
        """Write what ``recorder`` collects into the run of that id from now on. ``facts`` is called on the writer thread."""
        with self._changed:
            self._followed.append(_Followed(run_id, recorder, facts))

    def finish(self) -> bool:
        """The runs followed so far are over: write the rest, with their last facts, and wait for it.

        Returns whether all of it is in the file. If not, ``on_trouble`` has said why, the rows are kept, and the writer goes on
        trying.
        """
        with self._changed:
            for followed in self._followed:
                followed.ended = True
            # The flush that is going on now may have looked at the recorder too early; the one after it has not.
            target = self._flushes + 2
            self._wake.set()
            while self._flushes < target and any(followed.ended for followed in self._followed):
                if not self._thread.is_alive():
                    return False
                self._changed.wait(PERIOD_S)
                self._wake.set()
            return not any(followed.ended for followed in self._followed)

    def close(self) -> bool:
        """Write what is left, once more, and end the thread; returns whether everything is in the file."""
        written = self.finish()
        with self._changed:
            self._closing = True
            self._wake.set()
        self._thread.join()
        self._gate.dismiss(self._guest)
        return written

    def give_up(self) -> None:
        """What could not be written is kept elsewhere: do not try on."""
        with self._changed:
            self._followed.clear()

    def _work(self) -> None:
        while not self._closing:
            self._wake.wait(PERIOD_S)
            self._wake.clear()
            with self._changed:
                todo = list(self._followed)
            if any(not followed.ended for followed in todo):
                self._wait_for_pause()
            try:
                self._flush(todo)
            except Exception as error:
                self.on_trouble(Reason("session.fault-of-ours", error=named(error)))
                raise
            finally:
                self._guest.leave()
                with self._changed:
                    self._flushes += 1
                    self._changed.notify_all()

    def _wait_for_pause(self) -> None:
        self._inside.clear()
        self._guest.ask()
        deadline = time.perf_counter() + PATIENCE_S
        while not self._inside.is_set() and not self._ending() and time.perf_counter() < deadline:
            self._inside.wait(0.05)
        self._guest.wanted = False

    def _ending(self) -> bool:
        with self._changed:
            return all(followed.ended for followed in self._followed)

    def _flush(self, todo: list[_Followed]) -> None:
        for followed in todo:
            ended = followed.ended  # before the snapshot: afterwards nothing is recorded any more
            try:
                self._write(followed)
            except (Refusal, duckdb.Error, OSError, MemoryError) as error:
                if not self._troubled:
                    self._troubled = True
                    self.on_trouble(error.reason if isinstance(error, Refusal) else explain(error, self.store.path))
                return
            if ended:
                with self._changed:
                    if followed in self._followed:
                        self._followed.remove(followed)
        self._troubled = False

    def _write(self, followed: _Followed) -> None:
        snapshot = followed.recorder.snapshot()
        start_ns = time.perf_counter_ns()
        followed.written = self.store.append(followed.run_id, snapshot, followed.written)
        facts = followed.facts()
        if facts != followed.known:
            self.store.update(followed.run_id, facts)
            followed.known = facts
        if not self._guest.inside:  # the moment that was going on meanwhile was disturbed, and says so
            self._gate.disturb(time.perf_counter_ns() - start_ns)
