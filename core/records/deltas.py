"""What is new in a run's columns since somebody last took them: for the session file, and for a recorder in another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from profilers.trace import KINDS, NOT_MEASURED, PLACES, POINTERS, STAGES, Array, Instant, Layer, Output, Recorder, Trace, Track


@dataclass(frozen=True)
class Written:
    """How many rows of a run have been taken for good.

    The last moment and the requests after the last finished one may still change (the recorder sets an end, a latency or a
    tag afterwards), so they are taken again the next time and are not counted.
    """

    layers: int = 0
    requests: int = 0
    moments: int = 0
    spans: int = 0
    operators: int = 0
    names: int = 0
    counters: int = 0
    tracks: int = 0
    instants: int = 0
    outputs: int = 0


@dataclass(frozen=True)
class Delta:
    """Rows that are new or may have changed: those from ``first`` on. ``columns`` are by table, as in ``Trace``."""

    first: Written = field(default_factory=Written)
    columns: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    names: tuple[str, ...] = ()
    tracks: tuple[Track, ...] = ()
    instants: tuple[Instant, ...] = ()
    outputs: tuple[Output, ...] = ()


def since(trace: Trace, written: Written) -> tuple[Delta, Written]:
    """What ``trace`` has past ``written``, and how many rows are then taken for good.

    Spans and operators of a moment that is not closed yet wait for it, so that nobody ever holds half a moment.
    """
    moments = len(trace.moments["kind"])
    spans = max(int(np.searchsorted(trace.spans["moment"], moments)), written.spans)
    not_yet = trace.operators["moment"] >= moments
    operators = max(int(not_yet.argmax()) if not_yet.any() else len(not_yet), written.operators)
    ends = trace.requests["end_ns"]
    unfinished = np.flatnonzero(ends[written.requests :] == NOT_MEASURED)
    delta = Delta(
        first=written,
        columns={
            "requests": _part(trace.requests, written.requests),
            "moments": _part(trace.moments, written.moments),
            "spans": _part(trace.spans, written.spans, spans),
            "operators": _part(trace.operators, written.operators, operators),
            "counters": _part(trace.counters, written.counters),
        },
        layers=trace.layers[written.layers :],
        names=trace.names[written.names :],
        tracks=trace.tracks[written.tracks :],
        instants=trace.instants[written.instants :],
        outputs=trace.outputs[written.outputs :],
    )
    return delta, Written(
        layers=len(trace.layers),
        requests=written.requests + int(unfinished[0]) if len(unfinished) else len(ends),
        moments=max(0, moments - 1),
        spans=spans,
        operators=operators,
        names=len(trace.names),
        counters=len(trace.counters["time_ns"]),
        tracks=len(trace.tracks),
        instants=len(trace.instants),
        outputs=len(trace.outputs),
    )


def put_into(recorder: Recorder, delta: Delta) -> None:
    """Add a delta to a recorder that has everything before it: a mirror of the one it was taken from.

    In the order in which a recorder is filled, so that a snapshot taken meanwhile is whole: spans before their moment, names
    before the operators that point to them, tracks before their samples.

    Raises:
        ValueError: rows are missing between what the recorder has and what comes, or they point to rows that do not exist.
    """
    _check(recorder, delta)
    if delta.layers:
        recorder.set_layers((*recorder.layers[: delta.first.layers], *delta.layers))
    for number, text in enumerate(delta.names, delta.first.names):
        if recorder.name(text) != number:
            raise ValueError(f"name {number} is not the next one")
    for number, track in enumerate(delta.tracks, delta.first.tracks):
        if recorder.track(track.name, track.unit) != number:
            raise ValueError(f"track {number} is not the next one")
    for table in ("requests", "spans", "operators", "counters", "moments"):
        columns = delta.columns.get(table)
        if columns:
            _put(recorder, table, getattr(delta.first, table), columns)
    recorder.add(delta.instants, delta.outputs)


_SETS: Mapping[str, Mapping[str, int]] = {"moments": {"kind": len(KINDS)}, "operators": {"place": len(PLACES)}}


def _check(recorder: Recorder, delta: Delta) -> None:
    """Whoever draws or sums these rows takes what they point to for granted."""
    first = delta.first
    limits = {
        "layers": first.layers + len(delta.layers) if delta.layers else len(recorder.layers),
        "names": first.names + len(delta.names),
        "tracks": first.tracks + len(delta.tracks),
        "requests": max(recorder.requests.count, first.requests + _rows(delta, "requests")),
        "moments": max(recorder.moments.count, first.moments + _rows(delta, "moments")),
    }
    for one in POINTERS:
        _within(one.table, one.column, delta, limits[one.to], one.least)
    for table, sets in _SETS.items():
        for column, count in sets.items():
            _within(table, column, delta, count, 0)
    if np.any(np.diff(_column(delta, "spans", "moment")) < 0):  # they are searched by halving
        raise ValueError("spans that are not in the order of their moments")
    _check_lists(delta, limits["requests"])


def _check_lists(delta: Delta, requests: int) -> None:
    for row, layer in enumerate(delta.layers, delta.first.layers):
        if not -1 <= layer.parent < row:
            raise ValueError(f"layer {row} lies in layer {layer.parent}")
        if layer.stage not in STAGES:
            raise ValueError(f"layer {row} in a stage {layer.stage[:40]!r}")
    for output in delta.outputs:
        if not 0 <= output.request < requests:
            raise ValueError(f"an output of request {output.request}")


def _column(delta: Delta, table: str, column: str) -> Array:
    return delta.columns.get(table, {}).get(column, np.empty(0, np.int64))


def _rows(delta: Delta, table: str) -> int:
    return len(next(iter(delta.columns.get(table, {}).values()), ()))


def _within(table: str, column: str, delta: Delta, limit: int, least: int) -> None:
    values = _column(delta, table, column)
    if len(values) and not (least <= values.min() and values.max() < limit):
        raise ValueError(f"{table} with a {column} of {values.min()} to {values.max()}, of {limit}")


def _put(recorder: Recorder, table: str, first: int, columns: Mapping[str, Array]) -> None:
    rows = getattr(recorder, table)
    again = rows.count - first
    if again < 0:
        raise ValueError(f"{-again} {table} are missing")
    added = len(next(iter(columns.values())))
    for row in range(min(again, added)):
        rows.set(first + row, **{name: column[row] for name, column in columns.items()})
    if added > again:
        rows.extend({name: column[again:] for name, column in columns.items()})


def _part(columns: Mapping[str, Array], start: int, end: int | None = None) -> dict[str, Array]:
    return {name: column[start:end] for name, column in columns.items()}
