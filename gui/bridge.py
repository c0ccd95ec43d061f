"""Between the worker and the window: one timer, one notice queue, and the pause in which the charts paint.

While a run is going a tick only asks the gate for a pause. When the worker lets the painter in (its wake writes one byte
to a socket pair that Qt watches), one snapshot is taken, the visible view is updated and painted while the clock stands
still, and the painter leaves. Painting beside the clock cost +16 to +21 % at 30 Hz; so nothing is painted beside it but
a status line twice a second when a moment is too long to wait for.
"""

from __future__ import annotations

import queue
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QCoreApplication, QObject, QSocketNotifier, QTimer, Signal
from PySide6.QtWidgets import QWidget

from core.analysis.series import NEWEST
from core.analysis.summary import summarize
from core.ending import hanging, within
from core.notices import Notice, Status
from gui.background import Answers, Done

if TYPE_CHECKING:
    from core.program import Program
    from core.records.run import Run
    from gui.view_state import ViewState
    from gui.views.base import View

# While a run is going every tick takes the interpreter's lock from the worker, so there is one for each picture and no more.
TICK_MS = {"running": 200, "cancelling": 50, "preparing": 100, "loading": 100}
SOON_MS = 50
IDLE_MS = 500
PAUSE_LIMIT_S = 0.080
REST_FACTOR = 3  # the clock runs at least this many times as long as the last paint took,
REST_NS = 150_000_000  # and this long: the two moments after a pause do not count, so pauses must be rare among moments
SLOW_NS = 500_000_000
NOTICES_PER_TICK = 20
MOST_FLUSHES = 6
MS = 1_000_000
MANY_SPANS = 200_000
"""Layers of so many spans are first told by the newest moments, and by all when the summary comes from beside the window."""


class Bridge(QObject):
    """Holds the program for the window. Everything here happens on the GUI thread; a test may call ``tick`` by hand."""

    notice = Signal(object)  # Notice
    status = Signal(object)  # Status

    def __init__(self, program: Program, state: ViewState, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.program = program
        self.state = state
        self.canvas: QWidget | None = None  # what is painted at once in a pause: the visible view
        self.painted_ns = 0  # all painting so far, in and beside pauses
        self.longest_pause_ns = 0
        self.pauses = 0
        self.views: Callable[[], Sequence[View]] = tuple  # those on show, which are kept up to date
        self._in_trial = False
        self._polls: list[Callable[[], None]] = []
        self._last = Status()
        self._summary: tuple[Run, dict[str, Any]] | None = None
        self._asked_ns: int | None = None
        self._rest_until_ns = 0
        self._slow_ns = 0
        self._pause_ns = 0
        self._background = ThreadPoolExecutor(max_workers=2, thread_name_prefix="tickscope-window")
        self._jobs: list[tuple[Future[Any], Callable[[Future[Any]], None]]] = []
        self._summaries = Answers(self.in_background)

        self._bell_in, self._bell_out = socket.socketpair()
        self._bell_in.setblocking(False)
        self._bell_out.setblocking(False)
        self._notifier = QSocketNotifier(self._bell_in.fileno(), QSocketNotifier.Type.Read, self)
        self._notifier.activated.connect(self._let_in)
        self.painter = program.gate.guest(self._ring, PAUSE_LIMIT_S)
        self._timer = QTimer(self)
        self._timer.setInterval(IDLE_MS)
        self._timer.timeout.connect(self.tick)
        self._timer.start()
        state.run_changed.connect(self._on_run_changed)

    def tick(self) -> None:
        """What the timer does: notices, state changes, finished background work, and asking for a pause."""
        self._drain_notices()
        self._collect_jobs()
        status = self.program.status
        if status.state in ("running", "cancelling"):
            self._ask(status)
        else:
            if status != self._last:
                self.status.emit(status)
            self._poll()
        self._last = status
        self._pace()

    def add_poll(self, poll: Callable[[], None]) -> None:
        """Call ``poll()`` now and then, at most twice a second while a run is going."""
        self._polls.append(poll)

    def painted(self, duration_ns: int) -> None:
        """Told of every painting; what happened beside the clock counts as a disturbance of the moment."""
        self.painted_ns += duration_ns
        self.program.gate.disturb(duration_ns)

    def expect(self) -> None:
        """Something was asked of the worker: look soon."""
        self._timer.setInterval(SOON_MS)

    def in_background(self, work: Callable[[], Any], done: Done) -> None:
        """Do ``work`` off the GUI thread, then ``done(future)`` on it. For what may take longer than a frame."""
        self._jobs.append((self._background.submit(work), done))
        self._timer.setInterval(SOON_MS)

    def refresh(self) -> None:
        """Show the current run in the visible views again, as after a switch of views."""
        run = self.state.current_run
        if run is not None:
            self._show_fast(run)
            self._show_slow(run)
        self._show_trial()

    def close(self, limit_s: float | None = None) -> None:
        """Stop the timer and let go of the worker. The program itself is closed by who made it.

        ``limit_s``: how long to wait for what is done in the background; None: until it is done.
        """
        self._timer.stop()
        self._notifier.setEnabled(False)
        self.program.gate.dismiss(self.painter)
        self._jobs.clear()
        if limit_s is None:
            self._background.shutdown(wait=True, cancel_futures=True)
        elif not within(limit_s, lambda: self._background.shutdown(wait=True, cancel_futures=True)):
            hanging.set()
        self._bell_in.close()
        self._bell_out.close()

    def _drain_notices(self) -> None:
        for _ in range(NOTICES_PER_TICK):
            try:
                notice: Notice = self.program.notices.get_nowait()
            except queue.Empty:
                return
            self._on_notice(notice)
            self.notice.emit(notice)

    def _collect_jobs(self) -> None:
        finished = [job for job in self._jobs if job[0].done()]
        self._jobs = [job for job in self._jobs if not job[0].done()]
        for future, done in finished:
            if not future.cancelled():
                done(future)

    def _pace(self) -> None:
        wanted = TICK_MS.get(self._last.state, SOON_MS if self._jobs or self.program.busy else IDLE_MS)
        if self._timer.interval() != wanted:
            self._timer.setInterval(wanted)

    def _on_notice(self, notice: Notice) -> None:
        """A run's beginning and end come by notice: a short run may be over between two looks at the status."""
        if notice.starts_measuring:
            self._in_trial = notice.job == "ab_test"
            self._summaries.drop()
            self.state.follow()
            self._asked_ns = None
            self._slow_ns = 0
        elif notice.ends_measuring:
            self._in_trial = False
            self._asked_ns = None
            self._show_final()
        elif notice.imported:
            run = self.program.live()
            if run is not None:
                self.state.open_run(run)  # as if it had been chosen in Sessions: with its strip

    def _ask(self, status: Status) -> None:
        """Ask for a pause; where none came for long, say at least how far the run is."""
        now = time.perf_counter_ns()
        if self._asked_ns is None and now >= self._rest_until_ns:
            self._asked_ns = now
            self.painter.ask()
        since = max(self._asked_ns or now, self._slow_ns)
        if status.state != self._last.state or now - since > SLOW_NS:
            self._slow_ns = now
            self.status.emit(status)
            self._poll()
            self.program.gate.disturb(time.perf_counter_ns() - now)

    def _ring(self) -> None:
        """On the worker thread: the pause begins. Only wakes the GUI thread."""
        try:
            self._bell_out.send(b"!")
        except (BlockingIOError, OSError):
            # A full bell rings already; a closed one means that the window is going, and then nobody waits for long.
            return

    def _let_in(self) -> None:
        """The clock stands still: update the visible view, and paint it before the worker goes on."""
        try:
            self._bell_in.recv(64)
        except BlockingIOError:
            return
        if not self.painter.inside:
            self._asked_ns = None  # we came too late, the worker went on
            return
        self._pause_ns = time.perf_counter_ns()
        try:
            self._show_live()
            self._flush()
        finally:
            self._leave()

    def _show_live(self) -> None:
        run = self.program.live()
        if run is None or not self.state.live:
            return
        self.state.show_live(run)
        if self._pause_ns - self._slow_ns <= SLOW_NS:
            self._show_fast(run)
        else:  # in pauses of their own: curves and texts together would take too long for one
            self._slow_ns = self._pause_ns
            self._show_slow(run)
            if self._in_trial:
                self._show_trial()
            self.status.emit(self.program.status)
            self._poll()
            for view in self.views():
                view.show_text(self.program.live_text)

    def _flush(self) -> None:
        """Paint now, again and again until nothing is left to paint.

        Graphics scenes announce what changed through queued calls, and painting itself queues more (an axis that grows wider,
        say); what is left over here would be painted while the clock runs.
        """
        for _ in range(MOST_FLUSHES):
            before_ns = self.painted_ns
            QCoreApplication.sendPostedEvents()
            if self.painted_ns == before_ns:
                return

    def _leave(self) -> None:
        took = time.perf_counter_ns() - self._pause_ns
        if not self.painter.inside:
            self.program.gate.disturb(max(0, took - int(PAUSE_LIMIT_S * 1e9)))
        self.painter.leave()
        self.pauses += 1
        self.longest_pause_ns = max(self.longest_pause_ns, took)
        self._rest_until_ns = time.perf_counter_ns() + max(REST_NS, REST_FACTOR * took)
        self._asked_ns = None

    def _poll(self) -> None:
        for poll in self._polls:
            poll()

    def _show_fast(self, run: Run) -> None:
        for view in self.views():
            view.show_run(run)

    def _show_trial(self) -> None:
        state = self.program.trial
        for view in self.views():
            view.show_trial(state)

    def _show_slow(self, run: Run) -> None:
        """Slow views, with the full summary if it is known for this very run, else with one without intervals."""
        known = self._summary
        summary = known[1] if known is not None and known[0] is run else summarize(run, intervals=False, newest=_newest(run))
        for view in self.views():
            view.show_slow(run, summary)

    def _show_final(self) -> None:
        run = self.program.live()
        if run is not None and self.state.live:
            self.state.show_live(run)
            self.refresh()
            self._summarize_fully(run)

    def _on_run_changed(self, run: Run | None) -> None:
        self._summaries.drop()
        if run is None:
            run = self.program.live()
            self.state.show_live(run)
        if run is not None:
            self.refresh()
            if run.facts.status != "running":
                self._summarize_fully(run)

    def _summarize_fully(self, run: Run) -> None:
        """Intervals take their time: computed beside the GUI thread, dropped once another run is on show."""

        def done(future: Future[dict[str, Any]]) -> None:
            self._summary = (run, future.result())
            self._show_slow(run)

        self._summaries.ask(lambda: summarize(run, intervals=True), done)


def _newest(run: Run) -> int | None:
    """How many traced moments the layers are told by: all, unless that would take too long for a pause or a click."""
    large = run.facts.status == "running" or len(run.trace.spans["moment"]) > MANY_SPANS
    return NEWEST if large else None
