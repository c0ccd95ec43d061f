"""The sampler survives instruments that fail, and the sampled instruments say what they see, or nothing."""

from __future__ import annotations

import mmap
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from profilers.base import instruments
from profilers.gpu import Gpu
from profilers.host_memory import PeakMemory, resident_bytes
from profilers.sampler import Sampler
from profilers.trace import Recorder


class Counting:
    """An instrument that counts, and fails when told."""

    def __init__(self, name: str, fail_at: int | None = None, *, fail_open: bool = False) -> None:
        self.id = self.title = name
        self.summary = ""
        self.period_s: float | None = 0.001
        self.fail_at, self.fail_open = fail_at, fail_open
        self.samples = self.closed = 0
        self.enough = threading.Event()

    def check(self) -> str | None:
        return None

    def open(self, recorder: Recorder) -> Any:
        if self.fail_open:
            raise OSError("no such device")
        return self

    def sample(self) -> None:
        self.samples += 1
        if self.samples == self.fail_at:
            raise RuntimeError("the device vanished")
        if self.samples >= 5:
            self.enough.set()

    def close(self) -> None:
        self.closed += 1


def test_the_sampler_samples_reports_its_lateness_and_ends() -> None:
    recorder, steady = Recorder(), Counting("steady")
    sampler = Sampler(recorder, [steady])
    sampler.start()
    assert steady.enough.wait(5)
    sampler.stop()
    assert steady.closed == 1
    trace = recorder.snapshot()
    late = [track.name for track in trace.tracks].index("sampler_late")
    assert (trace.counters["track"] == late).sum() >= 5
    assert "tickscope-sampler" not in {thread.name for thread in threading.enumerate()}


def test_one_failing_instrument_does_not_stop_the_others() -> None:
    told: list[tuple[str, str]] = []
    steady, failing, absent = Counting("steady"), Counting("failing", fail_at=2), Counting("absent", fail_open=True)
    sampler = Sampler(Recorder(), [absent, failing, steady], lambda what, why: told.append((what, why)))
    sampler.start()
    assert steady.enough.wait(5)
    sampler.stop()
    assert ("failing", "failing stopped: the device vanished.") in told
    assert ("absent", "absent could not start: no such device.") in told
    assert (failing.samples, failing.closed) == (2, 1)


def test_memory_and_processor_are_seen() -> None:
    known = instruments()
    recorder = Recorder()
    readings = [known["host_memory"].open(recorder), known["utilization"].open(recorder)]
    for _ in range(3):
        for reading in readings:
            reading.sample()
        threading.Event().wait(0.06)
    trace = recorder.snapshot()
    names = [trace.tracks[track].name for track in trace.counters["track"]]
    values = dict(zip(names, trace.counters["value"], strict=True))
    assert values["rss"] > 10 << 20
    assert {"cpu", "cpu_system", "switches"} <= set(names)


def test_the_peak_is_the_kernels_own_where_it_keeps_one() -> None:
    peak = PeakMemory()
    peak.reset()
    if not peak.exact:
        assert peak.bytes(None) is None
        return
    before = resident_bytes()
    with mmap.mmap(-1, 64 << 20) as block:  # the system's pages, not the allocator's, which may have some left over
        block.write(bytes(64 << 20))
    measured = peak.bytes(None)
    assert measured is not None
    assert measured >= before + (60 << 20)
    assert resident_bytes() < measured


def test_without_the_kernels_peak_the_largest_sample_counts(tmp_path: Path) -> None:
    peak = PeakMemory(tmp_path / "absent")
    peak.reset()
    assert not peak.exact
    assert peak.bytes(1 << 50) == 1 << 50
    assert peak.bytes(None) is None


class FakeNvml(SimpleNamespace):
    """The driver's edge: what pynvml would say of one GPU that does not tell its power."""

    class NVMLError(Exception):
        pass

    class NVMLError_NotSupported(NVMLError):  # noqa: N801 - the library's own name
        pass

    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    def __init__(self, devices: int = 1, *, driver: bool = True) -> None:
        super().__init__(devices=devices, driver=driver, gone=False)

    def nvmlInit(self) -> None:
        if not self.driver:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlShutdown(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return int(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUtilizationRates(self, _handle: int) -> SimpleNamespace:
        if self.gone:
            raise self.NVMLError("GPU is lost")
        return SimpleNamespace(gpu=73)

    def nvmlDeviceGetMemoryInfo(self, _handle: int) -> SimpleNamespace:
        return SimpleNamespace(used=4 << 30)

    def nvmlDeviceGetClockInfo(self, _handle: int, _clock: int) -> int:
        return 1500

    def nvmlDeviceGetPowerUsage(self, _handle: int) -> int:
        raise self.NVMLError_NotSupported

    def nvmlDeviceGetTemperature(self, _handle: int, _sensor: int) -> int:
        return 55


def test_a_gpu_is_sampled_and_what_it_does_not_tell_stays_empty() -> None:
    recorder, nvml = Recorder(), FakeNvml()
    reading = Gpu(nvml).open(recorder)
    reading.sample()
    reading.sample()
    trace = recorder.snapshot()
    seen = {
        trace.tracks[track].name: value for track, value in zip(trace.counters["track"], trace.counters["value"], strict=True)
    }
    assert seen == {"gpu": 73, "gpu_memory": 4 << 30, "gpu_frequency": 1.5e9, "gpu_temperature": 55}


def test_a_gpu_that_vanishes_is_a_sentence() -> None:
    nvml = FakeNvml()
    reading = Gpu(nvml).open(Recorder())
    nvml.gone = True
    with pytest.raises(RuntimeError, match="GPU is lost"):
        reading.sample()


@pytest.mark.parametrize(
    ("nvml", "reason"),
    [
        (FakeNvml(driver=False), "No NVIDIA driver was found."),
        (FakeNvml(0), "The NVIDIA driver is here, but no GPU."),
        (FakeNvml(), None),
    ],
)
def test_a_missing_gpu_has_a_reason(nvml: FakeNvml, reason: str | None) -> None:
    assert Gpu(nvml).check() == reason
