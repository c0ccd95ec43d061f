"""What each chart shows of a run, as plain arrays: cheap enough to ask for again at every repaint of a live run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.analysis.layers import LayerTable, layer_rows, moment_times, scale
from core.analysis.outline_sums import OutlineSums
from core.analysis.select import counted, first_tokens, main_kind, of_kind, tagged, warming
from core.analysis.token_intervals import before_token
from core.analysis.tracks import MS, MemorySeries, Table, TrackSeries, allocated, allocated_table, machine, memory
from core.models.outline import Piece, counted_rows, outline
from core.records.run import Run
from profilers.trace import KINDS, STAGES, Array, Tag

__all__ = [
    "HEAT_UNITS",
    "HeatSeries",
    "LatencySeries",
    "LayerTable",
    "MemorySeries",
    "Piece",
    "StageSeries",
    "TrackSeries",
    "allocated",
    "allocated_table",
    "heat",
    "latency",
    "layer_rows",
    "machine",
    "memory",
    "outline",
    "stages",
]


NEWEST = 64
"""Traced moments of each kind that live stages and layer tables are made of: a median needs no more, and a pause is short."""

HEAT_UNITS = {"time": "ms", "cycles": "cycles", "ipc": "instructions per cycle", "cpu": "ms"}
"""What a heat map can show, and its unit; "cpu" is time on a processor, added up over the threads."""

_HEAT_COUNTS = {"time": (), "cycles": ("cycles",), "ipc": ("cycles", "instructions"), "cpu": ("cpu_ns",)}
_HEAT_COLUMNS = {"time": "ms", "cycles": "cycles", "ipc": "ipc", "cpu": "cpu_ms"}


@dataclass(frozen=True)
class LatencySeries:
    """One value per moment, in ms. ``latency_ms`` is NaN where a moment gave no token.

    ``clean_median_ms`` is the median latency (duration where there is none) of the clean moments of ``main_kind``.
    ``planned``: moments the whole run will have, 0 while unknown.
    """

    moment: Array
    duration_ms: Array
    latency_ms: Array
    kind: Array  # index into KINDS
    traced: Array
    perturbed: Array
    warmup: Array
    clean_median_ms: float | None
    main_kind: str
    planned: int

    def table(self) -> Table:
        return {
            "moment": self.moment,
            "kind": [KINDS[number] for number in self.kind],
            "duration_ms": self.duration_ms,
            "latency_ms": self.latency_ms,
            "traced": self.traced,
            "perturbed": self.perturbed,
            "warmup": self.warmup,
        }


@dataclass(frozen=True)
class HeatSeries:
    """What each outline row took in each traced moment: ``values`` [rows, moments] in ``unit``; NaN: not called or not counted.

    ``layer_rows`` are layer numbers (to select by), ``moments`` moment numbers. ``milliseconds`` is always the time.
    ``quantity`` is one of ``HEAT_UNITS``; ``quantities`` are those for which the run has data.
    """

    labels: list[str]
    layer_rows: Array
    moments: Array
    milliseconds: Array
    values: Array
    unit: str = "ms"
    quantity: str = "time"
    quantities: tuple[str, ...] = ("time",)

    def table(self) -> Table:
        name = _HEAT_COLUMNS[self.quantity]
        return {
            "layer": self.labels,
            **{f"moment_{number}_{name}": self.values[:, i] for i, number in enumerate(self.moments)},
        }


@dataclass(frozen=True)
class StageSeries:
    """Where the time of a median moment of ``kind`` goes, in order of ``STAGES``; shares add up to 1.

    Times of the model's stages are scaled to clean time (``scaled_to`` says if there was none).
    ``provisional``: still warming up. ``whole_blocks``: blocks were timed as wholes (compiled graphs), and are in "other".
    """

    kind: str
    stages: list[str]
    time_ms: Array
    share: Array
    scaled_to: str = "clean"
    provisional: bool = False
    whole_blocks: bool = False

    @property
    def titles(self) -> list[str]:
        """What the stages are called: encoders pool instead of choosing a token, and whole blocks are no "other"."""
        names = {"mlp": "MLP"}
        if self.kind == "forward":
            names["sample"] = "Pool"
        if self.whole_blocks:
            names["other"] = "Blocks"
        return [names.get(stage, stage.capitalize()) for stage in self.stages]

    def table(self) -> Table:
        return {"stage": self.stages, "kind": [self.kind] * len(self.stages), "time_ms": self.time_ms, "share": self.share}


def latency(run: Run) -> LatencySeries:
    """Latency and duration of every moment so far."""
    moments = run.trace.moments
    duration = moments["duration_ns"] / MS
    shown = np.where(moments["latency_ns"] >= 0, moments["latency_ns"] / MS, np.nan)
    kind = main_kind(moments)
    clean = counted(moments, of_kind(moments, kind))
    median = None
    if clean.any():
        median = float(np.median(np.where(np.isnan(shown[clean]), duration[clean], shown[clean])))
    return LatencySeries(
        moment=np.arange(len(duration)),
        duration_ms=duration,
        latency_ms=shown,
        kind=moments["kind"],
        traced=tagged(moments, Tag.TRACED),
        perturbed=tagged(moments, Tag.PERTURBED),
        warmup=warming(run),
        clean_median_ms=median,
        main_kind=kind,
        planned=run.facts.planned_moments,
    )


def heat(run: Run, max_rows: int = 64, quantity: str = "time", kept: OutlineSums | None = None) -> HeatSeries:
    """The layer × moment picture, over all traced moments (warm-up too). ``quantity``: one of ``HEAT_UNITS``.

    Nothing here is scaled to clean time: each cell is what was measured in that moment. ``kept`` are the sums of an earlier
    snapshot of the same run (``heat_sums``), so that only what came since is added up.
    """
    sums = (kept or heat_sums(quantity, max_rows)).of(run)
    moments = np.flatnonzero(tagged(run.trace.moments, Tag.TRACED))
    total = sums.total_ns[:, moments]
    seen = np.flatnonzero(total.any(axis=1))
    milliseconds = np.where(total[seen] > 0, total[seen] / MS, np.nan)
    values = milliseconds
    if quantity != "time":
        counts = {name: sums.counted(name)[:, moments] for name in _HEAT_COUNTS[quantity]}
        values = _heat_values(quantity, {name: found[seen] for name, found in counts.items()})
    return HeatSeries(
        labels=[sums.pieces[number].label for number in seen],
        layer_rows=np.array([sums.pieces[number].rows[0] for number in seen], np.int64),
        moments=moments,
        milliseconds=milliseconds,
        values=values,
        unit=HEAT_UNITS[quantity],
        quantity=quantity,
        quantities=tuple(name for name, needed in _HEAT_COUNTS.items() if set(needed) <= sums.has),
    )


def heat_sums(quantity: str = "time", max_rows: int = 64) -> OutlineSums:
    """The sums that ``heat`` is made of, to be kept between two pictures of a growing run."""
    return OutlineSums(max_rows, _HEAT_COUNTS[quantity])


def _heat_values(quantity: str, counts: dict[str, Array]) -> Array:
    if quantity == "cycles":
        return counts["cycles"]
    if quantity == "cpu":
        return counts["cpu_ns"] / MS
    cycles = counts["cycles"]
    return np.divide(counts["instructions"], cycles, out=np.full(cycles.shape, np.nan), where=cycles > 0)


def stages(run: Run, kind: str | None = None, newest: int | None = None) -> StageSeries:
    """Where a median moment's time goes; ``kind`` defaults to decode for generation and forward for encoders.

    A stage of the model is the sum of its layers' own times, as the layer table has them (``layers.moment_times``), so that the
    two agree; tokenisation and sampling lie outside of the moment and are added. Without spans of that kind there are no rows.
    ``newest`` looks at that many traced moments only, for long live runs.
    """
    moments = run.trace.moments
    kind = kind or main_kind(moments)
    how = scale(run, kind, provisional=True, newest=newest)
    times = None if how is None else moment_times(run, how)
    if how is None or times is None or not times.own.any():
        return StageSeries(kind, [], np.empty(0), np.empty(0))
    time_ns = times.stages(run.trace.layers)
    time_ns[STAGES.index("tokenize")], time_ns[STAGES.index("sample")] = _outside(run, kind)
    shown = np.flatnonzero(time_ns > 0)
    time_ns = time_ns[shown]
    return StageSeries(
        kind=kind,
        stages=[STAGES[number] for number in shown],
        time_ms=time_ns / MS,
        share=time_ns / time_ns.sum(),
        scaled_to=how.to,
        provisional=how.provisional,
        whole_blocks=_whole_blocks(run, how.moments),
    )


def _whole_blocks(run: Run, chosen: Array) -> bool:
    """Whether blocks were timed in the chosen moments and nothing inside them was."""
    layers, spans = run.trace.layers, run.trace.spans
    newest = int(np.flatnonzero(chosen)[-1])
    begin, end = np.searchsorted(spans["moment"], [newest, newest + 1])  # one moment tells, and spans are in their order
    timed = set(spans["layer"][begin:end].tolist())
    inside = {layers[row].parent for row in timed}
    parents = {layer.parent for layer in layers}
    return any(row in timed and row in parents and row not in inside for row in counted_rows(layers))


def _outside(run: Run, kind: str) -> tuple[float, float]:
    """Tokenisation and sampling of a median clean moment of ``kind``, ns: what its latency holds beside the model's passes."""
    moments, requests = run.trace.moments, run.trace.requests
    where = of_kind(moments, kind) & (moments["latency_ns"] >= 0) & (moments["request"] < len(requests["tags"]))
    chosen = counted(moments, where)
    if not chosen.any():
        chosen = where & tagged(moments, Tag.CLEAN)
    if not chosen.any():
        return 0.0, 0.0
    beside = moments["latency_ns"] - moments["duration_ns"]
    begins = first_tokens(moments)[chosen]
    tokenize = np.where(begins, np.maximum(requests["tokenize_ns"][moments["request"][chosen]], 0), 0)
    outside = beside[chosen] - tokenize
    outside = outside - before_token(moments, "duration_ns")[chosen]  # drafts, chunks, an encoder
    return float(np.median(tokenize)), max(0.0, float(np.median(outside)))
