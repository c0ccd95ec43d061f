"""Operators and kernels of a run: which ran in which layer, how long, and how much they computed, moved and allocated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from core.analysis.select import counted, kinds_present, main_kind, of_kind, tagged
from core.records.run import Run
from profilers.trace import KINDS, NOT_MEASURED, PLACES, Array, Tag, Trace

_ON_DEVICE = [PLACES.index("kernel"), PLACES.index("copy")]


@dataclass(frozen=True)
class OperatorRow:
    """One operator (of one shape) in one layer and kind of moment: all its calls in the median profiled moment.

    In an imported trace: all its calls in all moments of that kind. ``layer`` and ``stage`` None: in no layer known; ``kind``
    None: in no moment. ``total_ns`` and ``flops`` include the operators called from it, ``self_ns`` does not. ``share`` is
    ``self_ns`` over the time of those moments (without moments: over the time from first to last operator). None elsewhere:
    not known.
    """

    name: str
    place: str
    layer: str | None
    stage: str | None
    kind: str | None
    calls: int
    total_ns: int
    self_ns: int
    share: float
    flops: int | None
    bytes: int | None
    allocated_bytes: int | None
    shapes: str | None


@dataclass(frozen=True)
class LayerWork:
    """What the operators of one layer itself (not of the layers below it) did in the moment that ``OperatorRow`` describes.

    ``self_ns`` is time on the processor, ``device_ns`` that of its kernels and copies (None: it launched none).
    """

    path: str
    stage: str
    kind: str
    calls: int
    self_ns: int
    device_ns: int | None
    share: float
    flops: int | None
    bytes: int | None
    allocated_bytes: int | None


@dataclass(frozen=True)
class _Part:
    """The operators that one kind's rows are made of (indices), and the time that shares are of."""

    kind: str | None
    rows: Array
    duration_ns: int


def operator_rows(
    run: Run, layer_path: str | None = None, kind: str | None = None, *, by_layer: bool = True, by_shapes: bool = True
) -> list[OperatorRow]:
    """The operator table, the longest own time of each kind first.

    Args:
        run: live, stored or imported.
        layer_path: only this layer and those below it ("" is the whole model); None: operators in no layer too.
        kind: only moments of this kind.
        by_layer: one row per layer; else the layers are put together and ``layer`` and ``stage`` are None.
        by_shapes: one row per input shapes; else they are put together and ``shapes`` is None.
    """
    trace = run.trace
    found: list[OperatorRow] = []
    wanted = _below(trace, layer_path)
    for part in _parts(run, kind):
        rows = part.rows if wanted is None else part.rows[wanted[trace.operators["layer"][part.rows]]]
        found += _aggregated(trace, part, rows, by_layer=by_layer, by_shapes=by_shapes)
    return found


def layer_work(run: Run, kind: str | None = None) -> list[LayerWork]:
    """What each layer's own operators did, in the order of the layers; empty where no layer is known."""
    trace = run.trace
    operators, count = trace.operators, len(trace.layers)
    found = []
    for part in _parts(run, kind):
        rows = part.rows[operators["layer"][part.rows] >= 0]
        if part.kind is None or not len(rows):
            continue
        device = np.isin(operators["place"][rows], _ON_DEVICE)
        cpu = rows[~device]
        outer = _outermost(operators, cpu[operators["flops"][cpu] >= 0])
        calls = np.bincount(operators["layer"][rows], minlength=count)
        self_ns = _sums(operators, cpu, "self_ns", count)
        sums = {
            "device_ns": _sums(operators, rows[device], "self_ns", count),
            "flops": _sums(operators, outer, "flops", count),
            "bytes": _sums(operators, rows, "bytes", count),
            "allocated_bytes": _sums(operators, cpu, "allocated_bytes", count),
        }
        found += [
            LayerWork(
                layer.path,
                layer.stage,
                part.kind,
                int(calls[row]),
                self_ns[row] or 0,
                share=(self_ns[row] or 0) / part.duration_ns if part.duration_ns else 0.0,
                **{name: values[row] for name, values in sums.items()},
            )
            for row, layer in enumerate(trace.layers)
            if calls[row]
        ]
    return found


def layer_allocations(run: Run, kind: str | None = None) -> dict[str, int]:
    """Bytes that each layer's own operators allocated and kept until their end, in a median moment, by the layer's path.

    ``kind`` None: the kind that the run is about. Empty where no operators were recorded; a layer without one is absent.
    """
    work = layer_work(run, kind or main_kind(run.trace.moments))
    return {layer.path: layer.allocated_bytes for layer in work if layer.allocated_bytes is not None}


def slowdown(run: Run) -> dict[str, float] | None:
    """How many times longer than a clean moment a profiled one took (medians), by kind; None where nothing was profiled."""
    moments = run.trace.moments
    profiled = tagged(moments, Tag.PROFILED)
    if not profiled.any():
        return None
    found = {}
    for kind in kinds_present(moments):
        if kind == "draft":  # an assistant's are not profiled, only beside what is
            continue
        where = of_kind(moments, kind)
        slow, clean = where & profiled, counted(moments, where)
        if slow.any() and clean.any():
            found[kind] = float(np.median(moments["duration_ns"][slow]) / np.median(moments["duration_ns"][clean]))
    return found


def operator_columns(run: Run) -> dict[str, list[Any]]:
    """The whole operator table as columns for a CSV file; None where a value is not known."""
    rows = operator_rows(run)
    return {field.name: [getattr(row, field.name) for row in rows] for field in fields(OperatorRow)}


# -- which moments ---------------------------------------------------------------------------------------------------------


def _parts(run: Run, kind: str | None) -> list[_Part]:
    """For each kind the operators of the median profiled moment; without such moments, all operators by kind."""
    moments = run.trace.moments
    profiled = tagged(moments, Tag.PROFILED)
    parts = _of_median_moments(run.trace, profiled) if profiled.any() else _of_all_moments(run.trace)
    return [part for part in parts if kind is None or part.kind == kind]


def _of_median_moments(trace: Trace, profiled: Array) -> list[_Part]:
    """One moment stands for all, not medians of sums: rows then add up, and shapes that grow with the context stay."""
    moments, owner = trace.moments, trace.operators["moment"]
    seen = np.zeros(len(profiled), bool)
    seen[owner[(owner >= 0) & (owner < len(seen))]] = True
    calm = ~tagged(moments, Tag.COMPILE | Tag.GC)
    parts = []
    for kind in kinds_present(moments):
        usable = profiled & seen & of_kind(moments, kind)
        rows = np.flatnonzero(usable & calm if (usable & calm).any() else usable)
        if len(rows):
            duration = moments["duration_ns"][rows]
            chosen = int(np.argsort(duration, kind="stable")[(len(rows) - 1) // 2])
            parts.append(_Part(kind, np.flatnonzero(owner == rows[chosen]), int(duration[chosen])))
    return parts


def _of_all_moments(trace: Trace) -> list[_Part]:
    moments, operators = trace.moments, trace.operators
    owner = operators["moment"]
    known = owner < len(moments["kind"])  # a live run's newest operators come before their moment
    kinds = np.full(len(owner), NOT_MEASURED)
    inside = (owner >= 0) & known
    kinds[inside] = moments["kind"][owner[inside]]
    parts = []
    for kind in kinds_present(moments):
        rows = np.flatnonzero(kinds == KINDS.index(kind))
        if len(rows):
            parts.append(_Part(kind, rows, int(moments["duration_ns"][of_kind(moments, kind)].sum())))
    rest = np.flatnonzero((owner < 0) & known)
    if len(rest):
        starts = operators["start_ns"][rest]
        parts.append(_Part(None, rest, int((starts + operators["duration_ns"][rest]).max() - starts.min())))
    return parts


# -- sums ------------------------------------------------------------------------------------------------------------------


def _below(trace: Trace, path: str | None) -> Array | None:
    """Which layers are ``path`` or below it, and last, for -1, no; None: all, also no layer."""
    if path is None:
        return None
    found = [path in ("", layer.path) or layer.path.startswith(path + ".") for layer in trace.layers]
    return np.array([*found, False])


def _aggregated(trace: Trace, part: _Part, rows: Array, *, by_layer: bool, by_shapes: bool) -> list[OperatorRow]:
    operators = trace.operators
    keys = [operators["place"], operators["name"]]
    keys += [operators["layer"]] if by_layer else []
    keys += [operators["shapes"]] if by_shapes else []
    if not len(rows):
        return []
    _, first, group = np.unique(np.stack([key[rows] for key in keys]), axis=1, return_index=True, return_inverse=True)
    group, count = group.ravel(), len(first)
    calls = np.bincount(group, minlength=count)
    sums = {
        name: _grouped(operators[name][rows], group, count)
        for name in ("duration_ns", "self_ns", "flops", "bytes", "allocated_bytes")
    }
    found = []
    for number, row in enumerate(rows[first].tolist()):
        layer = trace.layers[operators["layer"][row]] if by_layer and operators["layer"][row] >= 0 else None
        shapes = int(operators["shapes"][row]) if by_shapes else NOT_MEASURED
        own = sums["self_ns"][number] or 0
        found.append(
            OperatorRow(
                name=trace.names[operators["name"][row]],
                place=PLACES[operators["place"][row]],
                layer=layer.path if layer else None,
                stage=layer.stage if layer else None,
                kind=part.kind,
                calls=int(calls[number]),
                total_ns=sums["duration_ns"][number] or 0,
                self_ns=own,
                share=own / part.duration_ns if part.duration_ns else 0.0,
                flops=sums["flops"][number],
                bytes=sums["bytes"][number],
                allocated_bytes=sums["allocated_bytes"][number],
                shapes=trace.names[shapes] if shapes >= 0 else None,
            )
        )
    return sorted(found, key=lambda row: -row.self_ns)


def _sums(operators: Mapping[str, Array], rows: Array, name: str, count: int) -> list[int | None]:
    return _grouped(operators[name][rows], operators["layer"][rows], count)


def _grouped(values: Array, groups: Array, count: int) -> list[int | None]:
    """The sum of what was measured in each group, None where nothing was."""
    measured = values >= 0
    sums = np.bincount(groups[measured], values[measured], count)  # in float64, exact to 9e15
    some = np.bincount(groups[measured], minlength=count)
    return [int(total) if number else None for total, number in zip(sums.tolist(), some.tolist(), strict=True)]


def _outermost(operators: Mapping[str, Array], rows: Array) -> Array:
    """Those rows that no other of them contains, within moment, thread and place: what they count is counted once."""
    if not len(rows):
        return rows
    starts = operators["start_ns"][rows]
    ends = starts + operators["duration_ns"][rows]
    lanes = np.stack([operators[name][rows] for name in ("moment", "lane", "place")])
    _, lane = np.unique(lanes, axis=1, return_inverse=True)
    apart = lane.ravel() * (ends.max() - starts.min() + 1)  # so that no end of one lane reaches into the next
    starts, ends = starts + apart, ends + apart
    order = np.lexsort((-ends, starts))
    latest = np.maximum.accumulate(ends[order])
    outer = np.ones(len(rows), bool)
    outer[1:] = starts[order][1:] >= latest[:-1]
    return np.sort(rows[order][outer])
