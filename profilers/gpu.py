"""NVIDIA GPUs through NVML: utilisation, memory, clock, power and temperature. Not verified on hardware."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from profilers.trace import Recorder


class _Reading:
    def __init__(self, recorder: Recorder, nvml: Any) -> None:
        self._recorder = recorder
        self._nvml = nvml
        nvml.nvmlInit()
        self._handle = nvml.nvmlDeviceGetHandleByIndex(0)
        self._readers: list[tuple[int, Callable[[], float]]] = [
            (recorder.track("gpu", "percent"), lambda: nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu),
            (recorder.track("gpu_memory", "bytes"), lambda: nvml.nvmlDeviceGetMemoryInfo(self._handle).used),
            (
                recorder.track("gpu_frequency", "hertz"),
                lambda: nvml.nvmlDeviceGetClockInfo(self._handle, nvml.NVML_CLOCK_SM) * 1e6,
            ),
            (recorder.track("gpu_power", "watt"), lambda: nvml.nvmlDeviceGetPowerUsage(self._handle) / 1000),
            (
                recorder.track("gpu_temperature", "celsius"),
                lambda: nvml.nvmlDeviceGetTemperature(self._handle, nvml.NVML_TEMPERATURE_GPU),
            ),
        ]

    def sample(self) -> None:
        for track, read in list(self._readers):
            try:
                value = float(read())
            except self._nvml.NVMLError_NotSupported:
                self._readers.remove((track, read))  # this card does not tell; the track stays empty, which is not 0
            except self._nvml.NVMLError as error:
                raise RuntimeError(f"the NVIDIA driver answered {error}") from error
            else:
                self._recorder.sample(track, value)

    def close(self) -> None:
        self._nvml.nvmlShutdown()


class Gpu:
    """Samples the first NVIDIA GPU twice a second."""

    id = "gpu"
    title = "NVIDIA GPU"
    summary = "GPU use, memory, clock, power, temperature (not verified on hardware)"
    period_s: float | None = 0.5

    def __init__(self, nvml: Any = None) -> None:
        self._nvml = nvml

    def check(self) -> str | None:
        """Why there is nothing to sample: no driver, or no device."""
        nvml = self._library()
        try:
            nvml.nvmlInit()
        except nvml.NVMLError:
            return "No NVIDIA driver was found."
        try:
            return None if nvml.nvmlDeviceGetCount() else "The NVIDIA driver is here, but no GPU."
        finally:
            nvml.nvmlShutdown()

    def open(self, recorder: Recorder) -> _Reading:
        """Begin to sample the tracks ``gpu``, ``gpu_memory``, ``gpu_frequency``, ``gpu_power``, ``gpu_temperature``."""
        return _Reading(recorder, self._library())

    def _library(self) -> Any:
        if self._nvml is None:
            self._nvml = importlib.import_module("pynvml")
        return self._nvml


INSTRUMENT = Gpu()
