"""Which slice lies in which: the call tree of millions of time slices, found without a loop over them."""

from __future__ import annotations

import numpy as np

from profilers.trace import Array

_SPILLS = 8
_PASSES = 24


def in_reading_order(lane: Array, start: Array, duration: Array) -> Array:
    """Row numbers sorted by lane, then start, then the longer one first, as a tree is written down."""
    later = (lane[1:] > lane[:-1]) | (
        (lane[1:] == lane[:-1]) & ((start[1:] > start[:-1]) | ((start[1:] == start[:-1]) & (duration[1:] <= duration[:-1])))
    )
    if later.all():  # most writers sort, and sorting a million rows anew takes a tenth of the whole import
        return np.arange(len(start))
    bits = int(start.max() - start.min()).bit_length()
    if int(lane.min()) < 0 or int(lane.max()).bit_length() + bits > 62:
        return np.asarray(np.lexsort((-duration, start, lane)))
    key = (lane.astype(np.int64) << bits) + (start - start.min())  # one sort instead of three
    order = np.argsort(key)
    same = key[order][1:] == key[order][:-1]
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    rows = order[tied]
    order[tied] = rows[np.lexsort((rows, -duration[rows], key[rows]))]
    return np.asarray(order)


def parents(lane: Array, start: Array, end: Array) -> Array:
    """The row of the innermost slice running when each begins, -1 for none; rows are ``in_reading_order``.

    Every row first points to the one before it. A row that has ended by then is passed over for the one that it points to
    itself, all rows at once, so that a thousand neighbours take ten steps (pointer doubling).
    """
    count = len(start)
    found: Array = np.arange(-1, count - 1, dtype=np.int32 if count < 2**31 else np.int64)
    if not count:
        return found
    first = np.concatenate([[True], lane[1:] != lane[:-1]])
    found[first] = -1
    found[1:][
        ~first[1:] & (start[1:] >= _ended_by(first, end)[:-1])
    ] = -1  # after all before it: spares the doubling in flat lanes
    active = np.flatnonzero(found >= 0)
    while len(active):
        above = np.asarray(found[active])
        ended = end[above] <= start[active]
        active, above = active[ended], above[ended]
        found[active] = found[above]
        active = active[found[active] >= 0]
    return found


def _ended_by(first: Array, end: Array) -> Array:
    """The latest end up to each row, in its lane."""
    starts = np.flatnonzero(first)
    found = np.empty(len(end), end.dtype)
    for begin, stop in zip(starts, np.append(starts[1:], len(end)), strict=True):
        np.maximum.accumulate(end[begin:stop], out=found[begin:stop])
    return found


def nearest(marked: Array, parent: Array) -> Array:
    """The innermost marked row that is each row itself or around it, -1 for none."""
    found = np.where(marked, np.arange(len(parent)), parent)
    active = np.flatnonzero(~marked & (parent >= 0))
    while len(active):
        active = active[~marked[found[active]]]
        found[active] = found[found[active]]
        active = active[found[active] >= 0]
    return found


def self_times(start: Array, end: Array, parent: Array) -> Array:
    """Each slice's time without that of the slices in it (of one that sticks out of it, only what is inside)."""
    has = np.flatnonzero(parent >= 0)
    above = parent[has]
    inside = np.minimum(end[has], end[above]) - start[has]
    within = np.bincount(above, weights=inside, minlength=len(start)).astype(np.int64)
    return np.maximum(end - start - within, 0)


def strictly_nested(lane: Array, start: Array, end: Array, tolerance_ns: int = 1_000) -> tuple[Array, Array]:
    """Levels and ends with which the slices of one lane and level nest strictly; rows are ``in_reading_order``.

    A slice that sticks out of its parent by at most ``tolerance_ns`` is cut at the parent's end (a clock's rounding); one that
    sticks out further goes to the next level, which is to be shown as a lane of its own (Perfetto drops or spills it).
    """
    level = np.zeros(len(start), np.int32)
    ends = end.astype(np.int64, copy=True)
    rows = np.arange(len(start))
    for number in range(_SPILLS):
        rows = _without_strays(rows, lane, start, ends, tolerance_ns, last=number == _SPILLS - 1)
        if not len(rows):
            break
        level[rows] = number + 1
    return level, ends


def _without_strays(rows: Array, lane: Array, start: Array, ends: Array, tolerance_ns: int, *, last: bool) -> Array:
    """Cut what sticks out a little and take out what sticks out more, until the rest nests; returns what was taken out."""
    taken = []
    at_pass = 0
    while len(rows):
        parent = parents(lane[rows], start[rows], ends[rows])
        has = np.flatnonzero(parent >= 0)
        out = ends[rows[has]] - ends[rows[parent[has]]]
        stray, little = has[out > tolerance_ns], has[(out > 0) & (out <= tolerance_ns)]
        at_pass += 1
        if last or at_pass > _PASSES:
            little = has[out > 0]
            stray = stray[:0]
        if not len(little) and not len(stray):
            break
        ends[rows[little]] = ends[rows[parent[little]]]
        if len(stray):
            taken.append(rows[stray])
            rows = np.delete(rows, stray)
    return np.sort(np.concatenate(taken)) if taken else rows[:0]
