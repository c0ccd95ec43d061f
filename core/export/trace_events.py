"""The events of a run as JSON text for a Chrome trace: names of lanes, requests, moments, slices, counters and instants."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from core.export.trace_slices import (
    DEVICE,
    LAYERS,
    MOMENTS,
    PROCESS,
    REQUESTS,
    SPILL,
    Options,
    Slices,
    layer_slices,
    nested,
    operator_slices,
    quoted,
)
from core.json_text import strict
from core.records.run import Run
from profilers.trace import KINDS, MOMENT_COLUMNS, Array, Tag

_DETAILS = [name for name in MOMENT_COLUMNS if name not in ("request", "kind", "step", "tags", "start_ns", "duration_ns")]


def events(run: Run, options: Options) -> Iterator[bytes]:
    """All events, each chunk ending in a comma and a newline. The first is metadata: HTA never links event 0.

    Times are ns from the run's start, or from the earliest event where a damaged run has one before it.
    """
    shift = -origin_ns(run)
    layers = layer_slices(run, shift, options)
    operators = operator_slices(run, shift, options)
    yield from _lane_names(run, layers, operators)
    yield from _request_events(run, shift, options)
    yield from _moment_events(run, shift, options)
    if layers is not None:
        yield from layers.text()
    if operators is not None:
        yield from operators.text()
        yield from operators.flows()
    yield from _counter_events(run, shift, options)
    yield from _instant_events(run, shift, options)


def origin_ns(run: Run) -> int:
    """The time of the run that is 0 in the trace: 0, or that of the first event where one comes before it."""
    trace = run.trace
    columns = (trace.requests["start_ns"], trace.moments["start_ns"], trace.spans["start_ns"], trace.operators["start_ns"])
    found = [int(column.min()) for column in (*columns, trace.counters["time_ns"]) if len(column)]
    return min([0, *found, *(instant.time_ns for instant in trace.instants)])


def _line(**fields: Any) -> bytes:
    return strict(fields).encode() + b",\n"


# -- what there is little of -----------------------------------------------------------------------------------------------


def _lane_names(run: Run, layers: Slices | None, operators: Slices | None) -> Iterator[bytes]:
    target = run.facts.target
    yield _meta("process_name", PROCESS, 0, name="tickscope")
    yield _meta("process_labels", PROCESS, 0, labels="CPU")
    yield _meta("process_sort_index", PROCESS, 0, sort_index=0)
    lanes = [(PROCESS, REQUESTS, "requests", 1), (PROCESS, MOMENTS, "moments", 2), (PROCESS, LAYERS, "layers", 3)]
    for slices, title in ((layers, "layers"), (operators, "thread")):
        if slices is None:
            continue
        for pid, tid in _pairs(slices.pid, slices.tid):
            name = f"stream {tid}" if pid == DEVICE else title if title == "layers" else f"thread {tid}"
            known = any(one[:2] == (pid, tid) for one in lanes)
            if not known:
                more = " (overlapping)" if tid > SPILL and title == "layers" else ""
                lanes.append((pid, tid, name + more, 10 + len(lanes)))
    if any(pid == DEVICE for pid, *_ in lanes):
        yield _meta("process_name", DEVICE, 0, name="tickscope")
        yield _meta("process_labels", DEVICE, 0, labels=f"GPU 0 {target.name if target else ''}".strip())
        yield _meta("process_sort_index", DEVICE, 0, sort_index=1)
    for pid, tid, name, index in lanes:
        yield _meta("thread_name", pid, tid, name=name)
        yield _meta("thread_sort_index", pid, tid, sort_index=index)


def _pairs(pid: Array, tid: Array) -> list[tuple[int, int]]:
    """The different pairs, in order; only where one changes is looked at, a million rows have a handful."""
    changes = np.append(True, (pid[1:] != pid[:-1]) | (tid[1:] != tid[:-1]))
    return sorted(set(zip(pid[changes].tolist(), tid[changes].tolist(), strict=True)))


def _meta(kind: str, pid: int, tid: int, /, **args: Any) -> bytes:
    return _line(ph="M", name=kind, ts=0, pid=pid, tid=tid, args=args)


def _request_events(run: Run, shift: int, options: Options) -> Iterator[bytes]:
    requests = run.trace.requests
    done = np.flatnonzero(requests["end_ns"] >= requests["start_ns"])
    starts = requests["start_ns"][done] + shift
    length = requests["end_ns"][done] - requests["start_ns"][done]
    order, level, start, end = nested(np.zeros(len(done), np.int8), starts, length, options)
    for position, row in enumerate(done[order].tolist()):
        args: dict[str, Any] = {"tags": _tags(requests["tags"][row])}
        for name in ("input_tokens", "output_tokens", "tokenize_ns"):
            args |= {name: int(requests[name][row])} if requests[name][row] >= 0 else {}
        lane = REQUESTS + int(level[position]) * SPILL
        yield _slice(f"request {row}", lane, int(start[position]), int(end[position]), args)


def _moment_events(run: Run, shift: int, options: Options) -> Iterator[bytes]:
    """Each moment once, as a step whose name goes on with its own, and a last step that HTA may discard.

    HTA reads the beginning of the name (``re.match``), people the rest. With a slice for each every moment was there twice.
    """
    moments = run.trace.moments
    done = np.flatnonzero(moments["duration_ns"] >= 0)
    starts, length = moments["start_ns"][done] + shift, moments["duration_ns"][done]
    order, level, start, end = nested(np.zeros(len(done), np.int8), starts, length, options)
    for position, row in enumerate(done[order].tolist()):
        args: dict[str, Any] = {"moment": row, "request": int(moments["request"][row]), "tags": _tags(moments["tags"][row])}
        for name in _DETAILS:
            value = moments[name][row].item()
            if value >= 0 and math.isfinite(value):
                args[name] = value
        lane, times = MOMENTS + int(level[position]) * SPILL, (int(start[position]), int(end[position]))
        yield _slice(f"ProfilerStep#{row} {KINDS[moments['kind'][row]]} {moments['step'][row]}", lane, *times, args)
    last = (_last_ns(run) + shift) // 1000 * 1000 + 1000
    yield _slice(f"ProfilerStep#{len(moments['kind'])}", MOMENTS, last, last + 1000, {"closing": 1})


def _last_ns(run: Run) -> int:
    trace = run.trace
    slices = (trace.moments, trace.spans, trace.operators)
    ends = [(columns["start_ns"] + np.maximum(columns["duration_ns"], 0)).max(initial=0) for columns in slices]
    return int(max(trace.requests["end_ns"].max(initial=0), *ends))


def _slice(name: str, tid: int, start: int, end: int, args: Mapping[str, Any]) -> bytes:
    return _line(
        ph="X",
        cat="user_annotation",
        name=name,
        pid=PROCESS,
        tid=tid,
        ts=_exact(start),
        dur=_exact(end - start),
        args=args,
    )


def _exact(time_ns: int) -> int | float:
    whole, rest = divmod(time_ns, 1000)
    return time_ns / 1000 if rest else whole


def _stamp(time_ns: int, options: Options) -> int | float:
    return time_ns // 1000 if options.whole_us else _exact(time_ns)


def _tags(tags: int) -> str:
    return " ".join((tag.name or "").lower() for tag in Tag if int(tags) & tag.value)


def _counter_events(run: Run, shift: int, options: Options) -> Iterator[bytes]:
    counters = run.trace.counters
    finite = np.isfinite(counters["value"])
    keys: Sequence[tuple[bytes, bytes]] = [(quoted(track.name), quoted(track.unit)) for track in run.trace.tracks]
    found = []
    for track, time_ns, value in zip(
        counters["track"][finite].tolist(),
        counters["time_ns"][finite].tolist(),
        counters["value"][finite].tolist(),
        strict=True,
    ):
        name, unit = keys[track]
        number = repr(int(value) if value == int(value) else value).encode()
        stamp = repr(_stamp(time_ns + shift, options)).encode()
        found.append(
            b'{"ph":"C","cat":"counter","name":%b,"pid":%d,"tid":%d,"ts":%b,"args":{%b:%b}},\n'
            % (name, PROCESS, MOMENTS, stamp, unit, number)
        )
        if len(found) == 10_000:
            yield b"".join(found)
            found.clear()
    yield b"".join(found)


def _instant_events(run: Run, shift: int, options: Options) -> Iterator[bytes]:
    for instant in run.trace.instants:
        yield _line(
            ph="i",
            s="p",
            cat="instant",
            name=instant.label,
            pid=PROCESS,
            tid=MOMENTS,
            ts=_stamp(instant.time_ns + shift, options),
            args={"track": instant.track},
        )
