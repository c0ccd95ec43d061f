"""Writes small Chrome traces for tests, and reads back what an import made of them."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from core.imports.kineto import read_trace
from core.records.run import Run
from profilers.trace import PLACES

Event = dict[str, Any]


def slice_of(name: str, ts: float, dur: float, cat: str | None = "cpu_op", pid: Any = 10, tid: Any = 11, **args: Any) -> Event:
    """One slice; ``cat`` None writes none."""
    found = {"ph": "X", "cat": cat, "name": name, "pid": pid, "tid": tid, "ts": ts, "dur": dur, "args": args}
    return {key: value for key, value in found.items() if value not in (None, {})}


def launch(name: str, ts: float, correlation: int, pid: int = 10) -> Event:
    """A launch of a kernel, 5 µs long."""
    return slice_of(name, ts, 5, "cuda_runtime", pid, pid, correlation=correlation)


def kernel(name: str, ts: float, dur: float, correlation: int, device: int = 0) -> Event:
    """A kernel on stream 7 of a device."""
    return slice_of(name, ts, dur, "kernel", device, 7, stream=7, device=device, correlation=correlation)


def memory(ts: float, total: int | None, device_type: int = 1, device_id: int = 0, change: int = 1, **more: Any) -> Event:
    """An allocation; ``total`` None as torch 1.9 wrote it."""
    args = {"Bytes": change, "Device Id": device_id, "Device Type": device_type}
    args |= {} if total is None else {"Total Allocated": total}
    return {"ph": "i", "s": "t", "name": "[memory]", "pid": 10, "tid": 11, "ts": ts, "args": args, **more}


def imported(path: Path, events: list[Event] | str, *, header: Event | None = None, footer: Event | None = None) -> Run:
    """The run of a trace of these events (or of their text), with keys before and behind them."""
    text = events if isinstance(events, str) else json.dumps(events)
    before = "".join(f"{json.dumps(key)}: {json.dumps(value)}, " for key, value in (header or {}).items())
    behind = "".join(f", {json.dumps(key)}: {json.dumps(value)}" for key, value in (footer or {}).items())
    path.write_text(f'{{{before}"traceEvents": {text}{behind}}}', encoding="utf-8")
    return read_trace(path)


def told(run: Run) -> dict[str, str]:
    """What was left out, but for what every import says."""
    return {
        one.what: str(one.why) for one in run.facts.unavailable if not str(one.why).startswith("every moment of an imported")
    }


def sums(run: Run) -> dict[tuple[str, str], tuple[int, int, int]]:
    """By name and place of the operators: calls, µs in all, µs by themselves."""
    found: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    operators = run.trace.operators
    for row, name in enumerate(operators["name"].tolist()):
        one = found[run.trace.names[name], PLACES[operators["place"][row]]]
        one[0] += 1
        one[1] += int(operators["duration_ns"][row])
        one[2] += int(operators["self_ns"][row])
    return {key: (calls, total // 1000, own // 1000) for key, (calls, total, own) in found.items()}


def layer_of(run: Run, name: str) -> list[str | None]:
    """The layers that the operators of a name ran in, in the order of the rows."""
    operators = run.trace.operators
    rows = [row for row, number in enumerate(operators["name"].tolist()) if run.trace.names[number] == name]
    layers = [int(operators["layer"][row]) for row in rows]
    return [run.trace.layers[layer].path if layer >= 0 else None for layer in layers]


def layer_times(run: Run) -> dict[str, int]:
    """The µs of each layer's calls."""
    found: dict[str, int] = defaultdict(int)
    for layer, duration in zip(run.trace.spans["layer"].tolist(), run.trace.spans["duration_ns"].tolist(), strict=True):
        found[run.trace.layers[layer].path] += duration // 1000
    return dict(found)


def track_values(run: Run) -> dict[str, list[float]]:
    """The samples of each counter track."""
    counters = run.trace.counters
    return {track.name: counters["value"][counters["track"] == n].tolist() for n, track in enumerate(run.trace.tracks)}
