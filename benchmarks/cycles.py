"""Are the counts whole? Counts of all counted layers and of the gaps between them, over the process's own count meanwhile.

    python -m benchmarks.cycles [--pass int8_dynamic] [--new-tokens 64] [--repeats 5]

Runs the engine without a face. Where the processor has hardware counters, cycles are compared with a perf event of its own for
every thread of the whole process, Python's included. Elsewhere it is processor time, with the process's own clock.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from benchmarks.arguments import work_arguments
from core.analysis.counts import per_moment
from core.analysis.select import tagged
from core.config import ModelConfig, PassConfig, RunConfig, TargetConfig, WorkloadConfig
from core.program import Program
from core.records.run import Run
from profilers import cycle_counter
from profilers.cycle_counter import CycleCounter
from profilers.perf_events import EVENTS, Kernel
from profilers.trace import Tag


class ProcessCycles:
    """Cycles of all threads of this process, by perf events of its own."""

    name = "perf events of every thread of the process"

    def __init__(self) -> None:
        self._kernel = Kernel()
        self._open: dict[int, int] = {}

    def refresh(self) -> None:
        """One event for each thread that there is."""
        present = self._kernel.threads()
        for thread in set(self._open) - present:
            self._kernel.close(self._open.pop(thread))
        for thread in present - set(self._open):
            self._open[thread] = self._kernel.open_event(EVENTS[0], thread, -1)

    def __call__(self) -> float:
        total = 0.0
        for descriptor in self._open.values():
            _, enabled, running, count = np.frombuffer(self._kernel.read(descriptor, 32), np.int64).tolist()
            total += count * enabled / running if running else 0.0
        return total


class ProcessClock:
    """Processor time of this process by its one clock."""

    name = "clock of the process"

    def refresh(self) -> None:
        """Nothing to look for."""

    def __call__(self) -> float:
        return float(time.clock_gettime_ns(time.CLOCK_PROCESS_CPUTIME_ID))


class Beside(CycleCounter):
    """The engine's counter with another one right inside its readings. ``counts``: by the other, one for each moment."""

    def __init__(self, other: ProcessCycles | ProcessClock) -> None:
        super().__init__()
        self._other = other
        self.counts: list[float] = []
        self._begun = self._ended = 0.0

    def begin(self) -> None:
        self._other.refresh()
        super().begin()
        self._begun = self._other()

    def end(self) -> None:
        self._ended = self._other()
        super().end()

    def columns(self) -> dict[str, float]:
        self.counts.append(self._ended - self._begun)
        return super().columns()


def report(run: Run, quantity: str, other: str, counts: list[float]) -> None:
    """Print the ratios for traced and for clean moments; ``counts`` are the other's."""
    trace = run.trace
    moments = trace.moments
    outside = np.array(counts[: len(moments["tags"])])
    for name, tag in (("traced", Tag.TRACED), ("clean", Tag.CLEAN)):
        chosen = tagged(moments, tag) & ~tagged(moments, Tag.WARMUP | Tag.PROFILED) & (moments[quantity] >= 0)
        if not chosen.any():
            print(f"{name}: no moment was counted")
            continue
        whole = moments[quantity][chosen].astype(float)
        said = f"{name}: {chosen.sum()} moments, median {np.median(whole):,.0f} {quantity} a moment"
        if tag == Tag.TRACED:
            counted = {**trace.spans, quantity: np.maximum(trace.spans[quantity], 0)}
            group = np.zeros(len(trace.layers), np.int64)
            (layers,) = per_moment(replace(trace, spans=counted), chosen, group, 1, quantity)
            said += f"; counted layers {layers.sum() / whole.sum():.4f}, gaps {1 - layers.sum() / whole.sum():.4f} of it"
        print(said)
        low, middle, high = np.percentile(whole / outside[chosen], [5, 50, 95])
        ratio = whole.sum() / outside[chosen].sum()
        print(f"  layers and gaps over {other}: {ratio:.4f} in all; a moment {middle:.4f} ({low:.4f} to {high:.4f})")


def main() -> None:
    """Run and print."""
    asked = work_arguments().parse_args()
    hardware = "cycles" in CycleCounter().quantities
    other = ProcessCycles() if hardware else ProcessClock()
    quantity = "cycles" if hardware else "cpu_ns"
    opened: list[Beside] = []

    def open_probe() -> CycleCounter:
        opened.append(Beside(other))
        return opened[-1]

    cycle_counter.INSTRUMENT.open_probe = open_probe  # type: ignore[method-assign]
    program = Program(keep_session=False)
    program.start(
        RunConfig(
            ModelConfig(asked.model),
            tuple(PassConfig(name) for name in asked.passes),
            TargetConfig("cpu", asked.threads),
            WorkloadConfig(asked.prompt, chat=False, new_tokens=asked.new_tokens, repeats=asked.repeats, warmup=asked.warmup),
        )
    )
    while not program.join(0.2):
        pass
    run = program.live()
    program.close()
    assert run is not None, "the run did not begin"
    print(f"{run.config.model.spec}, {asked.threads} threads, {run.facts.status}; counters: {opened[-1].facts()['events']}")
    if not hardware:
        print(f"no cycles here: {opened[-1].facts()['missing']['cycles']} Comparing processor time instead.")
    report(run, quantity, other.name, opened[-1].counts)


if __name__ == "__main__":
    main()
