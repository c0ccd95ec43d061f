"""Competitors: which other processes are computing, found by scans of all processes, which cost milliseconds."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field

import psutil

from profilers.processors import Processors, usable_processors

BUSY_LOOK_S = 0.3
BUSY_SHARE = 0.25
"""Before a run: more of a core than this in the hands of others is too much to measure."""

NAMED_SHARE = 0.05
MOST_NAMED = 5

Scan = dict[int, tuple[str, float]]
"""By process id: name, and processor seconds so far."""


def scan() -> Scan:
    """All processes but this one (about 0.1 ms each). Those whose times the system keeps to itself are left out."""
    found: Scan = {}
    for process in psutil.process_iter(["name", "cpu_times"]):
        times = process.info["cpu_times"]
        if times is not None and process.pid not in (0, os.getpid()):  # 0 is the idle process of some systems
            found[process.pid] = (process.info["name"] or f"process {process.pid}", times.user + times.system)
    return found


@dataclass
class Competition:
    """Who computed, summed over the times between scans."""

    elapsed_s: float = 0.0
    taken_s: dict[str, float] = field(default_factory=dict)
    pids: dict[str, set[int]] = field(default_factory=dict)

    def add(self, before: Scan, after: Scan, elapsed_s: float) -> None:
        """Count what happened between two scans; a process that was not there before took all its time since."""
        self.elapsed_s += elapsed_s
        for pid, (name, seconds) in after.items():
            earlier = before[pid][1] if pid in before else 0.0
            if seconds > earlier:
                self.taken_s[name] = self.taken_s.get(name, 0.0) + seconds - earlier
                self.pids.setdefault(name, set()).add(pid)

    def shares(self) -> list[tuple[str, float]]:
        """Names with their share of a core (1.0 is a whole one), busiest first; only those worth naming."""
        if self.elapsed_s <= 0:
            return []
        busiest = sorted(self.taken_s, key=self.taken_s.__getitem__, reverse=True)[:MOST_NAMED]
        found = [(name, self.taken_s[name] / self.elapsed_s) for name in busiest]
        return [(name, share) for name, share in found if share >= NAMED_SHARE]


def of_a_core(share: float) -> str:
    """A share in words: "61 % of a core", "1.8 cores"."""
    return f"{share * 100:.0f} % of a core" if share < 1 else f"{share:.1f} cores"


def busy_now(look_s: float = BUSY_LOOK_S) -> str | None:
    """Whether the machine is too busy to measure: looks ``look_s`` seconds, and as long again to name who it is.

    Returns:
        A sentence that names the process in the way when others take more than a quarter of a core, else None.
    """
    wait = threading.Event().wait
    processors = Processors()
    try:
        first = processors.read()
        wait(look_s)
        taken = processors.taken(first, processors.read())
        share = taken.others_ns / max(1, taken.elapsed_ns)
        if share <= BUSY_SHARE:
            return None
        begun, before = time.perf_counter_ns(), scan()  # from one's start to the other's, as each process is looked at
        wait(look_s)
        ended, after = time.perf_counter_ns(), scan()
    finally:
        processors.close()
    competition = Competition()
    competition.add(before, after, (ended - begun) / 1e9)
    shares = competition.shares()
    if not shares:
        return f"The machine is busy: other processes take {of_a_core(share)}. Wait for them to end, then measure."
    name, share = shares[0][0], min(shares[0][1], float(usable_processors()))  # by ticks of 10 ms, it may come out as more
    pids = competition.pids[name]
    if len(pids) == 1:
        who, wait_for = f"{name} (process {min(pids)}) takes", "it"
    else:
        who, wait_for = f"{name} ({len(pids)} processes) take", "them"
    return f"The machine is busy: {who} {of_a_core(share)}. Wait for {wait_for} to end, or end {wait_for}, then measure."
