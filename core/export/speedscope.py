"""Exports runs for speedscope: moments with their layers as an evented profile, and each thread of the profiled moments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.export.base import exporters
from core.export.chrome_trace import file_of
from core.export.files import write_whole
from core.imports.modules import ROOT
from core.imports.nesting import in_reading_order, strictly_nested
from core.json_text import strict
from core.messages.reason import Reason
from core.records.run import Run
from profilers.trace import KINDS, PLACES, Array

SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_ON_DEVICE = [PLACES.index("kernel"), PLACES.index("copy")]


@exporters.register
class Speedscope:
    """One file per run."""

    id = "speedscope"
    title = "speedscope"
    suffix = ".speedscope.json"

    def check(self) -> Reason | None:
        return None

    def write(self, runs: Sequence[Run], path: Path) -> list[Path]:
        files = [file_of(path, run, self.suffix, several=len(runs) > 1) for run in runs]
        for run, file in zip(runs, files, strict=True):
            text = strict(document(run))
            write_whole(text.encode(), file)
        return files


def document(run: Run) -> dict[str, Any]:
    """The whole file as JSON values; times in microseconds from the run's start, to the nanosecond."""
    frames = _Frames()
    profiles = _moments(run, frames) + _lanes(run, frames)
    return {
        "$schema": SCHEMA,
        "exporter": f"tickscope@{run.facts.environment.get('tickscope') or 'unknown'}",
        "name": run.name,
        "activeProfileIndex": 0,
        "shared": {"frames": frames.listed()},
        "profiles": profiles,
    }


class _Frames:
    """Numbers frames in the order of their first use."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}

    def number(self, name: str, detail: str = "") -> int:
        return self._numbers.setdefault((name, detail), len(self._numbers))

    def listed(self) -> list[dict[str, Any]]:
        """``file`` holds a layer's class, which speedscope shows beside the name."""
        return [{"name": name, **({"file": detail} if detail else {})} for name, detail in self._numbers]


def _moments(run: Run, frames: _Frames) -> list[dict[str, Any]]:
    """Moments and the layers in them: one profile, and one more where slices do not nest."""
    moments, spans = run.trace.moments, run.trace.spans
    done = np.flatnonzero(moments["duration_ns"] >= 0)
    of_moment = np.array([frames.number(kind) for kind in KINDS])[moments["kind"][done]]
    of_layer = np.array([frames.number(layer.path or ROOT, layer.type) for layer in run.trace.layers] or [0])
    # The moments come first: a layer that begins and ends with its moment lies in it.
    frame = np.concatenate([of_moment, of_layer[spans["layer"]]])
    start = np.concatenate([moments["start_ns"][done], spans["start_ns"]])
    duration = np.concatenate([moments["duration_ns"][done], spans["duration_ns"]])
    return _profiles("moments and layers", frame, start, duration)


def _lanes(run: Run, frames: _Frames) -> list[dict[str, Any]]:
    operators = run.trace.operators
    device = np.isin(operators["place"], _ON_DEVICE)
    numbers = np.array([frames.number(name) for name in _used(run)] or [0])
    used = np.unique(operators["name"])
    frame = numbers[np.searchsorted(used, operators["name"])] if len(used) else np.zeros(0, np.int64)
    profiles = []
    for on_device in (False, True):
        for lane in np.unique(operators["lane"][device == on_device]).tolist():
            rows = (device == on_device) & (operators["lane"] == lane)
            title = f"stream {lane}" if on_device else f"thread {lane}"
            profiles += _profiles(title, frame[rows], operators["start_ns"][rows], operators["duration_ns"][rows])
    return profiles


def _used(run: Run) -> list[str]:
    return [run.trace.names[number] for number in np.unique(run.trace.operators["name"]).tolist()]


def _profiles(name: str, frame: Array, start: Array, duration: Array) -> list[dict[str, Any]]:
    start, duration = start.astype(np.int64), np.maximum(duration, 0).astype(np.int64)
    lane = np.zeros(len(start), np.int8)
    order = in_reading_order(lane, start, duration)
    frame, start, end = frame[order], start[order], (start + duration)[order]
    level, end = strictly_nested(lane, start, end)
    found = []
    for number in np.unique(level).tolist() or [0]:
        rows = level == number
        title = name if number == 0 else f"{name} (overlapping {number})"
        found.append(_profile(title, frame[rows], start[rows], end[rows]))
    return found


def _profile(name: str, frame: Array, start: Array, end: Array) -> dict[str, Any]:
    events: list[dict[str, Any]] = []
    open_slices: list[tuple[int, int]] = []
    for number, begins, ends in zip(frame.tolist(), start.tolist(), end.tolist(), strict=True):
        while open_slices and open_slices[-1][0] <= begins:
            at, opened = open_slices.pop()
            events.append({"type": "C", "frame": opened, "at": at / 1000})
        events.append({"type": "O", "frame": number, "at": begins / 1000})
        open_slices.append((ends, number))
    while open_slices:
        at, opened = open_slices.pop()
        events.append({"type": "C", "frame": opened, "at": at / 1000})
    return {
        "type": "evented",
        "name": name,
        "unit": "microseconds",
        "startValue": int(start.min()) / 1000 if len(start) else 0,
        "endValue": int(end.max()) / 1000 if len(end) else 0,
        "events": events,
    }
