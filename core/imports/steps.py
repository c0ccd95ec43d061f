"""The moments of an imported trace: its profiler steps."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from core.imports.places import DROPPED, REGION
from core.imports.rows import Rows, empty, frozen, where
from profilers.trace import KINDS, MOMENT_COLUMNS, NOT_MEASURED, REQUEST_COLUMNS, Array

STEP = re.compile(r"ProfilerStep#(\d+)")


def moments_of(rows: Rows, origin: int, *, ours: bool) -> tuple[dict[str, Array], tuple[Array, Array]]:
    """One moment per step of the lane that has most of them, else one for all; also their starts and ends."""
    is_step = where(rows.names, STEP.fullmatch)[rows["name"]] & (rows.place == REGION)
    steps = np.flatnonzero(is_step)
    if len(steps):
        lanes, counts = np.unique(rows["lane"][steps], return_counts=True)
        steps = steps[rows["lane"][steps] == lanes[counts.argmax()]]
        steps = steps[:-1] if ours else steps
        starts, ends = rows["ts_ns"][steps], rows.end[steps]
        ends = np.minimum(ends, np.append(starts[1:], ends[-1:]))
        kinds, numbers = _kinds(rows, steps)
    else:
        told = np.flatnonzero(rows.place != DROPPED)
        starts, ends = np.zeros(min(1, len(told)), np.int64), rows.end[told].max(initial=0, keepdims=True)[: min(1, len(told))]
        kinds, numbers = [KINDS.index("forward")] * len(starts), [0] * len(starts)
    moments = empty(MOMENT_COLUMNS, len(starts))
    moments["request"][:] = 0
    moments["kind"][:] = kinds
    moments["step"][:] = numbers
    moments["tags"][:] = 0
    moments["start_ns"][:] = starts
    moments["duration_ns"][:] = ends - starts
    moments["paused_ns"][:] = 0
    return moments, (starts, ends)


def _kinds(rows: Rows, steps: Array) -> tuple[list[int], list[int]]:
    """Kind and number of each step; Tickscope's own traces say the kind in the slice right in the step."""
    kinds, numbers = [], []
    for position, step in enumerate(steps.tolist()):
        following = step + 1
        inside = following < len(rows.parent) and rows.parent[following] == step
        kind, _, number = rows.names[rows["name"][following]].rpartition(" ") if inside else ("", "", "")
        known = kind in KINDS and number.isdigit()
        kinds.append(KINDS.index(kind if known else "forward"))
        numbers.append(int(number) if known else position)
    return kinds, numbers


def moment_of(rows: Rows, edges: tuple[Array, Array]) -> Array:
    """The moment in which each slice begins, -1 for none."""
    starts, ends = edges
    if not len(starts):
        return np.full(len(rows.end), NOT_MEASURED, np.int32)
    found = np.searchsorted(starts, rows["ts_ns"], side="right") - 1
    inside = (found >= 0) & (rows["ts_ns"] < np.maximum(ends, starts + 1)[found])
    return np.where(inside, found, NOT_MEASURED).astype(np.int32)


def requests_of(moments: Mapping[str, Array]) -> dict[str, Array]:
    """All moments belong to one request."""
    found = empty(REQUEST_COLUMNS, min(1, len(moments["kind"])))
    if len(moments["kind"]):
        found["tags"][0] = moments["tags"][0]
        found["start_ns"][0] = moments["start_ns"][0]
        found["end_ns"][0] = (moments["start_ns"] + moments["duration_ns"]).max()
        found["input_tokens"][0] = found["output_tokens"][0] = 0
    return frozen(found)
