"""The moments of an imported trace: its profiler steps, of each process by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from core.imports.places import DROPPED, MOMENT, REGION, STEP
from core.imports.rows import Rows, empty, frozen, where
from core.imports.slices import Slices
from profilers.trace import KINDS, MOMENT_COLUMNS, NOT_MEASURED, REQUEST_COLUMNS, Array, Tag

MOST_PROCESSES = 256
"""That many ranks may be in one file, each with its own steps."""

LEAST_FOR_COLD = 3
"""With fewer steps nothing would be left to set the first apart from."""


@dataclass(frozen=True)
class Steps:
    """When the moments of one process began and ended; the first of them is row ``first`` of all moments."""

    first: int
    starts: Array
    ends: Array

    def of(self, times: Array) -> Array:
        """The moment that each time lies in, -1 for none."""
        if not len(self.starts):
            return np.full(len(times), NOT_MEASURED, np.int32)
        found = np.searchsorted(self.starts, times, side="right") - 1
        inside = (found >= 0) & (times < np.maximum(self.ends, self.starts + 1)[found])
        return np.where(inside, found + self.first, NOT_MEASURED).astype(np.int32)


def moments_of(rows: Rows, slices: Slices, *, ours: bool) -> tuple[dict[str, Array], dict[int, Steps]]:
    """One moment per step, process after process, else one for all; also the steps by process (-1: of all)."""
    steps = np.flatnonzero(where(rows.names, STEP.fullmatch)[rows["name"]] & (rows.place == REGION))
    by_process: dict[int, Steps] = {}
    kinds: list[int] = []
    numbers: list[int] = []
    processes = list(dict.fromkeys(rows.process[steps].tolist()))
    kept = np.isin(rows.process[steps], processes[:MOST_PROCESSES])
    slices.miss(f"steps of more than {MOST_PROCESSES} processes", int((~kept).sum()))
    for process in processes[:MOST_PROCESSES]:
        mine = steps[rows.process[steps] == process]
        lanes, counts = np.unique(rows["lane"][mine], return_counts=True)
        slices.miss("steps of other threads than the one with most of them", int(counts.sum() - counts.max()))
        mine = mine[rows["lane"][mine] == lanes[counts.argmax()]]
        mine = mine[:-1] if ours else mine
        starts, ends = rows["ts_ns"][mine], rows.end[mine]
        by_process[process] = Steps(len(kinds), starts, np.minimum(ends, np.append(starts[1:], ends[-1:])))
        each = _kinds(rows, mine)
        kinds += [kind for kind, _ in each]
        numbers += [number for _, number in each]
    if not len(steps):
        told = np.flatnonzero(rows.place != DROPPED)[:1]
        ends = rows.end[rows.place != DROPPED].max(initial=0, keepdims=True)[: len(told)]
        by_process[-1] = Steps(0, np.zeros(len(told), np.int64), ends)
        kinds, numbers = [KINDS.index("forward")] * len(told), [0] * len(told)
    moments = empty(MOMENT_COLUMNS, len(kinds))
    moments["kind"][:] = kinds
    moments["step"][:] = numbers
    moments["tags"][:] = 0
    for number, one in enumerate(by_process.values()):
        where_ = slice(one.first, one.first + len(one.starts))
        moments["request"][where_] = number
        moments["start_ns"][where_], moments["duration_ns"][where_] = one.starts, one.ends - one.starts
        if not ours and len(one.starts) >= LEAST_FOR_COLD:
            moments["tags"][one.first] = int(Tag.COLD)
    return moments, by_process


def _kinds(rows: Rows, steps: Array) -> list[tuple[int, int]]:
    """Kind and number of each step: Tickscope's own traces say it in its name, those of before in the slice right in it."""
    found = []
    for position, step in enumerate(steps.tolist()):
        following = step + 1
        inside = following < len(rows.parent) and rows.parent[following] == step
        own = STEP.fullmatch(rows.names[rows["name"][step]])
        before = MOMENT.fullmatch(rows.names[rows["name"][following]]) if inside else None
        kind, number = next((one.groups() for one in (own, before) if one is not None and one[1]), ("forward", position))
        found.append((KINDS.index(kind), int(number)))
    return found


def moment_of(rows: Rows, steps: Mapping[int, Steps]) -> Array:
    """The moment in which each slice begins, -1 for none: of the only process that has steps, else of its own."""
    if len(steps) == 1:
        return next(iter(steps.values())).of(rows["ts_ns"])
    found = np.full(len(rows.end), NOT_MEASURED, np.int32)
    for process, one in steps.items():
        mine = rows.process == process
        found[mine] = one.of(rows["ts_ns"][mine])
    return found


def requests_of(moments: Mapping[str, Array]) -> dict[str, Array]:
    """The moments of each process belong to one request."""
    first = np.unique(moments["request"], return_index=True)[1]
    found = empty(REQUEST_COLUMNS, len(first))
    found["tags"][:] = moments["tags"][first] & ~int(Tag.COLD)
    found["start_ns"][:] = moments["start_ns"][first]
    if len(first):
        found["end_ns"][:] = np.maximum.reduceat(moments["start_ns"] + moments["duration_ns"], first)
    return frozen(found)
