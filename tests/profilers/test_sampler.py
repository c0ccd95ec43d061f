"""The sampler survives instruments that fail, and the sampled instruments say what they see, or nothing."""

from __future__ import annotations

import mmap
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from profilers import utilization
from profilers.base import instruments
from profilers.device_memory import NO_DEVICE, NO_TORCH, DeviceMemory
from profilers.gpu import Gpu
from profilers.host_memory import HighWater, PeakMemory, PeakProbe, resident_bytes
from profilers.sampler import PartLostError, Sampler
from profilers.trace import Recorder
from profilers.utilization import Throttling, processor_celsius
from tests.support.fake_nvml import FakeNvml, OldNvml


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


def test_a_moments_peak_and_the_runs_peak_do_not_wipe_each_other() -> None:
    whole, probe = PeakMemory(), PeakProbe()
    whole.reset()
    before = resident_bytes()
    probe.begin()
    with mmap.mmap(-1, 64 << 20) as block:
        block.write(bytes(64 << 20))
    first = probe.columns()
    probe.begin()
    second = probe.columns()
    missing = probe.facts()["missing"]
    assert bool(missing) is not whole.exact
    if missing:
        assert first == second == {}
        return
    assert first["peak_bytes"] >= before + (60 << 20)
    assert second["peak_bytes"] < first["peak_bytes"] - (50 << 20)
    assert whole.bytes(None) == first["peak_bytes"]


def test_without_the_kernels_peak_the_largest_sample_counts(tmp_path: Path) -> None:
    peak = PeakMemory(HighWater(tmp_path / "absent"))
    peak.reset()
    assert not peak.exact
    assert peak.bytes(1 << 50) == 1 << 50
    assert peak.bytes(None) is None


def test_a_gpu_is_sampled_and_what_it_does_not_tell_stays_empty() -> None:
    recorder, nvml = Recorder(), FakeNvml(silent=("power", "reasons"))
    reading = Gpu(nvml).open(recorder)
    reading.sample()
    reading.sample()
    trace = recorder.snapshot()
    seen = {
        trace.tracks[track].name: value for track, value in zip(trace.counters["track"], trace.counters["value"], strict=True)
    }
    assert seen == {"gpu": 73, "gpu_memory": 4 << 30, "gpu_frequency": 1.5e9, "gpu_temperature": 55}
    assert reading.facts()["missing"].keys() == {"gpu_power", "gpu_throttled"}


@pytest.mark.parametrize("library", [FakeNvml, OldNvml])
def test_a_throttled_gpu_is_counted_and_says_why(library: type[OldNvml]) -> None:
    recorder, nvml = Recorder(), library()
    reading = Gpu(nvml).open(recorder)
    for bits in (0x1, 0x4, 0x4, 0x44, 0x0):  # idle is no throttling
        nvml.reasons = bits
        reading.sample()
    trace = recorder.snapshot()
    track = [track.name for track in trace.tracks].index("gpu_throttled")
    assert trace.counters["value"][trace.counters["track"] == track].tolist() == [0, 1, 2, 3, 3]
    assert [instant.label for instant in trace.instants] == [
        "the GPU is throttled: power cap",
        "the GPU is throttled: power cap, heat (hardware)",
    ]


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


# -- rests, facts and parts --------------------------------------------------------------------------------------------------


class Interval(Counting):
    """Its values are about the time since the last sample."""

    def __init__(self) -> None:
        super().__init__("interval")
        self.resumed = threading.Event()

    def resume(self) -> None:
        self.resumed.set()

    def facts(self) -> dict[str, Any]:
        return {"source": "counting", "missing": {}}


def test_a_rest_is_not_sampled_and_begins_and_ends_with_a_sample() -> None:
    long, interval = Counting("long"), Interval()
    long.period_s = interval.period_s = 1000.0
    sampler = Sampler(Recorder(), [long, interval])
    arrived = threading.Semaphore(0)
    plain = long.sample

    def sample() -> None:
        plain()
        arrived.release()

    long.sample = sample  # type: ignore[method-assign]
    sampler.start()
    assert arrived.acquire(timeout=5)  # the first one, at the start
    sampler.resting = True
    assert arrived.acquire(timeout=5)
    sampler.resting = False
    assert arrived.acquire(timeout=5)
    assert interval.resumed.wait(5)
    sampler.stop()
    assert long.samples == 4  # and the last one at the end
    assert interval.samples == 3


def test_a_sampler_that_rests_can_be_stopped() -> None:
    steady = Counting("steady")
    sampler = Sampler(Recorder(), [steady])
    sampler.start()
    assert steady.enough.wait(5)
    sampler.resting = True
    sampler.stop()
    assert steady.closed == 1


def test_facts_are_collected_also_of_those_that_fail() -> None:
    fine, failing, silent = Interval(), Interval(), Counting("silent")
    failing.id, failing.fail_at = "failing", 2
    sampler = Sampler(Recorder(), [fine, failing, silent])
    sampler.start()
    assert fine.enough.wait(5)
    sampler.stop()
    assert sampler.facts == {name: fine.facts() for name in ("interval", "failing")}


def test_a_reading_goes_on_without_a_part_that_it_lost() -> None:
    told: list[tuple[str, str]] = []
    partly = Counting("partly")
    plain = partly.sample

    def sample() -> None:
        plain()
        if partly.samples == 2:
            raise PartLostError("The second device stopped.")

    partly.sample = sample  # type: ignore[method-assign]
    sampler = Sampler(Recorder(), [partly], lambda what, why: told.append((what, why)))
    sampler.start()
    assert partly.enough.wait(5)
    sampler.stop()
    assert told == [("partly", "The second device stopped.")]


# -- the processor's heat, and an accelerator's memory -------------------------------------------------------------------------


def test_the_hottest_sensor_of_the_processor_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    sensors = {
        "nvme": [SimpleNamespace(current=80.0)],
        "acpitz": [SimpleNamespace(current=30.0)],
        "coretemp": [SimpleNamespace(current=61.0), SimpleNamespace(current=67.5)],
    }
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: sensors, raising=False)
    assert processor_celsius() == 67.5
    del sensors["coretemp"], sensors["acpitz"]
    assert processor_celsius() is None


def test_heat_and_throttling_are_sampled_where_the_machine_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for core in range(2):
        folder = tmp_path / f"cpu{core}" / "thermal_throttle"
        folder.mkdir(parents=True)
        for name in ("core_throttle_count", "package_throttle_count"):
            (folder / name).write_text("7\n")
            counts.append(folder / name)
    monkeypatch.setattr(utilization, "Throttling", lambda: Throttling(tmp_path))
    monkeypatch.setattr(utilization, "processor_celsius", lambda: 66.0)
    recorder = Recorder()
    reading = instruments()["utilization"].open(recorder)
    for extra in (0, 0, 3):
        counts[1].write_text(str(7 + extra))
        reading.sample()
        threading.Event().wait(0.06)
    trace = recorder.snapshot()
    values = {
        track.name: trace.counters["value"][trace.counters["track"] == number].tolist()
        for number, track in enumerate(trace.tracks)
    }
    assert values["throttled"] == [0, 3]
    assert values["temperature"] == [66.0]  # looked for in every fourth sample
    assert [instant.track for instant in trace.instants] == ["throttle"]


def test_what_the_machine_does_not_tell_of_heat_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utilization, "Throttling", lambda: Throttling(tmp_path))
    monkeypatch.setattr(utilization, "processor_celsius", lambda: None)
    recorder = Recorder()
    reading = instruments()["utilization"].open(recorder)
    missing = reading.facts()["missing"]
    assert missing["temperature"] == "This machine does not tell a temperature."
    assert "throttled" in missing
    assert not {"temperature", "throttled"} & {track.name for track in recorder.snapshot().tracks}


def accelerator(kind: str, *, old: bool = False, available: bool = True) -> SimpleNamespace:
    """Torch with one accelerator at the driver's edge; not verified on hardware."""
    memory = {"memory_allocated": lambda: 300, "memory_reserved": lambda: 500}
    shared = {"is_available": lambda: available, "current_accelerator": lambda: SimpleNamespace(type=kind)}
    metal = SimpleNamespace(current_allocated_memory=lambda: 300, driver_allocated_memory=lambda: 500)
    return SimpleNamespace(
        accelerator=SimpleNamespace(**shared, **({} if old else memory)), cuda=SimpleNamespace(**memory), mps=metal
    )


@pytest.mark.parametrize("torch", [accelerator("cuda"), accelerator("cuda", old=True), accelerator("mps")])
def test_the_allocator_of_an_accelerator_is_sampled(torch: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch)
    instrument = DeviceMemory()
    assert instrument.check() is None
    recorder = Recorder()
    reading = instrument.open(recorder)
    reading.sample()
    trace = recorder.snapshot()
    assert [(track.name, track.unit) for track in trace.tracks] == [("device_allocated", "bytes"), ("device_reserved", "bytes")]
    assert trace.counters["value"].tolist() == [300, 500]


def test_without_an_accelerator_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", accelerator("cuda", available=False))
    assert DeviceMemory().check() == NO_DEVICE
    with pytest.raises(RuntimeError, match="no accelerator"):
        DeviceMemory().open(Recorder())
    monkeypatch.delitem(sys.modules, "torch")
    assert DeviceMemory().check() == NO_TORCH
