"""The accelerator's clock against a fake device that runs behind the host. Not verified on hardware."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from core.targets.base import targets
from profilers.device_clock import BACKWARDS, DeviceLayerClock, DeviceProbe, TorchEvents
from profilers.trace import Recorder

US = 1000


class FakeDevice:
    """A queue of work with a clock of its own: marks are stamped only when ``synchronize`` lets the device catch up."""

    def __init__(self) -> None:
        self.queued_ns = 0  # device time at which all that is queued will be done
        self.waits = self.made = 0
        self.lost = ""  # from here on every call fails
        self.backwards: set[int] = set()  # marks (by number) stamped too early

    def work(self, microseconds: float) -> None:
        self.queued_ns += int(microseconds * US)

    def synchronize(self) -> None:
        self._alive()
        self.waits += 1

    def event(self) -> FakeEvent:
        self._alive()
        self.made += 1
        return FakeEvent(self)

    def _alive(self) -> None:
        if self.lost:
            raise RuntimeError(self.lost)


class FakeEvent:
    """As ``torch.Event`` with timing enabled: records, and tells the ms to a later one once the device was waited for."""

    def __init__(self, device: FakeDevice) -> None:
        self.device = device
        self.number = device.made
        self.time_ns, self.waits = 0, 0

    def record(self) -> None:
        self.device._alive()
        early = 50_000 * US if self.number in self.device.backwards else 0
        self.time_ns, self.waits = self.device.queued_ns - early, self.device.waits

    def elapsed_time(self, end: FakeEvent) -> float:
        self.device._alive()
        assert min(self.waits, end.waits) < self.device.waits, "not waited for"
        return (end.time_ns - self.time_ns) / 1e6


class Layer(torch.nn.Module):
    """Queues some work of its own and returns at once; so does what it calls."""

    def __init__(self, device: FakeDevice, microseconds: float, *below: torch.nn.Module) -> None:
        super().__init__()
        self.device, self.microseconds = device, microseconds
        self.below = torch.nn.ModuleList(below)

    def forward(self, x: Any) -> Any:
        for layer in self.below:
            x = layer(x)
        self.device.work(self.microseconds)
        return x


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture
def model(device: FakeDevice) -> Layer:
    return Layer(device, 0, Layer(device, 5, Layer(device, 100), Layer(device, 30)), Layer(device, 7))


def events(device: FakeDevice) -> TorchEvents:
    return TorchEvents(device.event, device.synchronize)


def traced(clock: DeviceLayerClock, model: Layer, recorder: Recorder) -> str | None:
    clock.install()
    start_ns = recorder.origin_ns + 1000
    model(1)
    clock.remove()
    return clock.collect(recorder, recorder.moments.count, start_ns, 200 * US)


def rows(model: Layer, recorder: Recorder) -> dict[str, tuple[int, int]]:
    names = [name for name, _ in model.named_modules()]
    spans = recorder.snapshot().spans
    return {
        names[layer]: (int(duration), int(own))
        for layer, duration, own in zip(spans["layer"], spans["duration_ns"], spans["self_ns"], strict=True)
    }


def test_layers_have_the_devices_time_and_one_wait_a_moment(device: FakeDevice, model: Layer) -> None:
    recorder, clock = Recorder(), DeviceLayerClock(model, events(device))
    assert traced(clock, model, recorder) is None
    assert rows(model, recorder) == {
        "below.0.below.0": (100 * US, 100 * US),
        "below.0.below.1": (30 * US, 30 * US),
        "below.0": (135 * US, 5 * US),
        "below.1": (7 * US, 7 * US),
        "": (200 * US, 58 * US),
    }
    assert device.waits == 1
    spans = recorder.snapshot().spans
    starts = dict(zip(spans["layer"].tolist(), spans["start_ns"].tolist(), strict=True))
    by_name = {name: starts[row] for row, (name, _) in enumerate(model.named_modules()) if row in starts}
    assert by_name["below.0"] == by_name["below.0.below.0"] > 0
    assert by_name["below.1"] - by_name["below.0"] == 135 * US
    assert by_name[""] == 1000


def test_events_are_used_again(device: FakeDevice, model: Layer) -> None:
    recorder, clock = Recorder(), DeviceLayerClock(model, events(device))
    for _ in range(4):
        traced(clock, model, recorder)
    assert device.made == 8  # two for each of four layers, in all four moments
    assert len(recorder.snapshot().spans["layer"]) == 4 * 5


def test_the_model_is_left_as_it_was(device: FakeDevice, model: Layer) -> None:
    before = [dict(module.__dict__) for module in model.modules()]
    traced(DeviceLayerClock(model, events(device)), model, Recorder())
    assert [dict(module.__dict__) for module in model.modules()] == before


@pytest.mark.parametrize("at", [0, 3, 8])
def test_a_device_that_vanishes_is_one_sentence_and_no_span(device: FakeDevice, model: Layer, at: int) -> None:
    recorder, pool = Recorder(), events(device)
    clock = DeviceLayerClock(model, pool)
    clock.install()
    plain, recorded = pool.record, []

    def record() -> Any:
        if len(recorded) == at:
            device.lost = "CUDA error: device lost\nCompile with TORCH_USE_CUDA_DSA."
        recorded.append(1)
        return plain()

    pool.record = record  # type: ignore[method-assign]
    if at == 8:  # all eight marks of the moment are set; the device goes when it is asked for them
        model(1)
        device.lost = "CUDA error: device lost"
    else:
        model(1)  # the model's own calls fail by themselves; the clock adds nothing of its own
    clock.remove()
    assert clock.collect(recorder, 0, recorder.origin_ns, 1) == "The accelerator's clock stopped: CUDA error: device lost."
    assert len(recorder.snapshot().spans["layer"]) == 0
    clock.install()
    assert "forward" not in model.below[0].__dict__
    assert clock.collect(recorder, 1, recorder.origin_ns, 1) == "The accelerator's clock stopped: CUDA error: device lost."


def test_a_clock_that_goes_backwards_measures_nothing_there(device: FakeDevice, model: Layer) -> None:
    recorder, clock = Recorder(), DeviceLayerClock(model, events(device))
    device.backwards = {3}  # the end of below.0.below.0
    assert traced(clock, model, recorder) == BACKWARDS
    found = rows(model, recorder)
    assert "below.0.below.0" not in found
    assert found["below.0"][0] == 135 * US
    assert all(duration >= 0 and own >= 0 for duration, own in found.values())


def test_a_moment_that_was_cut_short_leaves_nothing(device: FakeDevice, model: Layer) -> None:
    recorder, clock = Recorder(), DeviceLayerClock(model, events(device))
    clock.install()
    model.below[0](1)
    clock.remove()
    assert traced(clock, model, recorder) is None
    assert len(recorder.snapshot().spans["layer"]) == 5


def test_a_moment_without_layers_has_no_spans_and_no_complaint(device: FakeDevice, model: Layer) -> None:
    recorder, clock = Recorder(), DeviceLayerClock(model, events(device))
    clock.install()
    clock.remove()
    assert clock.collect(recorder, 0, recorder.origin_ns, 1) is None
    assert len(recorder.snapshot().spans["layer"]) == 0


def test_a_moment_has_its_device_time(device: FakeDevice) -> None:
    probe = DeviceProbe(events(device))
    for microseconds in (250, 80):
        probe.begin()
        device.work(microseconds)
        probe.end()
        assert probe.columns() == {"device_ns": microseconds * US}
    assert (device.made, device.waits) == (2, 2)
    assert probe.facts()["missing"] == {}
    probe.close()


def test_a_moments_clock_that_goes_backwards_or_stops_is_not_measured(device: FakeDevice) -> None:
    probe = DeviceProbe(events(device))
    device.backwards = {2}
    probe.begin()
    probe.end()
    assert probe.columns() == {}
    assert "backwards" in probe.facts()["missing"]["device_ns"]
    device.lost = "the device is lost."
    probe.begin()
    probe.end()
    assert probe.columns() == {}
    assert probe.facts()["missing"]["device_ns"] == "The accelerator's clock stopped: the device is lost."


@pytest.mark.parametrize("target_id", ["cuda", "xpu", "mps"])
def test_targets_give_events_of_their_device(device: FakeDevice, monkeypatch: pytest.MonkeyPatch, target_id: str) -> None:
    asked: list[dict[str, Any]] = []

    def make(**how: Any) -> FakeEvent:
        asked.append(how)
        return device.event()

    module = SimpleNamespace(synchronize=device.synchronize, event=SimpleNamespace(Event=make))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(Event=make, **{target_id: module}))
    found = targets.get(target_id).events()
    assert found is not None
    first = found.record()
    device.work(12)
    second = found.record()
    found.synchronize()
    assert found.elapsed_ns(first, second) == 12 * US
    expected = {"enable_timing": True} if target_id == "mps" else {"device": target_id, "enable_timing": True}
    assert asked == [expected] * 2


def test_the_cpu_has_no_clock_but_the_hosts() -> None:
    assert targets.get("cpu").events() is None


def test_self_times_add_up_to_the_model(device: FakeDevice, model: Layer) -> None:
    recorder, clock = Recorder(), DeviceLayerClock(model, events(device))
    traced(clock, model, recorder)
    assert int(np.sum(recorder.snapshot().spans["self_ns"])) == 200 * US
