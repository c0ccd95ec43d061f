"""Layer times of a run: per-moment sums of spans, and the layer table scaled to clean time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.analysis.counts import COUNTS, layer_counts, per_cycle, per_moment
from core.analysis.intervals import LEAST_VALUES
from core.analysis.select import counted, of_kind, tagged
from core.records.run import Run
from profilers.trace import KINDS, STAGES, Array, Layer, Tag

__all__ = ["Basis", "LayerTable", "MomentTimes", "Scale", "basis", "layer_rows", "moment_times", "per_moment", "scale"]


@dataclass(frozen=True)
class Scale:
    """How layer times of one kind become clean time: ``factor`` = median(clean) / median(traced) moment.

    ``clean_ns`` is the median clean moment (None: there is none, ``factor`` is 1 and ``to`` says "traced").
    ``moments`` masks the traced moments that the table is made of. ``provisional``: only warm-up was there.
    """

    kind: str
    factor: float
    clean_ns: float | None
    traced_ns: float
    moments: Array
    provisional: bool = False

    @property
    def to(self) -> str:
        return "traced" if self.clean_ns is None else "clean"


@dataclass(frozen=True)
class LayerTable:
    """One row per layer and kind. Times are those of a median moment, scaled to clean time; ``calls`` are per moment.

    ``self_ns`` of all layers sums to ``total_ns`` of the model, and so on inside each layer; with what lies outside of them it
    sums to the clean moment, as stages do (``moment_times``).

    ``share`` is the layer's own time over the moment's. ``scaled_to``: "clean", or "traced" where no clean moment was.

    The processor's counts are those of a median traced moment and are *not* scaled to clean time. None where a layer was not
    counted (only blocks and their like are); the model itself has the counts of whole moments.
    """

    row: list[int] = field(default_factory=list)  # the layer's number in the trace
    path: list[str] = field(default_factory=list)
    type: list[str] = field(default_factory=list)
    stage: list[str] = field(default_factory=list)
    kind: list[str] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    total_ns: list[float] = field(default_factory=list)
    self_ns: list[float] = field(default_factory=list)
    share: list[float] = field(default_factory=list)
    scaled_to: list[str] = field(default_factory=list)
    cycles: list[float | None] = field(default_factory=list)
    instructions: list[float | None] = field(default_factory=list)
    cache_misses: list[float | None] = field(default_factory=list)
    cpu_ns: list[float | None] = field(default_factory=list)
    ipc: list[float | None] = field(default_factory=list)  # instructions per cycle

    def __len__(self) -> int:
        return len(self.path)

    def table(self) -> dict[str, list[Any]]:
        """The columns for a CSV file."""
        return dict(vars(self))


def scale(run: Run, kind: str, provisional: bool = False, newest: int | None = None) -> Scale | None:
    """How the layer times of ``kind`` are scaled; None where no traced moment of that kind counts.

    ``provisional`` takes warm-up moments as long as there is nothing else, ``newest`` only that many traced moments (both for
    live charts).
    """
    moments = run.trace.moments
    where = of_kind(moments, kind)
    traced = counted(moments, where, Tag.TRACED)
    early = False
    if not traced.any() and provisional:
        traced, early = where & tagged(moments, Tag.TRACED), True
    if not traced.any():
        return None
    if newest is not None:
        traced[np.flatnonzero(traced)[:-newest]] = False
    duration = moments["duration_ns"]
    clean = counted(moments, where)
    if not clean.any() and early:
        clean = where & tagged(moments, Tag.CLEAN)
    traced_ns = float(np.median(duration[traced]))
    clean_ns = float(np.median(duration[clean])) if clean.any() else None
    factor = clean_ns / traced_ns if clean_ns is not None and traced_ns > 0 else 1.0
    return Scale(kind, factor, clean_ns, traced_ns, traced, early)


FEW = LEAST_VALUES
"""Fewer moments have no interval of their median: layers that lie close may stand in either order."""


@dataclass(frozen=True)
class Basis:
    """What the layer times of one kind rest on: so many traced moments, of which so many were perturbed."""

    moments: int
    perturbed: int

    @property
    def doubtful(self) -> bool:
        """Whether the order of layers may be chance."""
        return self.moments < FEW or self.perturbed == self.moments

    def __str__(self) -> str:
        """``of 12 traced moments``; ``of 1 traced moment, which was perturbed``."""
        plural = "" if self.moments == 1 else "s"
        told = f"of {self.moments} traced moment{plural}"
        if not self.perturbed:
            return told
        which = "which was" if self.moments == 1 else "all" if self.perturbed == self.moments else f"{self.perturbed} of them"
        return f"{told}, {which} perturbed"


def basis(run: Run, kind: str) -> Basis | None:
    """What the layer table of ``kind`` rests on; None where there is none."""
    how = scale(run, kind)
    if how is None:
        return None
    disturbed = tagged(run.trace.moments, Tag.PERTURBED) & how.moments
    return Basis(int(how.moments.sum()), int(disturbed.sum()))


@dataclass(frozen=True)
class MomentTimes:
    """Where the time of a median moment goes, in ns of clean time: ``own`` and ``total`` by layer, and what no layer has.

    ``own`` and ``outside`` sum to the moment. ``calls`` [layers, moments] are those of each traced moment.
    """

    own: Array
    total: Array
    outside: float
    calls: Array

    def stages(self, layers: Sequence[Layer]) -> Array:
        """Own time by stage, in order of ``STAGES``; what no layer has goes to "other"."""
        number = np.array([STAGES.index(layer.stage) for layer in layers], np.int64)
        found = np.bincount(number, self.own, minlength=len(STAGES))
        found[STAGES.index("other")] += self.outside
        return found


def moment_times(run: Run, how: Scale) -> MomentTimes | None:
    """The one scaling that layers and stages are told by; None where no traced moment has spans (compiled decode, say).

    Medians of parts do not sum to the median of the whole, so all parts are scaled alike until they do. The parts are the own
    times of layers and what lies outside of all of them: outside of the model, where that was timed. Own times inside it are
    without the readings of the processor's counters, which are our doing and no part of a clean moment.
    """
    trace = run.trace
    identity = np.arange(len(trace.layers))
    calls, durations, selves = per_moment(trace, how.moments, identity, len(identity), "", "duration_ns", "self_ns")
    if not calls.any():
        return None
    model = durations[0]  # zeros where the model itself was not timed (a compiled graph)
    rest = np.maximum(trace.moments["duration_ns"][how.moments] - np.maximum(selves.sum(axis=0), model), 0)
    own, outside = _expected(selves, calls), float(np.median(rest))
    together = float(own.sum())
    factor = how.traced_ns * how.factor / (together + outside) if together > 0 else how.factor
    own *= factor
    timed = together > 0 and bool(model.any())
    total = _with_what_they_call(run, own) if timed else _expected(durations, calls) * factor
    return MomentTimes(own, total, outside * factor, calls)


def layer_rows(run: Run, provisional: bool = False, newest: int | None = None) -> LayerTable:
    """The layer table of a run: every layer with spans, for every kind, in model order (``scale`` explains the switches)."""
    trace = run.trace
    table = LayerTable()
    for kind in KINDS:
        how = scale(run, kind, provisional, newest)
        if how is None:
            continue
        times = moment_times(run, how)
        if times is None:
            continue
        moment_ns = how.traced_ns * how.factor
        each = times.calls.mean(axis=1)
        counts = layer_counts(trace, how.moments, times.calls)
        for row in np.flatnonzero(each):
            layer = trace.layers[row]
            table.row.append(int(row))
            table.path.append(layer.path)
            table.type.append(layer.type)
            table.stage.append(layer.stage)
            table.kind.append(kind)
            table.calls.append(float(each[row]))
            table.total_ns.append(float(times.total[row]))
            table.self_ns.append(float(times.own[row]))
            table.share.append(float(times.own[row]) / moment_ns if moment_ns > 0 else 0.0)
            table.scaled_to.append(how.to)
            _append_counts(table, counts, int(row))
    return table


def _with_what_they_call(run: Run, own: Array) -> Array:
    """Each layer's own time with that of all the layers inside it."""
    total = own.copy()
    for row in range(len(total) - 1, 0, -1):  # a layer comes after the one that holds it
        parent = run.trace.layers[row].parent
        if 0 <= parent < row:
            total[parent] += total[row]
    return total


def _append_counts(table: LayerTable, counts: Mapping[str, Array], row: int) -> None:
    cycles, instructions, cache_misses, cpu_ns = (
        None if np.isnan(counts[name][row]) else float(counts[name][row]) for name in COUNTS
    )
    table.cycles.append(cycles)
    table.instructions.append(instructions)
    table.cache_misses.append(cache_misses)
    table.cpu_ns.append(cpu_ns)
    table.ipc.append(per_cycle(instructions, cycles))


def _expected(sums: Array, calls: Array) -> Array:
    """Median over the moments that called the layer, times how often one does.

    For a layer that every moment calls this is the median; a rarely chosen expert is not told to cost nothing.
    """
    called = calls > 0
    often = called.mean(axis=1)
    expected = np.zeros(len(often))
    always = np.flatnonzero(often == 1)
    expected[always] = np.median(sums[always], axis=1)
    for layer in np.flatnonzero((often > 0) & (often < 1)):
        expected[layer] = np.median(sums[layer, called[layer]]) * often[layer]
    return expected
