"""Processor counters: cycles, instructions, cache misses and processor time of every moment, and of blocks of layers within.

The kernel counts for each thread by itself, so one group of counters is opened for every thread that computes: the calling
(worker) thread, and all that Python does not know, such as torch's OpenMP pool. Cycles, instructions and cache misses are those
of user space; ``cpu_ns`` is all time on a processor, the kernel's included. Threads that wait by spinning count as computing:
that is what they do to the processor. Not verified on hardware: tested against a made-up kernel at the system call.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from profilers.base import Reading
from profilers.perf_events import EVENTS, HARDWARE, Event, Kernel, reason
from profilers.trace import NOT_MEASURED, Array, Recorder

Raw = list[bytes]
"""What one ``read`` gives: the kernel's bytes for each busy thread."""

MOST_INSTRUCTIONS_PER_CYCLE = 8
"""No processor does more; a counter that says so is broken (seen in virtual machines)."""

_TIMES = struct.Struct("=8x2q")
_HEAD = 3  # a group's bytes begin with: how many events, ns enabled, ns running
_TRIAL_NS = 20_000_000  # multiplexing takes turns every 1 to 4 ms, so a counter that is to count at all has by then
_LOST_SHARE = 0.01  # of the time in which some thread did not count at all; more, and the rest says too little
_BUSY_SHARE = 0.001  # of the processor time of a moment: a thread below it does not compute
_IDLE_MOMENTS = 4  # so many in a row, and a thread is read at moments' ends only

_NO_ROOM = "The processor's counters are taken by someone else, such as the kernel's watchdog or another profiler; stop it."
_COUNTS_NOTHING = "The counter opens but counts nothing, as in some virtual machines; run on the machine itself."


@dataclass
class _Group:
    """The counters of one thread; the first descriptor is the leader, whose reading gives all. ``idle``: moments without work
    in a row.
    """

    thread: int
    descriptors: list[int]
    idle: int = 0


@dataclass
class _Readings:
    """The ends of the moment under way: of the busy threads, and of the others (by position in the list of quiet ones)."""

    start: Raw = field(default_factory=list)
    end: Raw = field(default_factory=list)
    quiet: Raw = field(default_factory=list)


class CycleCounter:
    """Counts the work of all computing threads. A ``MomentProbe``, and ``read`` for whoever looks inside a moment.

    Everything is for the worker thread. A thread that has not computed for a few moments is quiet: ``read``, which costs a
    system call a thread, leaves it out until it computes again (a graphical process has dozens of threads that only wait).

    Args:
        kernel: the system, or a made-up one.
    """

    def __init__(self, kernel: Kernel | None = None) -> None:
        self._kernel = kernel or Kernel()
        self._missing: dict[str, str] = {}
        self._seen: frozenset[int] = frozenset()
        self._groups: list[_Group] = []
        self._quiet: list[_Group] = []
        self._busy: list[int] = []  # leaders' descriptors
        self._threads = (0, 0)  # all that are counted, and those that ``read`` reads
        self._moment: _Readings | None = None
        self._read = self._kernel.read
        self._events: tuple[Event, ...] = ()
        trouble = self._kernel.trouble()
        if trouble is None:
            self._events = self._usable()
        else:
            self._missing = {event.quantity: trouble for event in EVENTS}
        self._bytes = 8 * (_HEAD + len(self._events))

    @property
    def quantities(self) -> tuple[str, ...]:
        """What is counted, by column name."""
        return tuple(event.quantity for event in self._events)

    # -- a moment ---------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Look for new threads, and read."""
        if not self._events:
            return
        if self._computing() != self._seen:
            self.refresh()
        self._moment = _Readings(quiet=self._read_all(self._quiet))
        self._moment.start = self.read()

    def end(self) -> None:
        """Read. A system call for each busy thread: about 1 µs."""
        if self._moment is not None:
            self._moment.end = self.read()

    def columns(self) -> dict[str, float]:
        """The moment's counts, and ``counted_share`` where the hardware counts. Empty where the threads were not the same
        throughout: what a new one did before it was found nobody knows.
        """
        moment, self._moment = self._moment, None
        if moment is None or self._computing() != self._seen:
            return {}
        start, end = self._with_woken(moment)
        found = self.between([start], [end])
        measured: dict[str, float] = {name: int(values[0]) for name, values in found.items() if values[0] != NOT_MEASURED}
        if any(event.type == HARDWARE and event.quantity in measured for event in self._events):
            enabled, running = map(sum, zip(*self._times(start, end), strict=True))
            measured["counted_share"] = running / enabled if enabled else 1.0
        return measured

    def facts(self) -> dict[str, Any]:
        """What is counted (names as in ``perf list``), in how many threads (also after ``close``), and what is not, and why."""
        return {
            "events": [event.title for event in self._events],
            "threads": self._threads[0],
            "busy_threads": self._threads[1],
            "missing": dict(self._missing),
        }

    def close(self) -> None:
        """Close all counters. What is read afterwards is empty."""
        for group in self._groups:
            self._close_group(group.descriptors)
        self._groups, self._quiet, self._busy, self._seen = [], [], [], frozenset()

    # -- inside a moment --------------------------------------------------------------------------------------------------

    def read(self) -> Raw:
        """The counters of the busy threads as they stand, for ``between``; empty where the kernel did not give them.

        Never raises: it is called from inside a model's forward pass.
        """
        read, size = self._read, self._bytes
        try:
            return [read(descriptor, size) for descriptor in self._busy]
        except OSError:
            return []

    def between(self, begins: Sequence[Raw], ends: Sequence[Raw]) -> dict[str, Array]:
        """What was counted from each of ``begins`` to its end, summed over threads and scaled for multiplexing.

        Args:
            begins: readings of one moment.
            ends: as many, later ones.

        Returns:
            int64 arrays by quantity (see ``quantities``), as long as ``begins``; -1 where not measured: a reading failed, a
            count went backwards, a thread's counters were not on the processor, or there were more than 8 instructions a cycle.
        """
        change, usable = self._changes(begins, ends)
        enabled, running, counts = change[:, :, 1], change[:, :, 2], change[:, :, _HEAD:]
        usable &= (enabled >= 0).all(axis=1) & (running >= 0).all(axis=1)
        lost = np.where(running > 0, 0, enabled).sum(axis=1)
        usable &= lost <= _LOST_SHARE * enabled.sum(axis=1)
        factor = np.divide(enabled, running, out=np.zeros(enabled.shape), where=running > 0)
        sums = (counts * factor[:, :, None]).sum(axis=1)
        measured = usable[:, None] & (counts >= 0).all(axis=1)
        hardware = np.array([event.type == HARDWARE for event in self._events], bool)
        names = self.quantities
        if "cycles" in names and "instructions" in names:
            cycles, instructions = sums[:, names.index("cycles")], sums[:, names.index("instructions")]
            measured &= ~(hardware & (instructions > MOST_INSTRUCTIONS_PER_CYCLE * cycles)[:, None])
        whole = np.where(measured, np.rint(sums), NOT_MEASURED).astype(np.int64)
        return {name: whole[:, number] for number, name in enumerate(names)}

    def decode(self, raws: Sequence[Raw]) -> dict[str, Array]:
        """Readings of one moment as counts since the first of them, by quantity (float64, NaN where not measured)."""
        found = self.between([raws[0]] * len(raws), raws) if raws else {}
        return {name: np.where(values == NOT_MEASURED, np.nan, values) for name, values in found.items()}

    # -- threads ----------------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Open counters anew for the threads that there are now; a thread that is just ending is left out."""
        present = self._computing()
        self.close()
        gone = set()
        for thread in sorted(present):
            try:
                self._groups.append(_Group(thread, self._open_group(thread)))
            except OSError as error:
                if error.errno == errno.ESRCH:
                    gone.add(thread)
                    continue
                self._give_up(reason(error, self._kernel))
                return
        self._seen = present - gone
        self._arrange()

    def _computing(self) -> frozenset[int]:
        return (self._kernel.threads() - self._kernel.python_threads()) | {self._kernel.own_thread()}

    def _arrange(self) -> None:
        self._quiet = [group for group in self._groups if group.idle >= _IDLE_MOMENTS]
        self._busy = [group.descriptors[0] for group in self._groups if group.idle < _IDLE_MOMENTS]
        self._threads = (len(self._groups), len(self._busy))

    def _with_woken(self, moment: _Readings) -> tuple[Raw, Raw]:
        """Both ends of the moment, with those quiet threads that computed after all; they are busy from now on."""
        busy = [group for group in self._groups if group.idle < _IDLE_MOMENTS]
        quiet_end = self._read_all(self._quiet)
        worked = [enabled for enabled, _ in self._times(moment.start, moment.end)]
        least = _BUSY_SHARE * sum(worked)
        woken = [number for number, (enabled, _) in enumerate(self._times(moment.quiet, quiet_end)) if enabled > least]
        start = moment.start + [moment.quiet[number] for number in woken]
        end = moment.end + [quiet_end[number] for number in woken]
        before = len(self._busy)
        for number in woken:
            self._quiet[number].idle = 0
        for group, ns in zip(busy, worked, strict=False):  # none where a reading failed
            group.idle = 0 if ns > least or group.thread == self._kernel.own_thread() else group.idle + 1
        if woken or sum(group.idle < _IDLE_MOMENTS for group in busy) != before:
            self._arrange()
        return start, end

    def _read_all(self, groups: Sequence[_Group]) -> Raw:
        try:
            return [self._read(group.descriptors[0], self._bytes) for group in groups]
        except OSError:
            return []

    # -- bytes ------------------------------------------------------------------------------------------------------------

    def _changes(self, begins: Sequence[Raw], ends: Sequence[Raw]) -> tuple[Array, Array]:
        """The differences [rows, threads, words], and which rows are whole."""
        firsts, lasts = [b"".join(raw) for raw in begins], [b"".join(raw) for raw in ends]
        threads = max((len(raw) for raw in (*begins, *ends)), default=0)
        size = threads * self._bytes
        whole = np.array([size > 0 and len(a) == len(b) == size for a, b in zip(firsts, lasts, strict=True)], bool)
        nothing = bytes(size)
        shape = (len(firsts), threads, self._bytes // 8)
        words = [
            np.frombuffer(b"".join(raw if good else nothing for raw, good in zip(raws, whole, strict=True)), np.int64)
            for raws in (firsts, lasts)
        ]
        return words[1].reshape(shape) - words[0].reshape(shape), whole

    def _times(self, start: Raw, end: Raw) -> list[tuple[int, int]]:
        """Ns that each thread was on a processor and that its counters were; empty where a reading failed."""
        if len(start) != len(end) or any(len(raw) != self._bytes for raw in (*start, *end)):
            return []
        pairs = zip(map(_TIMES.unpack_from, start), map(_TIMES.unpack_from, end), strict=True)
        return [(after[0] - before[0], after[1] - before[1]) for before, after in pairs]

    # -- opening ----------------------------------------------------------------------------------------------------------

    def _usable(self) -> tuple[Event, ...]:
        """The events that open for the calling thread and really count together; the others go to ``missing``."""
        wanted = list(EVENTS)
        while wanted:
            descriptors, opened = self._open_those_that_can(wanted)
            refused = self._try_out(descriptors, opened)
            self._close_group(descriptors)
            wanted = opened
            if not refused:
                break
            for event, why in refused.items():
                self._missing[event.quantity] = why
                wanted.remove(event)
        return tuple(wanted)

    def _open_those_that_can(self, wanted: Sequence[Event]) -> tuple[list[int], list[Event]]:
        descriptors: list[int] = []
        opened: list[Event] = []
        for event in wanted:
            try:
                leader = descriptors[0] if descriptors else -1
                descriptors.append(self._kernel.open_event(event, self._kernel.own_thread(), leader))
                opened.append(event)
            except OSError as error:
                self._missing[event.quantity] = reason(error, self._kernel)
        return descriptors, opened

    def _try_out(self, descriptors: Sequence[int], events: Sequence[Event]) -> dict[Event, str]:
        """The events that have to go: one where the group finds no room on the processor, and those that stay at nothing."""
        hardware = [event for event in events if event.type == HARDWARE]
        if not hardware:
            return {}
        counts: list[int] = []
        enabled = running = 0
        while running == 0 and enabled < _TRIAL_NS:
            words = np.frombuffer(self._read(descriptors[0], 8 * (_HEAD + len(events))), np.int64).tolist()
            if len(words) < _HEAD + len(events):
                break
            enabled, running, counts = words[1], words[2], words[_HEAD:]
        if running == 0:
            return {hardware[-1]: _NO_ROOM}
        must_count = ("cycles", "instructions")  # this very loop has used some
        return {
            event: _COUNTS_NOTHING
            for event, value in zip(events, counts, strict=True)
            if value == 0 and event.quantity in must_count
        }

    def _open_group(self, thread: int) -> list[int]:
        descriptors: list[int] = []
        try:
            for event in self._events:
                descriptors.append(self._kernel.open_event(event, thread, descriptors[0] if descriptors else -1))
        except OSError:
            self._close_group(descriptors)
            raise
        return descriptors

    def _close_group(self, descriptors: Sequence[int]) -> None:
        for descriptor in reversed(descriptors):
            self._kernel.close(descriptor)

    def _give_up(self, why: str) -> None:
        self.close()
        self._missing.update({event.quantity: why for event in self._events})
        self._events = ()
        self._bytes = 8 * _HEAD


class CycleCounterInstrument:
    """How the counters appear among the instruments; the engine reads them at moments' ends."""

    id = "cycles"
    title = "Processor counters"
    summary = "cycles, instructions, cache misses and processor time of every moment and block"
    period_s: float | None = None
    by_default = True

    def check(self) -> str | None:
        """Why nothing at all can be counted here; what of it cannot is told in ``facts`` of the probe."""
        counter = CycleCounter()
        return None if counter.quantities else next(iter(counter.facts()["missing"].values()))

    def open_probe(self) -> CycleCounter:
        """Open the counters, on the worker thread."""
        return CycleCounter()

    def open(self, recorder: Recorder) -> Reading:
        """Never: the engine reads the counters itself."""
        raise AssertionError("the processor counters are not sampled")


INSTRUMENT = CycleCounterInstrument()
