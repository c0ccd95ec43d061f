"""The engine's clock: times layers with the engine's own profiler, and names the kernels that it ran.

Traced moments run on a second copy of the graph, opened for them with its profiler on; clean ones never do. Some engines give
their times out later, several moments at once, so a moment's spans may be appended after the next moments were closed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from core.runtimes.nodes import Ran, layer_rows, nearest, span_columns
from profilers.trace import Recorder

if TYPE_CHECKING:
    import torch


class Observed(Protocol):
    """An engine with a profiler of its own."""

    def observe(self, on: bool) -> None:
        """From here on forward passes are profiled (or no longer). The clock is stopped."""
        ...

    def observed(self, *, everything: bool = False) -> list[Ran]:
        """The profiled passes that can be told now, in their order; each is told once. ``everything``: hold none back."""
        ...


@dataclass(frozen=True)
class _Waiting:
    recorder: Recorder
    moment: int
    start_ns: int
    duration_ns: int


class EngineClock:
    """Times the layers of one model that an engine runs; a clock as ``core.execution.instrumentation`` wants it.

    Args:
        model: whose layers.
        engine: what runs it.
        probe: makes small forward passes; the last one is that whose kernels are told.
    """

    def __init__(self, model: torch.nn.Module, engine: Observed, probe: Callable[[], object]) -> None:
        self._rows = layer_rows(model)
        self._engine = engine
        self._probe = probe
        self._waiting: list[_Waiting] = []

    def install(self) -> None:
        """The next forward pass is profiled."""
        self._engine.observe(True)

    def remove(self) -> None:
        """The next forward pass is a plain one."""
        self._engine.observe(False)

    def collect(self, recorder: Recorder, moment: int, start_ns: int, duration_ns: int) -> str | None:
        """Append the spans of those moments, this one or earlier ones, whose times are known by now.

        Args:
            recorder: where to; times become relative to its origin.
            moment: row the moment will have.
            start_ns: the moment's start, as ``perf_counter_ns``.
            duration_ns: the moment's length.
        """
        self._waiting.append(_Waiting(recorder, moment, start_ns, duration_ns))
        self._append(self._engine.observed())
        return None

    def census(self) -> dict[str, dict[str, int]]:
        """How often each kernel that multiplies matrices ran in one forward pass, by layer path. No moment is under way.

        Moments that still wait for their times get them first.
        """
        self._engine.observe(True)
        try:
            self._probe()
        finally:
            self._engine.observe(False)
        ran = self._engine.observed(everything=True)
        self._append(ran)
        self._waiting.clear()
        kernels: dict[str, Counter[str]] = {}
        for node in ran[-1].nodes if ran else ():
            if node.kernel is not None:
                kernels.setdefault(nearest(node.path, self._rows), Counter())[node.kernel] += 1
        return {path: dict(names) for path, names in kernels.items()}

    def _append(self, ran: list[Ran]) -> None:
        """Spans for the moments in which these passes began."""
        for one in ran:
            for waiting in self._waiting:
                if 0 <= one.start_ns - waiting.start_ns <= waiting.duration_ns:
                    recorder, origin_ns = waiting.recorder, waiting.recorder.origin_ns
                    span = (waiting.moment, waiting.start_ns, waiting.duration_ns, origin_ns)
                    recorder.spans.extend(span_columns(one, self._rows, *span))
                    self._waiting.remove(waiting)
                    break
