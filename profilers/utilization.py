"""Utilisation: how busy the processor was, at which clock and temperature, and how often it was throttled or switched away."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil

from profilers.trace import Recorder

CPU = Path("/sys/devices/system/cpu")
CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal", "acpitz")
"""Sensors of the processor by the kernel's names, the best first."""

TEMPERATURE_EVERY = 4  # samples: psutil looks for all sensors anew each time, which takes milliseconds


def processor_celsius() -> float | None:
    """The hottest sensor of the processor; None where the system shows none."""
    if not hasattr(psutil, "sensors_temperatures"):
        return None
    sensors = psutil.sensors_temperatures()
    for chip in CHIPS:
        values = [sensor.current for sensor in sensors.get(chip, []) if sensor.current]
        if values:
            return float(max(values))
    return None


class Throttling:
    """How often the processor slowed itself down because of heat: the kernel's counts (Intel), one per core and per package."""

    def __init__(self, folder: Path = CPU) -> None:
        self._files = [
            *folder.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"),
            *folder.glob("cpu[0-9]*/thermal_throttle/package_throttle_count"),
        ]
        self._first = self._read()

    def __bool__(self) -> bool:
        return bool(self._files)

    def count(self) -> int:
        """Counts since this was made, over all cores."""
        return self._read() - self._first

    def _read(self) -> int:
        return sum(int(file.read_text()) for file in self._files)


class _Reading:
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._process = psutil.Process()
        self._process.cpu_percent()
        psutil.cpu_percent()
        self._missing: dict[str, str] = {}
        self._cpu = recorder.track("cpu", "percent")
        self._system = recorder.track("cpu_system", "percent")
        self._switches = recorder.track("switches", "per_second")
        self._frequency = self._track("frequency", "hertz", bool(psutil.cpu_freq()), "the processor's clock")
        self._temperature = self._track("temperature", "celsius", processor_celsius() is not None, "a temperature")
        self._throttling = Throttling()
        self._throttled = self._track("throttled", "count", bool(self._throttling), "when it throttles the processor")
        self._throttled_before = 0
        self._last_switches = self._process.num_ctx_switches().involuntary
        self._last_s = time.perf_counter()
        self._samples = 0

    def sample(self) -> None:
        now_s = time.perf_counter()
        elapsed_s = now_s - self._last_s
        if self._samples == 0 or elapsed_s < 0.05:  # percentages need an interval to be about
            self._samples += self._samples == 0
            return
        switches = self._process.num_ctx_switches().involuntary
        self._recorder.sample(self._cpu, self._process.cpu_percent())
        self._recorder.sample(self._system, psutil.cpu_percent() * (psutil.cpu_count() or 1))
        self._recorder.sample(self._switches, (switches - self._last_switches) / elapsed_s)
        self._last_switches, self._last_s = switches, now_s
        self._sample_clock_and_heat()
        self._samples += 1

    def resume(self) -> None:
        """After a rest: begin a new interval."""
        self._process.cpu_percent()
        psutil.cpu_percent()
        self._last_switches, self._last_s = self._process.num_ctx_switches().involuntary, time.perf_counter()

    def facts(self) -> dict[str, Any]:
        return {"missing": dict(self._missing)}

    def close(self) -> None:
        """No handle stays open."""

    def _track(self, name: str, unit: str, there: bool, what: str) -> int | None:
        if there:
            return self._recorder.track(name, unit)
        self._missing[name] = f"This machine does not tell {what}."
        return None

    def _sample_clock_and_heat(self) -> None:
        frequency = psutil.cpu_freq()
        if self._frequency is not None and frequency is not None:
            self._recorder.sample(self._frequency, frequency.current * 1e6)
        if self._temperature is not None and self._samples % TEMPERATURE_EVERY == 1:
            celsius = processor_celsius()
            if celsius is not None:
                self._recorder.sample(self._temperature, celsius)
        if self._throttled is not None:
            count = self._throttling.count()
            self._recorder.sample(self._throttled, count)
            if count > self._throttled_before:
                self._recorder.instant("throttle", "the processor was throttled because of heat")
            self._throttled_before = count


class Utilization:
    """Samples the processor twice a second. ``cpu`` is this process, in percent of one processor (200 % is two busy ones)."""

    id = "utilization"
    title = "Processor"
    summary = "processor use, clock, temperature, throttling, involuntary switches"
    period_s: float | None = 0.5
    by_default = True

    def check(self) -> str | None:
        """Works wherever psutil does."""
        return None

    def open(self, recorder: Recorder) -> _Reading:
        """Begin to sample the tracks ``cpu``, ``cpu_system``, ``switches`` and, where the machine tells them, ``frequency``,
        ``temperature`` (every other second) and ``throttled`` (counts up from 0).
        """
        return _Reading(recorder)


INSTRUMENT = Utilization()
