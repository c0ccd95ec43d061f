"""Utilisation: how busy the processor was, at which clock, and how often this process was switched off it against its will."""

from __future__ import annotations

import time

import psutil

from profilers.trace import Recorder


class _Reading:
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._process = psutil.Process()
        self._process.cpu_percent()
        psutil.cpu_percent()
        self._cpu = recorder.track("cpu", "percent")
        self._system = recorder.track("cpu_system", "percent")
        self._frequency = recorder.track("frequency", "hertz") if psutil.cpu_freq() else None
        self._switches = recorder.track("switches", "per_second")
        self._last_switches = self._process.num_ctx_switches().involuntary
        self._last_s = time.perf_counter()
        self._first = True

    def sample(self) -> None:
        now_s = time.perf_counter()
        elapsed_s = now_s - self._last_s
        if self._first or elapsed_s < 0.05:  # percentages need an interval to be about
            self._first = False
            return
        switches = self._process.num_ctx_switches().involuntary
        self._recorder.sample(self._cpu, self._process.cpu_percent())
        self._recorder.sample(self._system, psutil.cpu_percent() * (psutil.cpu_count() or 1))
        self._recorder.sample(self._switches, (switches - self._last_switches) / elapsed_s)
        frequency = psutil.cpu_freq()
        if self._frequency is not None and frequency is not None:
            self._recorder.sample(self._frequency, frequency.current * 1e6)
        self._last_switches, self._last_s = switches, now_s

    def close(self) -> None:
        """No handle stays open."""


class Utilization:
    """Samples the processor twice a second. ``cpu`` is this process, in percent of one processor (200 % is two busy ones)."""

    id = "utilization"
    title = "Processor"
    summary = "processor use, clock frequency, involuntary switches"
    period_s: float | None = 0.5

    def check(self) -> str | None:
        """Works wherever psutil does."""
        return None

    def open(self, recorder: Recorder) -> _Reading:
        """Begin to sample the tracks ``cpu``, ``cpu_system``, ``switches`` and, where known, ``frequency``."""
        return _Reading(recorder)


INSTRUMENT = Utilization()
