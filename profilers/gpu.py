"""NVIDIA GPUs through NVML: utilisation, memory, clock, power, temperature and throttling. Not verified on hardware."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from profilers import nvml as nvidia
from profilers.trace import Recorder

THROTTLE_REASONS = {  # bits of nvmlClocksEventReasons; idle, a clock set by the user and display settings are no throttling
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost with another GPU",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}


class _Reading:
    def __init__(self, recorder: Recorder, nvml: Any) -> None:
        self._recorder = recorder
        self._nvml = nvml
        nvml.nvmlInit()
        self._handle = nvml.nvmlDeviceGetHandleByIndex(0)
        self._throttled = 0
        self._reason = ""
        self._missing: dict[str, str] = {}
        self._readers: list[tuple[str, int, Callable[[], float]]] = [
            (name, recorder.track(name, unit), read)
            for name, unit, read in (
                ("gpu", "percent", lambda: nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu),
                ("gpu_memory", "bytes", lambda: nvml.nvmlDeviceGetMemoryInfo(self._handle).used),
                ("gpu_frequency", "hertz", lambda: nvml.nvmlDeviceGetClockInfo(self._handle, nvml.NVML_CLOCK_SM) * 1e6),
                ("gpu_power", "watt", lambda: nvml.nvmlDeviceGetPowerUsage(self._handle) / 1000),
                ("gpu_temperature", "celsius", lambda: nvml.nvmlDeviceGetTemperature(self._handle, nvml.NVML_TEMPERATURE_GPU)),
                ("gpu_throttled", "count", self._count_throttling),
            )
        ]

    def sample(self) -> None:
        for reader in list(self._readers):
            name, track, read = reader
            try:
                value = float(read())
            except self._nvml.NVMLError_NotSupported:
                self._readers.remove(reader)  # the track stays empty, which is not 0
                self._missing[name] = "This GPU does not tell it."
            except self._nvml.NVMLError as error:
                raise RuntimeError(f"the NVIDIA driver answered {error}") from error
            else:
                self._recorder.sample(track, value)

    def facts(self) -> dict[str, Any]:
        return {"missing": dict(self._missing)}

    def close(self) -> None:
        self._nvml.nvmlShutdown()

    def _count_throttling(self) -> int:
        """In how many samples so far the GPU was slower than asked for; a new reason becomes an instant."""
        nvml = self._nvml
        # The function was renamed with driver 535; older libraries know the old name only.
        read = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None) or nvml.nvmlDeviceGetCurrentClocksThrottleReasons
        bits = read(self._handle)
        reason = ", ".join(name for bit, name in THROTTLE_REASONS.items() if bits & bit)
        if reason and reason != self._reason:
            self._recorder.instant("throttle", f"the GPU is throttled: {reason}")
        self._reason = reason
        self._throttled += bool(reason)
        return self._throttled


class Gpu:
    """Samples the first NVIDIA GPU twice a second."""

    id = "gpu"
    title = "NVIDIA GPU"
    summary = "GPU use, memory, clock, power, temperature, throttling (not verified on hardware)"
    period_s: float | None = 0.5
    by_default = False

    def __init__(self, nvml: Any = None) -> None:
        self._nvml = nvml

    def check(self) -> str | None:
        """Why there is nothing to sample: no driver, or no device."""
        return nvidia.why_absent(self._library())

    def open(self, recorder: Recorder) -> _Reading:
        """Begin to sample the tracks ``gpu``, ``gpu_memory``, ``gpu_frequency``, ``gpu_power``, ``gpu_temperature`` and
        ``gpu_throttled`` (counts samples, up from 0).
        """
        return _Reading(recorder, self._library())

    def _library(self) -> Any:
        if self._nvml is None:
            self._nvml = nvidia.library()
        return self._nvml


INSTRUMENT = Gpu()
