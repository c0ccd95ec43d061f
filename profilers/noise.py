"""Noise: what came between the run and the processors in each moment, and who it was."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from profilers.competitors import Competition, Scan, busy_now, of_a_core, scan
from profilers.processors import Processors, Usage, usable_processors
from profilers.trace import NOT_MEASURED, Recorder

if sys.platform != "win32":
    import resource

__all__ = ["INSTRUMENT", "Noise", "NoiseProbe", "busy_now", "perturbed"]

PRESSURE = Path("/proc/pressure/cpu")

# -- when a moment counts as perturbed ---------------------------------------------------------------------------------------
# Measured with moments of 25 ms in two threads on 2 cores: those in which something waited for up to a tenth of the time were
# as fast as those without (it is mostly our own sampler that waits for a core), from 15 % on they took 1.3 to 5 times as long,
# with 5 switches and more. Beside one process that spins, every moment was beyond these, and took up to 40 times as long,
# because OpenMP's threads spin in their barrier while the last of them waits for a core.
SWITCHES_FREE = 4
SWITCHES_PER_S = 200
STALLED_SHARE = 0.10  # of the moment
STEAL_SHARE = 0.02  # of all processors
OTHERS_SHARE = 0.05  # of all processors: on a large machine one busy core in the distance is no hindrance, ...
OTHERS_CORES = 0.10  # ... on a small one this much of a core is less than the account can tell
CLOCK_DROP = 0.10  # below the median of the moments (or seconds) before
CLOCK_HISTORY = 64
CLOCK_LEAST = 8

# -- how the slow accounts are read ------------------------------------------------------------------------------------------
WINDOW_NS = 250_000_000  # the kernel shows processor time in steps of 10 ms, so a moment by itself tells nothing
SPACING_NS = 50_000_000
COST_SHARE = 0.002  # where reading is slow (many processors), it is read as seldom as this needs
FRESH_NS = 1_000_000

COMPETING_SHARE = 0.10


def perturbed(columns: Mapping[str, float], duration_ns: int) -> str | None:
    """Why a moment was disturbed, as a clause, or None. A drop of the clock is told by ``NoiseProbe.perturbed`` only.

    Args:
        columns: the moment's; what is absent or -1 does not count.
        duration_ns: the moment's length.
    """
    length = max(1, duration_ns)
    processors = usable_processors()
    others = _share(columns, "others_ns", length)
    if others > max(OTHERS_CORES, OTHERS_SHARE * processors):
        return f"other processes took {of_a_core(others)}"
    steal = _share(columns, "steal_ns", length)
    if steal > STEAL_SHARE * processors:
        return f"the hypervisor took {of_a_core(steal)} away"
    stalled = _share(columns, "stalled_ns", length)
    if stalled > STALLED_SHARE:
        return f"something waited for a processor {stalled * 100:.0f} % of the time"
    switches = columns.get("switches", NOT_MEASURED)
    if switches > max(SWITCHES_FREE, SWITCHES_PER_S * length / 1e9):
        return f"the system took a processor away {switches:.0f} times"
    return None


def _share(columns: Mapping[str, float], name: str, length_ns: int) -> float:
    return max(0.0, columns.get(name, NOT_MEASURED) / length_ns)


class Clock:
    """Tells when a clock frequency falls below what it was lately (a median, so that settling after a boost is not a fall)."""

    def __init__(self) -> None:
        self._known: deque[float] = deque(maxlen=CLOCK_HISTORY)

    def fallen(self, hertz: float) -> str | None:
        """Note one reading; why it is low, as a clause, or None."""
        usual = statistics.median(self._known) if len(self._known) >= CLOCK_LEAST else 0.0
        self._known.append(hertz)
        if hertz >= usual * (1 - CLOCK_DROP):
            return None
        return f"the processor's clock fell from {usual / 1e9:.1f} to {hertz / 1e9:.1f} GHz"


class NoiseProbe:
    """Reads around every moment what got in its way, with the clock stopped.

    Begin and columns cost 60 µs together after a moment that swept the caches (10 µs warm), and 110 µs more every 50 ms.

    ``switches`` and ``stalled_ns`` are of the moment itself, from its begin to its bookkeeping. ``others_ns`` and ``steal_ns``
    are estimates: the share of the last quarter of a second up to the moment's end (or of the moment, where that is longer),
    times the moment's length. They are left out until the probe has been open for so long.
    """

    def __init__(self, noise: Noise | None = None) -> None:
        self._noise = noise
        self._missing: dict[str, str] = {}
        self._processors = Processors()
        self._usages: deque[Usage] = deque([self._processors.read()])
        self._first = self._usages[0]
        self._spacing_ns = SPACING_NS
        self._clocks: dict[int, Clock] = {}
        self._pressure = self._open_pressure()
        if self._first.stolen_ns is None:
            self._missing["steal"] = "Only Linux tells what the hypervisor took."
        if sys.platform == "win32":
            self._missing["switches"] = "Windows does not tell which context switches were involuntary."
        self._begun_ns = self._ended_ns = time.perf_counter_ns()
        self._read_ns = 0
        self._switches = self._switches_before = self._stalled_us = self._stalled_before_us = 0

    def begin(self) -> None:
        now_ns = time.perf_counter_ns()
        if now_ns - self._read_ns > FRESH_NS:  # after a rest; else what was read at the last moment's end will do
            self._read()
        if now_ns - self._usages[-1].time_ns > WINDOW_NS:
            self._note_usage()
        self._switches_before, self._stalled_before_us = self._switches, self._stalled_us
        self._begun_ns = time.perf_counter_ns()

    def end(self) -> None:
        """Only the time is taken; the rest can wait for the stopped clock."""
        self._ended_ns = time.perf_counter_ns()

    def columns(self) -> dict[str, float]:
        self._read()
        self._note_usage()
        found: dict[str, float] = {}
        if sys.platform != "win32":
            found["switches"] = self._switches - self._switches_before
        if self._pressure is not None:
            found["stalled_ns"] = (self._stalled_us - self._stalled_before_us) * 1000
        length_ns = max(0, self._ended_ns - self._begun_ns)
        taken = self._processors.taken(self._usages[0], self._usages[-1])
        if taken.elapsed_ns >= WINDOW_NS:
            found["others_ns"] = taken.others_ns * length_ns // taken.elapsed_ns
            if taken.stolen_ns is not None:
                found["steal_ns"] = taken.stolen_ns * length_ns // taken.elapsed_ns
        return found

    def perturbed(self, columns: Mapping[str, float], duration_ns: int) -> str | None:
        """As the function ``perturbed``, and whether the processor's clock fell, by cycles where ``columns`` has them (of the
        cycle counter's probe), else by the frequency that the sampler reads once a second.
        """
        return perturbed(columns, duration_ns) or self._clock_fell(columns, duration_ns)

    def facts(self) -> dict[str, Any]:
        taken = self._processors.taken(self._first, self._usages[-1])
        whole = max(1, taken.elapsed_ns * self._processors.count)
        return {
            "source": "kernel accounts" if sys.platform == "linux" else "psutil",
            "processors": self._processors.count,
            "others_share": taken.others_ns / whole,
            "steal_share": taken.stolen_ns / whole if taken.stolen_ns is not None else None,
            "window_s": WINDOW_NS / 1e9,
            "missing": dict(self._missing),
        }

    def close(self) -> None:
        self._processors.close()
        if self._pressure is not None:
            os.close(self._pressure)
            self._pressure = None

    def _note_usage(self) -> None:
        """Read the accounts unless that was just done, and forget what is older than the window needs."""
        if time.perf_counter_ns() - self._usages[-1].time_ns < self._spacing_ns:
            return
        usage = self._processors.read()
        self._spacing_ns = max(SPACING_NS, int((time.perf_counter_ns() - usage.time_ns) / COST_SHARE))
        self._usages.append(usage)
        while len(self._usages) > 2 and usage.time_ns - self._usages[1].time_ns >= WINDOW_NS:
            self._usages.popleft()

    def _clock_fell(self, columns: Mapping[str, float], duration_ns: int) -> str | None:
        cycles, cpu_ns = columns.get("cycles", NOT_MEASURED), columns.get("cpu_ns", NOT_MEASURED)
        if cycles <= 0 or cpu_ns <= 0:
            return self._noise.clock_fell if self._noise is not None else None
        # Cycles are those in user space and the time is not, so moments are compared with others of about their length: a
        # prefill spends more of its time in the kernel than a decoded token.
        clock = self._clocks.setdefault(duration_ns.bit_length(), Clock())
        return clock.fallen(cycles / cpu_ns * 1e9)

    def _open_pressure(self) -> int | None:
        try:
            file = os.open(PRESSURE, os.O_RDONLY)
        except OSError:
            self._missing["pressure"] = "This system keeps no account of tasks that wait for a processor."
            return None
        try:
            os.pread(file, 200, 0)
        except OSError:  # the kernel has it built in but switched off
            os.close(file)
            self._missing["pressure"] = "The kernel's pressure account is switched off; boot with psi=1 to have it."
            return None
        return file

    def _read(self) -> None:
        """How often a thread of this process was taken off a processor against its will, and the pressure account so far."""
        if sys.platform != "win32":
            self._switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        if self._pressure is not None:
            text = os.pread(self._pressure, 200, 0)
            self._stalled_us = int(text.partition(b"total=")[2].split(b"\n", 1)[0])
        self._read_ns = time.perf_counter_ns()


class _Reading:
    """Once a second: what others take, at which clock the fastest core runs, and, when others take much, who they are."""

    def __init__(self, recorder: Recorder, noise: Noise) -> None:
        self._recorder = recorder
        self._noise = noise
        self._processors = Processors()
        self._track = recorder.track("others", "percent")
        self._last = self._processors.read()
        self._scan: tuple[Scan, int] | None = None
        self._competition = Competition()
        self._clock = Clock()
        self._low = 0

    def sample(self) -> None:
        now = self._processors.read()
        taken = self._processors.taken(self._last, now)
        if taken.elapsed_ns < WINDOW_NS:
            return
        self._last = now
        share = taken.others_ns / taken.elapsed_ns
        self._recorder.sample(self._track, share * 100)
        self._watch_clock()
        if share > COMPETING_SHARE:
            found = scan()
            if self._scan is not None:
                self._competition.add(self._scan[0], found, (now.time_ns - self._scan[1]) / 1e9)
            self._scan = (found, now.time_ns)
        else:
            self._scan = None

    def resume(self) -> None:
        """After a rest: what was taken meanwhile is not about this run."""
        self._last = self._processors.read()
        self._scan = None

    def facts(self) -> dict[str, Any]:
        return {"competitors": [f"{name} ({of_a_core(share)})" for name, share in self._competition.shares()]}

    def close(self) -> None:
        self._noise.clock_fell = None
        self._processors.close()

    def _watch_clock(self) -> None:
        """Twice in a row low is a fall; once may be a core that was caught idle."""
        cores = psutil.cpu_freq(percpu=True) if hasattr(psutil, "cpu_freq") else []
        fastest = max((core.current for core in cores), default=0.0) * 1e6
        why = self._clock.fallen(fastest) if fastest > 0 else None
        self._low = self._low + 1 if why else 0
        self._noise.clock_fell = why if self._low >= 2 else None


class Noise:
    """Watches who else uses the processors. ``clock_fell``: why the sampled clock is low at present, or None."""

    id = "noise"
    title = "Noise"
    summary = "context switches, stolen and waiting time, other processes; marks disturbed moments"
    period_s: float | None = 1.0
    by_default = True

    def __init__(self) -> None:
        self.clock_fell: str | None = None

    def check(self) -> str | None:
        """Something of it works everywhere; the probe's facts tell what does not."""
        return None

    def open(self, recorder: Recorder) -> _Reading:
        """Begin to sample the track ``others`` (percent of one core) and to look for competitors."""
        return _Reading(recorder, self)

    def open_probe(self) -> NoiseProbe:
        """A probe for the columns ``switches``, ``steal_ns``, ``others_ns`` and ``stalled_ns``."""
        return NoiseProbe(self)


INSTRUMENT = Noise()
