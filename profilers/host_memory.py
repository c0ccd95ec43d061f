"""Host memory: the resident set of this process over time, and its true peak where the kernel keeps one."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

from profilers.trace import Recorder


def resident_bytes() -> int:
    """Resident set size of this process, in bytes (psutil)."""
    return int(psutil.Process().memory_info().rss)


class PeakMemory:
    """The peak resident set since ``reset``.

    On Linux it is the kernel's own high-water mark (``VmHWM``, reset through ``/proc/self/clear_refs``), which no sampling
    can miss; elsewhere the largest sample, and ``exact`` is False.
    """

    def __init__(self, process_dir: Path = Path("/proc/self")) -> None:
        self._process_dir = process_dir
        self.exact = False

    def reset(self) -> None:
        """Start a new peak."""
        try:
            (self._process_dir / "clear_refs").write_text("5")
        except OSError:
            self.exact = False
        else:
            self.exact = sys.platform == "linux"

    def bytes(self, sampled_peak_bytes: int | None) -> int | None:
        """The peak since ``reset``; the larger of sample and present value where the kernel keeps none; None: no sample."""
        if self.exact:
            for line in (self._process_dir / "status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return max(sampled_peak_bytes, resident_bytes()) if sampled_peak_bytes is not None else None


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
    summary = "resident memory of the process over time, and its peak"
    period_s: float | None = 0.1

    def check(self) -> str | None:
        """Works wherever psutil does."""
        return None

    def open(self, recorder: Recorder) -> _Reading:
        """Begin to sample the track ``rss``."""
        return _Reading(recorder)


INSTRUMENT = HostMemory()
