"""Energy: what the processor's and the GPU's own counters say was used since the run's start. Not verified on hardware."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol

from profilers import nvml as nvidia
from profilers.sampler import PartLostError
from profilers.trace import Recorder

POWERCAP = Path("/sys/class/powercap")
NOTHING = "This machine offers no energy counter (no RAPL, no NVIDIA driver)."
ROOT_ONLY = (
    "The processor's energy counters may be read by root only; allow it with "
    "'sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj' (until the next start of the system)."
)


class Meter(Protocol):
    """One device whose energy adds up. ``track`` is where it goes; ``source`` says how it is known."""

    track: str
    source: str

    def joules(self) -> float:
        """Energy since the meter was made. Raises ``OSError``, ``RuntimeError`` or ``ValueError`` when the device is gone."""
        ...


class Zone:
    """One RAPL zone: a counter in microjoules that starts again at ``max_energy_range_uj`` (at full load after minutes)."""

    def __init__(self, folder: Path) -> None:
        self.name = (folder / "name").read_text().strip()
        self.track = "dram_energy" if self.name.startswith("dram") else "package_energy"
        self.source = f"RAPL {self.name}"
        self._counter = folder / "energy_uj"
        self._range_uj = int((folder / "max_energy_range_uj").read_text())
        self._last_uj = int(self._counter.read_text())
        self._total_uj = 0

    def joules(self) -> float:
        now_uj = int(self._counter.read_text())
        step_uj = now_uj - self._last_uj
        self._total_uj += step_uj if step_uj >= 0 else step_uj + self._range_uj
        self._last_uj = now_uj
        return self._total_uj / 1e6


def zone_folders(powercap: Path = POWERCAP) -> list[Path]:
    """The zones that may be added up: packages, and memory, which packages do not include.

    Cores are part of their package, and the platform zone (psys) has everything in it; the memory-mapped copy of the same
    counters (intel-rapl-mmio) is another folder.
    """
    found = []
    for folder in sorted(powercap.glob("intel-rapl:*")):  # AMD's counters have the same folder name
        try:
            name = (folder / "name").read_text().strip()
        except OSError:
            continue
        if name.startswith(("package", "dram")):
            found.append(folder)
    return found


class GpuMeter:
    """The first NVIDIA GPU: its own counter (Volta and newer), else its power, integrated over the samples by trapezoids."""

    track = "gpu_energy"

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(0)
        self._first_mj: int | None = None
        self._total_j = 0.0
        try:
            self._first_mj = nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
            self.source = "NVML counter"
        except nvml.NVMLError_NotSupported:
            self._last_w, self._last_s = self._watts(), time.perf_counter()
            self.source = "NVML power, integrated"

    def joules(self) -> float:
        try:
            if self._first_mj is not None:
                return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) - self._first_mj) / 1000
            watts, now_s = self._watts(), time.perf_counter()
        except self._nvml.NVMLError as error:
            raise RuntimeError(f"the NVIDIA driver answered {error}") from error
        self._total_j += (watts + self._last_w) / 2 * (now_s - self._last_s)
        self._last_w, self._last_s = watts, now_s
        return self._total_j

    def _watts(self) -> float:
        return float(self._nvml.nvmlDeviceGetPowerUsage(self._handle)) / 1000


class _Reading:
    def __init__(self, recorder: Recorder, powercap: Path, nvml: Any | None, period_s: float) -> None:
        self._recorder = recorder
        self._period_s = period_s
        self._nvml = nvml
        self._meters: list[Meter] = []
        self._missing: dict[str, str] = {}
        for folder in zone_folders(powercap):
            try:
                self._meters.append(Zone(folder))
            except PermissionError:
                self._missing["energy"] = ROOT_ONLY
            except (OSError, ValueError) as error:
                self._missing["energy"] = f"One of the processor's energy counters cannot be read: {error}."
        if nvml is not None:
            nvml.nvmlInit()
            try:
                self._meters.append(GpuMeter(nvml))
            except nvml.NVMLError as error:
                self._missing["gpu_energy"] = f"The NVIDIA driver does not tell the GPU's energy: {error}."
        if not self._meters:
            self.close()
            raise OSError("no energy counter could be read")
        self._sources = [meter.source for meter in self._meters]
        self._tracks = {meter.track: recorder.track(meter.track, "joule") for meter in self._meters}

    def sample(self) -> None:
        now_ns = self._recorder.now_ns()
        totals: dict[str, float] = {}
        lost: dict[str, str] = {}
        for meter in self._meters:
            try:
                totals[meter.track] = totals.get(meter.track, 0.0) + meter.joules()
            except (OSError, RuntimeError, ValueError) as error:
                lost[meter.track] = f"{meter.source} stopped: {error}."
        for track, joules in totals.items():
            if track not in lost:
                self._recorder.sample(self._tracks[track], joules, now_ns)
        if lost:  # a sum with one of its parts missing would be wrong, so the whole track ends here
            self._meters = [meter for meter in self._meters if meter.track not in lost]
            self._missing |= lost
            raise PartLostError(" ".join(lost.values()))

    def facts(self) -> dict[str, Any]:
        return {"source": ", ".join(self._sources), "period_s": self._period_s, "missing": dict(self._missing)}

    def close(self) -> None:
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = None


class Energy:
    """Samples energy counters ten times a second into tracks that count up from 0. Without a counter nothing is estimated."""

    id = "energy"
    title = "Energy"
    summary = "joules by RAPL and NVML, where the machine has them (not verified on hardware)"
    period_s: float | None = 0.1
    by_default = True

    def __init__(self, powercap: Path = POWERCAP, nvml: Any = None) -> None:
        self._powercap = powercap
        self._library = nvml

    def check(self) -> str | None:
        """Why there is no energy to read here; None where at least one counter can be read."""
        if self._gpu() is not None:
            return None
        folders = zone_folders(self._powercap)
        for folder in folders:
            try:
                Zone(folder)
            except PermissionError:
                continue
            except (OSError, ValueError) as error:
                return f"The processor's energy counters cannot be read: {error}."
            return None
        return ROOT_ONLY if folders else NOTHING

    def open(self, recorder: Recorder) -> _Reading:
        """Begin to sample ``package_energy``, ``dram_energy`` and ``gpu_energy``, those that there are."""
        assert self.period_s is not None
        return _Reading(recorder, self._powercap, self._gpu(), self.period_s)

    def _gpu(self) -> Any | None:
        """The driver's library where a GPU tells its energy or power, else None."""
        nvml = self._library if self._library is not None else nvidia.library()
        if nvidia.why_absent(nvml) is not None:
            return None
        nvml.nvmlInit()
        try:
            GpuMeter(nvml)
        except nvml.NVMLError:
            return None
        finally:
            nvml.nvmlShutdown()
        return nvml


INSTRUMENT = Energy()
