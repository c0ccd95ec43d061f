"""The instrumentation: the instruments of one run that see moments and layers, from what was asked and what there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from core.messages.reason import of_text
from core.models.outline import counted_rows
from core.pass_api.subject import Subject
from core.records.run import Unavailable
from core.targets.base import Target
from profilers.base import Instrument, MomentProbe, instruments
from profilers.cycle_counter import CycleCounter
from profilers.device_clock import DeviceLayerClock, DeviceProbe
from profilers.kernels import KernelProfiler
from profilers.layer_clock import LayerClock
from profilers.noise import NoiseProbe
from profilers.tick_op import TickClock
from profilers.trace import Layer, Recorder


class Clock(Protocol):
    """Times the layers of one moment: the layer clock, its accelerator's and compiled forms, and the operator profiler."""

    def install(self) -> None:
        """The clock is stopped: be there from now on."""
        ...

    def remove(self) -> None:
        """Leave no trace on the model."""
        ...

    def collect(self, recorder: Recorder, moment: int, start_ns: int, duration_ns: int) -> str | None:
        """Append what was seen of the moment just ended; a sentence where it could not be used."""
        ...


def _never(_columns: Mapping[str, float], _duration_ns: int) -> str | None:
    return None


@dataclass
class Instrumentation:
    """What ``Moments`` needs of the instruments. An empty one measures only the moments themselves."""

    clock: Clock | None = None
    counting_clock: Clock | None = None  # one that reads the processor's counters at blocks too
    ticks: TickClock | None = None  # inside compiled graphs
    counter: CycleCounter | None = None
    kernels: Clock | None = None
    graph_kernels: Clock | None = None  # in compiled graphs, where labels on layers would compile them anew
    probes: Sequence[tuple[str, MomentProbe]] = ()
    perturbed: Callable[[Mapping[str, float], int], str | None] = _never
    synchronize: Callable[[], None] | None = None  # an accelerator's, at both ends of every moment
    unavailable: list[Unavailable] = field(default_factory=list)

    def layers(self, *, compiled: bool, counting: bool) -> Clock | None:
        """The clock for a traced moment; ``counting``: with the processor's counters, which cost more than the clock itself."""
        if not compiled:
            return self.counting_clock if counting and self.counting_clock is not None else self.clock
        if self.ticks is not None:
            self.ticks.counter = self.counter if counting else None
        return self.ticks

    def begin(self) -> None:
        """The moment is about to start; the clock is stopped. The processor counters come last, nearest to it."""
        for _, probe in self.probes:
            probe.begin()
        if self.synchronize is not None:
            self.synchronize()

    def end(self) -> None:
        """The moment has just ended."""
        for _, probe in reversed(self.probes):
            probe.end()

    def columns(self) -> dict[str, float]:
        """What the probes add to the moment's row; the clock is stopped."""
        found: dict[str, float] = {}
        for _, probe in self.probes:
            found.update(probe.columns())
        return found

    def note(self, what: str, why: str) -> None:
        """Something was not measured; said once."""
        missing = Unavailable(what, of_text(why))
        if missing not in self.unavailable:
            self.unavailable.append(missing)

    def facts(self) -> dict[str, Any]:
        """What the probes tell about themselves, by instrument."""
        found = {name: probe.facts() for name, probe in self.probes}
        for profiler in (self.graph_kernels, self.kernels):
            if isinstance(profiler, KernelProfiler) and profiler.facts()["moments"]:
                found["kernels"] = {**found.get("kernels", {}), **profiler.facts()}
        return found

    def close(self) -> None:
        """Let go of all handles."""
        for _, probe in self.probes:
            probe.close()


def sampled(names: Sequence[str]) -> tuple[list[Instrument], list[Unavailable]]:
    """The instruments among ``names`` that the sampler reads, and why others cannot work here."""
    chosen, missing = [], []
    for name, instrument, why in _checked(names):
        if why is not None:
            missing.append(Unavailable(name, of_text(why)))
        elif instrument.period_s is not None:
            chosen.append(instrument)
    return chosen, missing


def watch(
    names: Sequence[str], subject: Subject, layers: Sequence[Layer], target: Target, framed: Sequence[Any] = ()
) -> Instrumentation:
    """Open the instruments among ``names`` that look at moments and layers. What cannot work here was told by ``sampled``.

    ``framed`` are parts of the model whose calls are moments of their own.
    """
    at_hand = {name: instrument for name, instrument, why in _checked(names) if why is None}
    probes = [(name, instrument.open_probe()) for name, instrument in at_hand.items() if hasattr(instrument, "open_probe")]
    probes.sort(key=lambda pair: pair[0] == "cycles")
    counter = next((probe for _, probe in probes if isinstance(probe, CycleCounter)), None)
    events = target.events()
    found = Instrumentation(probes=probes, counter=counter)
    if "layer_clock" in at_hand:
        found.clock = (
            DeviceLayerClock(subject.model, events, framed) if events is not None else LayerClock(subject.model, framed=framed)
        )
        if counter is not None and events is None:
            found.counting_clock = LayerClock(subject.model, counter, counted_rows(layers), framed)
        step, runtime = subject.execution.step, subject.execution.runtime
        found.ticks = None if step is None else step.ticks
        if runtime is not None:
            found.clock, found.counting_clock = runtime.clock, None
    if "kernels" in at_hand:
        found.kernels = KernelProfiler(subject.model, framed=framed)
        found.graph_kernels = KernelProfiler(subject.model, labels=False)
    found.perturbed = next((probe.perturbed for _, probe in probes if isinstance(probe, NoiseProbe)), _never)
    if events is not None:
        probes.append(("device_clock", DeviceProbe(events)))
        found.synchronize = target.synchronize
    return found


def _checked(names: Sequence[str]) -> list[tuple[str, Any, str | None]]:
    known = instruments()
    return [(name, known[name], known[name].check()) for name in names]
