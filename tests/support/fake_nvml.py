"""The NVIDIA driver's edge: what ``pynvml`` would say of one GPU. Nothing here is verified on hardware."""

from __future__ import annotations

from types import SimpleNamespace


class NVMLError(Exception):
    """As the library's: every answer that is not one."""


class NotSupported(NVMLError):
    """This card does not tell."""


class OldNvml:
    """One GPU that tells everything but what is named in ``silent``; ``gone`` makes it vanish. From before driver 535.

    ``watts``, ``millijoules`` and ``reasons`` are what it tells next.
    """

    NVMLError = NVMLError
    NVMLError_NotSupported = NotSupported
    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    def __init__(self, devices: int = 1, *, driver: bool = True, silent: tuple[str, ...] = ()) -> None:
        self.devices, self.driver, self.silent = devices, driver, silent
        self.gone = False
        self.watts, self.millijoules, self.reasons = 60.0, 5_000_000, 0
        self.opened = 0

    def nvmlInit(self) -> None:
        if not self.driver:
            raise NVMLError("Driver Not Loaded")
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlDeviceGetCount(self) -> int:
        return self.devices

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUtilizationRates(self, _handle: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=self._tell("utilization", 73))

    def nvmlDeviceGetMemoryInfo(self, _handle: int) -> SimpleNamespace:
        return SimpleNamespace(used=self._tell("memory", 4 << 30))

    def nvmlDeviceGetClockInfo(self, _handle: int, _clock: int) -> float:
        return self._tell("clock", 1500)

    def nvmlDeviceGetPowerUsage(self, _handle: int) -> float:
        return self._tell("power", self.watts * 1000)

    def nvmlDeviceGetTemperature(self, _handle: int, _sensor: int) -> float:
        return self._tell("temperature", 55)

    def nvmlDeviceGetTotalEnergyConsumption(self, _handle: int) -> float:
        return self._tell("energy", self.millijoules)

    def _tell(self, what: str, value: float) -> float:
        if self.gone:
            raise NVMLError("GPU is lost")
        if what in self.silent:
            raise NotSupported("Not Supported")
        return value

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, _handle: int) -> float:
        return self._tell("reasons", self.reasons)


class FakeNvml(OldNvml):
    """A library of today: throttle reasons have their new name, and it comes first."""

    def nvmlDeviceGetCurrentClocksEventReasons(self, _handle: int) -> float:
        return self._tell("reasons", self.reasons)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, _handle: int) -> float:
        raise AssertionError("the old name is asked only where the new one is missing")
