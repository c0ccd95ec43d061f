"""Host memory: the resident set of this process over time, and its true peaks where the kernel keeps one."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import psutil

from profilers.trace import Recorder

FRESH_NS = 1_000_000
"""A mark started anew less than this ago need not be started again: one moment's end is the next one's beginning."""


def resident_bytes() -> int:
    """Resident set size of this process, in bytes (psutil)."""
    return int(psutil.Process().memory_info().rss)


class HighWater:
    """The kernel's high-water mark of this process's resident memory (``VmHWM``), shared by everyone who wants a peak.

    There is one mark per process, and starting a new peak wipes it for all (``clear_refs``). So each lap reads the mark, tells
    all who are watching, and only then starts it anew. A lap costs 80 µs after a moment that swept the caches (9 µs warm),
    whatever the size of the process. (``ru_maxrss`` would be cheaper, but some kernels let it be off by megabytes.)
    """

    def __init__(self, process_dir: Path = Path("/proc/self")) -> None:
        self.exact = sys.platform == "linux"
        self._process_dir = process_dir
        self._files: tuple[int, int] | None = None  # opened when first needed, and then for good
        self._watching: weakref.WeakSet[Peak] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._lap_ns = 0

    def lap(self) -> None:
        """Tell everyone who watches the mark so far, and start it anew. Nothing where the system keeps no mark."""
        with self._lock:
            if self.exact:
                self._lap()

    def watch(self, peak: Peak) -> None:
        """From here on ``peak`` is told; a lap that ended just now will do as the start."""
        with self._lock:
            if self.exact and time.perf_counter_ns() - self._lap_ns > FRESH_NS:
                self._lap()
            self._watching.add(peak)

    def _lap(self) -> None:
        try:
            status, clear = self._files = self._files or (
                os.open(self._process_dir / "status", os.O_RDONLY),
                os.open(self._process_dir / "clear_refs", os.O_WRONLY),
            )
            mark = int(os.pread(status, 8192, 0).partition(b"VmHWM:")[2].split(maxsplit=1)[0]) * 1024
            os.pwrite(clear, b"5", 0)
        except OSError:  # a sandbox that forbids it: from now on the largest sample has to do
            self.exact = False
            return
        for peak in self._watching:
            peak.highest = max(peak.highest, mark)
        self._lap_ns = time.perf_counter_ns()


class Peak:
    """The highest mark, in bytes, since it began to watch."""

    def __init__(self) -> None:
        self.highest = 0


_OWN = HighWater()


class PeakMemory:
    """The peak resident set since ``reset``.

    On Linux it is the kernel's own high-water mark, which no sampling can miss; elsewhere the largest sample, and ``exact`` is
    False. Several may be at work at once, beside the probe of moments.
    """

    def __init__(self, high_water: HighWater = _OWN) -> None:
        self._high_water = high_water
        self._peak = Peak()
        self._begun = False

    @property
    def exact(self) -> bool:
        """Whether the kernel keeps the peak."""
        return self._begun and self._high_water.exact

    def reset(self) -> None:
        """Start a new peak."""
        self._peak = Peak()
        self._high_water.watch(self._peak)
        self._begun = True

    def bytes(self, sampled_peak_bytes: int | None) -> int | None:
        """The peak since ``reset``; the larger of sample and present value where the kernel keeps none; None: no sample."""
        if self.exact:
            self._high_water.lap()
            return self._peak.highest
        return max(sampled_peak_bytes, resident_bytes()) if sampled_peak_bytes is not None else None


class PeakProbe:
    """The peak resident memory of every moment (``peak_bytes``), exact. Off Linux the column is left out."""

    def __init__(self, high_water: HighWater = _OWN) -> None:
        self._high_water = high_water
        self._peak = PeakMemory(high_water)

    def begin(self) -> None:
        self._peak.reset()

    def end(self) -> None:
        """The mark stays where it is."""

    def columns(self) -> dict[str, float]:
        if not self._peak.exact:
            return {}
        peak_bytes = self._peak.bytes(None)
        return {"peak_bytes": peak_bytes} if peak_bytes is not None else {}

    def facts(self) -> dict[str, Any]:
        if self._high_water.exact:
            return {"source": "VmHWM", "missing": {}}
        return {"source": "samples", "missing": {"peak_bytes": "Only Linux keeps a peak of memory that can be started anew."}}

    def close(self) -> None:
        """The shared mark stays open."""


class _Reading:
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._process = psutil.Process()
        self._track = recorder.track("rss", "bytes")

    def sample(self) -> None:
        self._recorder.sample(self._track, self._process.memory_info().rss)

    def close(self) -> None:
        """No handle stays open."""


class HostMemory:
    """Samples the resident set ten times a second (about 20 µs each)."""

    id = "host_memory"
    title = "Host memory"
    summary = "resident memory of the process over time, and its peak in every moment"
    period_s: float | None = 0.1
    by_default = True

    def check(self) -> str | None:
        """Works wherever psutil does."""
        return None

    def open(self, recorder: Recorder) -> _Reading:
        """Begin to sample the track ``rss``."""
        return _Reading(recorder)

    def open_probe(self) -> PeakProbe:
        """A probe for the column ``peak_bytes``."""
        return PeakProbe()


INSTRUMENT = HostMemory()
