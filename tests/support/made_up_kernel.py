"""A kernel with processor counters that count what a test says its threads did; not verified on hardware."""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass, field

from profilers.perf_events import EVENTS, HARDWARE, Event, Kernel

WORKER, POOL, PYTHON = 100, 101, 200
HARDWARE_QUANTITIES = ("cycles", "instructions", "cache_misses")


@dataclass
class Work:
    """What a thread has done so far, by quantity, and how long its counters were on the processor (all the time: as cpu_ns)."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys([event.quantity for event in EVENTS], 0))
    running: int = 0


class MadeUpKernel(Kernel):
    """A kernel whose threads work when told to. ``refused`` maps a quantity to an error number; ``gone`` are ending threads."""

    def __init__(self, *pool: int, refused: dict[str, int] | None = None, room: int = 4, share: float = 1.0) -> None:
        self.pool = {WORKER, *pool}
        self.python = {WORKER, PYTHON}
        self.refused = refused or {}
        self.gone: set[int] = set()
        self.room, self.share = room, share
        self.broken: set[str] = set()  # counters that open and count nothing
        self.work: dict[int, Work] = {}
        self.open: dict[int, tuple[Event, int, int]] = {}  # by descriptor: event, thread, leader
        self.reads = 0
        self.fails: set[int] = set()  # threads whose counters cannot be read
        self.next = 10

    def trouble(self) -> str | None:
        return None

    def paranoid(self) -> str:
        return "4"

    def threads(self) -> frozenset[int]:
        return frozenset(self.pool | {PYTHON})

    def python_threads(self) -> frozenset[int]:
        return frozenset(self.python)

    def own_thread(self) -> int:
        return WORKER

    def open_event(self, event: Event, thread: int, leader: int) -> int:
        if thread in self.gone:
            raise OSError(errno.ESRCH, "No such process")
        if event.quantity in self.refused:
            number = self.refused[event.quantity]
            raise OSError(number, os.strerror(number))
        self.next += 1
        self.open[self.next] = (event, thread, self.next if leader < 0 else leader)
        return self.next

    def read(self, descriptor: int, size: int) -> bytes:  # type: ignore[override]
        self.reads += 1
        leader = self.open[descriptor][2]
        assert leader == descriptor, "only a leader gives its group"
        thread = self.open[descriptor][1]
        if thread in self.fails:
            raise OSError(errno.EIO, "gone")
        group = [event for event, _, its in self.open.values() if its == leader]
        fits = sum(event.type == HARDWARE for event in group) <= self.room
        if self.reads < 1000 and thread == WORKER and not self.work.get(thread, Work()).counts["cpu_ns"]:
            self.does(thread, 2_000_000, 6_000_000, 9_000_000)  # the trial itself costs time
        work = self.work.setdefault(thread, Work())
        counts = [0 if event.quantity in self.broken or not fits else work.counts[event.quantity] for event in group]
        words = [len(group), work.counts["cpu_ns"], work.running if fits else 0, *counts]
        raw = struct.pack(f"={len(words)}Q", *words)
        assert len(raw) <= size
        if not fits:
            self.does(thread, 5_000_000)
        return raw

    def close(self, descriptor: int) -> None:  # type: ignore[override]
        del self.open[descriptor]

    def does(self, thread: int, cpu_ns: int, cycles: int = 0, instructions: int = 0, misses: int = 0) -> None:
        """The thread computes; its hardware counters see ``share`` of it."""
        work = self.work.setdefault(thread, Work())
        work.counts["cpu_ns"] += cpu_ns
        work.running += int(cpu_ns * self.share)
        for name, value in zip(HARDWARE_QUANTITIES, (cycles, instructions, misses), strict=True):
            work.counts[name] += int(value * self.share)
