"""Energy: counters wrap, vanish, are forbidden or absent; joules fall to the moments that used them. Fakes, no hardware."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.analysis.tracks import energy, machine
from core.records.run import Run
from profilers.energy import NOTHING, ROOT_ONLY, Energy, Zone, zone_folders
from profilers.sampler import PartLostError, Sampler
from profilers.trace import Recorder, Tag, Trace
from tests.support.fake_nvml import FakeNvml
from tests.support.synthetic import synthetic_run

NO_DRIVER = FakeNvml(driver=False)


def zone(powercap: Path, folder: str, name: str, microjoules: int, most: int = 1_000_000) -> Path:
    where = powercap / folder
    where.mkdir(parents=True)
    (where / "name").write_text(f"{name}\n")
    (where / "max_energy_range_uj").write_text(f"{most}\n")
    (where / "energy_uj").write_text(f"{microjoules}\n")
    return where / "energy_uj"


def samples(recorder: Recorder) -> dict[str, list[float]]:
    trace = recorder.snapshot()
    return {
        track.name: trace.counters["value"][trace.counters["track"] == number].tolist()
        for number, track in enumerate(trace.tracks)
    }


def test_a_machine_without_counters_says_so(tmp_path: Path) -> None:
    assert Energy(tmp_path, NO_DRIVER).check() == NOTHING
    assert NOTHING == "This machine offers no energy counter (no RAPL, no NVIDIA driver)."


def test_packages_and_memory_are_added_up_and_parts_of_them_are_not(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 100)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 900_000)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 10)
    for folder, name in (("intel-rapl:0:0", "core"), ("intel-rapl:2", "psys"), ("intel-rapl-mmio:0", "package-0")):
        zone(tmp_path, folder, name, 0)
    assert len(zone_folders(tmp_path)) == 3
    instrument = Energy(tmp_path, NO_DRIVER)
    assert instrument.check() is None
    recorder = Recorder()
    reading = instrument.open(recorder)
    reading.sample()
    for counter, value in ((first, 500_100), (second, 150_000), (memory, 10_010)):  # the second one has wrapped
        counter.write_text(str(value))
    reading.sample()
    assert samples(recorder) == {"package_energy": [0, pytest.approx(0.75)], "dram_energy": [0, pytest.approx(0.01)]}
    facts = reading.facts()
    assert facts == {"source": "RAPL package-0, RAPL dram, RAPL package-1", "period_s": 0.1, "missing": {}}
    reading.close()
    assert {track.unit for track in recorder.snapshot().tracks} == {"joule"}


def test_a_zone_counts_on_over_many_wraps(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 999_000)
    one = Zone(counter.parent)
    seen = []
    for value in (1_000, 600_000, 200_000):
        counter.write_text(str(value))
        seen.append(one.joules())
    assert seen == pytest.approx([0.002, 0.601, 1.201])


def test_a_forbidden_counter_has_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 5)
    plain = Path.read_text

    def read_text(path: Path) -> str:
        if path == counter:
            raise PermissionError(13, "Permission denied")
        return plain(path)

    monkeypatch.setattr(Path, "read_text", read_text)
    assert Energy(tmp_path, NO_DRIVER).check() == ROOT_ONLY
    reading = Energy(tmp_path, FakeNvml()).open(Recorder())  # the GPU's can be read all the same
    assert reading.facts() == {"source": "NVML counter", "period_s": 0.1, "missing": {"energy": ROOT_ONLY}}


def test_a_gpu_with_a_counter_counts_from_the_runs_start(tmp_path: Path) -> None:
    recorder, nvml = Recorder(), FakeNvml()
    instrument = Energy(tmp_path, nvml)
    assert instrument.check() is None
    reading = instrument.open(recorder)
    nvml.millijoules += 2_500
    reading.sample()
    reading.close()
    assert samples(recorder) == {"gpu_energy": [2.5]}
    assert nvml.opened == 0


def test_an_older_gpu_has_its_power_integrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("profilers.energy.time.perf_counter", lambda: now[0])
    recorder, nvml = Recorder(), FakeNvml(silent=("energy",))
    reading = Energy(tmp_path, nvml).open(recorder)
    for watts, step_s in ((100.0, 0.5), (100.0, 1.0)):
        nvml.watts, now[0] = watts, now[0] + step_s
        reading.sample()
    assert samples(recorder) == {"gpu_energy": [40.0, 140.0]}  # trapezoids: 60 to 100 W for 0.5 s, then 100 W for 1 s
    assert reading.facts()["source"] == "NVML power, integrated"


def test_a_gpu_that_tells_neither_is_no_counter(tmp_path: Path) -> None:
    assert Energy(tmp_path, FakeNvml(silent=("energy", "power"))).check() == NOTHING


def test_a_device_that_vanishes_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    recorder, nvml = Recorder(), FakeNvml()
    reading = Energy(tmp_path, nvml).open(recorder)
    reading.sample()
    nvml.gone = True
    with pytest.raises(PartLostError, match="NVML counter stopped: the NVIDIA driver answered GPU is lost"):
        reading.sample()
    reading.sample()
    assert {name: len(values) for name, values in samples(recorder).items()} == {"package_energy": 3, "gpu_energy": 1}
    assert "gpu_energy" in reading.facts()["missing"]


def test_the_sampler_tells_of_the_lost_device_and_keeps_the_rest(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    nvml, told, heard = FakeNvml(), [], threading.Event()
    instrument = Energy(tmp_path, nvml)
    instrument.period_s = 0.001

    def failed(what: str, why: str) -> None:
        told.append((what, why))
        heard.set()

    recorder, sampled = Recorder(), threading.Event()
    plain = recorder.sample

    def sample(track: int, value: float, time_ns: int | None = None) -> None:
        plain(track, value, time_ns)
        sampled.set()

    recorder.sample = sample  # type: ignore[method-assign]
    sampler = Sampler(recorder, [instrument], failed)
    sampler.start()
    assert sampled.wait(5)
    nvml.gone = True
    assert heard.wait(5)
    whole = counter.with_suffix(".new")  # written over, it would be empty for a moment, and might be read then
    whole.write_text("400000")
    whole.replace(counter)
    sampler.stop()
    assert [what for what, _ in told] == ["energy"]
    assert samples(recorder)["package_energy"][-1] == pytest.approx(0.4)
    assert sampler.facts["energy"]["source"] == "RAPL package-0, NVML counter"


# -- a run's energy ------------------------------------------------------------------------------------------------------------


def powered(run: Run, watts: float) -> Run:
    """The run with a package that drew so much all the time, and a GPU that drew half."""
    end_s = float(run.trace.moments["start_ns"].max()) / 1e9 + 1
    recorder = Recorder()
    recorder.origin_ns = 0
    for name, share in (("package_energy", 1.0), ("gpu_energy", 0.5)):
        track = recorder.track(name, "joule")
        for time_s in np.arange(0, end_s, 0.1):
            recorder.sample(track, watts * share * time_s, int(time_s * 1e9))
    counters = recorder.snapshot()
    trace: Trace = replace(run.trace, counters=counters.counters, tracks=counters.tracks)
    facts = replace(run.facts, instruments={"energy": {"source": "RAPL package-0, NVML counter", "period_s": 0.1}})
    return replace(run, trace=trace, facts=facts)


def test_joules_per_token_are_those_of_the_measured_moments() -> None:
    run = powered(synthetic_run(repeats=2, warmup=1, new_tokens=16), 40)
    moments, requests = run.trace.moments, run.trace.requests
    found = energy(run)
    assert found is not None
    spans_ns = 0
    for request in (1, 2):  # the first is warm-up
        mine = moments["request"] == request
        spans_ns += int((moments["start_ns"] + moments["duration_ns"])[mine].max() - requests["start_ns"][request])
        spans_ns -= int(np.minimum(moments["paused_ns"], 400_000)[mine][1:].sum())  # as much of a pause as there was between
        spans_ns -= int(min(moments["paused_ns"][mine][0], 80_000))
    assert found.joules == pytest.approx(60 * spans_ns / 1e9, rel=1e-3)
    assert found.joules_per_token == pytest.approx(found.joules / 32)
    assert found.per_kind.keys() == {"prefill", "decode"}
    assert sum(found.per_kind.values()) == pytest.approx(found.joules)
    assert found.per_track["package_energy"] == pytest.approx(2 * found.per_track["gpu_energy"])
    assert (found.source, found.period_s) == ("RAPL package-0, NVML counter", 0.1)


def test_power_is_drawn_from_the_counters() -> None:
    tracks = {track.name: track for track in machine(powered(synthetic_run(), 40))}
    assert tracks.keys() == {"package_power", "gpu_power"}
    assert (tracks["package_power"].title, tracks["package_power"].unit) == ("CPU power", "W")
    assert np.allclose(tracks["package_power"].value, 40)


def test_no_counter_and_no_measured_moment_mean_no_energy() -> None:
    run = synthetic_run()
    assert energy(run) is None
    run = powered(run, 40)
    tags = run.trace.moments["tags"] | int(Tag.WARMUP)
    assert energy(replace(run, trace=replace(run.trace, moments={**run.trace.moments, "tags": tags}))) is None
    assert energy(replace(run, trace=Trace())) is None
