"""Counter tracks for people: memory by kind adds up to what the system reports, and tracks have a title and a unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.analysis.tracks import machine, memory
from profilers.trace import Recorder
from tests.support.synthetic import MIB, synthetic_run


def test_what_was_there_before_the_model_is_the_frameworks() -> None:
    run = synthetic_run()
    found = memory(run)
    assert list(found.kinds) == ["other", "framework", "weights", "kv_cache", "activations"]
    assert found.kinds["framework"][0] == pytest.approx(300)
    assert found.kinds["other"][0] == pytest.approx(850 - 300 - 269_030_016 / MIB)
    names = [track.name for track in run.trace.tracks]
    resident = run.trace.counters["value"][run.trace.counters["track"] == names.index("rss")] / MIB
    assert np.allclose(sum(found.kinds.values()), resident)


def test_kinds_never_exceed_what_is_resident() -> None:
    run = synthetic_run()
    counters = {**run.trace.counters, "value": np.full(len(run.trace.counters["value"]), 100.0 * MIB)}
    found = memory(replace(run, trace=replace(run.trace, counters=counters)))
    assert np.allclose(sum(found.kinds.values()), 100)
    assert all((values >= 0).all() for values in found.kinds.values())


def test_without_the_memory_before_the_load_there_is_no_framework() -> None:
    run = synthetic_run()
    found = memory(replace(run, facts=replace(run.facts, rss_before_bytes=None)))
    assert list(found.kinds) == ["other", "weights", "kv_cache", "activations"]
    assert found.kinds["other"][0] == pytest.approx(850 - 269_030_016 / MIB)


def test_new_tracks_have_titles_and_units() -> None:
    recorder = Recorder()
    for name, unit in (("temperature", "celsius"), ("throttled", "count"), ("gpu_throttled", "count"), ("others", "percent")):
        recorder.sample(recorder.track(name, unit), 7.0, 5)
    for name, unit in (("gpu_power", "watt"), ("gpu_energy", "joule"), ("package_energy", "joule"), ("rss", "bytes")):
        track = recorder.track(name, unit)
        recorder.sample(track, 0.0, 0)
        recorder.sample(track, 10.0, 500_000_000)
    found = {track.name: track for track in machine(replace(synthetic_run(), trace=recorder.snapshot()))}
    assert {name: (track.title, track.unit) for name, track in found.items()} == {
        "temperature": ("CPU temperature", "°C"),
        "throttled": ("CPU throttled", "times"),
        "gpu_throttled": ("GPU throttled", "times"),
        "others": ("Others", "%"),
        "gpu_power": ("GPU power", "W"),  # as the driver tells it; not once more from the energy
        "package_power": ("CPU power", "W"),
    }
    assert found["package_power"].value.tolist() == [20.0]
