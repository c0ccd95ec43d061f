"""Slices from events that tell begin and end apart: those of a thread (B, E), and asynchronous ones by their ids (b, e)."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from core.imports.decoding import as_identity, as_text, exact_ns

BEGINS, ENDS = ("B",), ("E",)
ASYNC_BEGINS, ASYNC_ENDS, ASYNC_INSTANTS = ("b", "S"), ("e", "F"), ("n", "T", "p")
PAIRED = (*BEGINS, *ENDS, *ASYNC_BEGINS, *ASYNC_ENDS)

Fields = Mapping[str, Any]
Slice = tuple[dict[str, Any], int, int]
"""An event's fields as a slice, its start and its length in ns."""


def slices_of(events: Iterable[Fields], miss: Callable[[str, int], None]) -> list[Slice]:
    """All pairs, whatever order the file has them in; one without the other is told to ``miss``.

    An asynchronous slice may overlap any other, so that those of one category are spread over lanes of their own.
    """
    timed = []
    for one in events:
        at = exact_ns(one.get("ts"))
        if at is None:
            miss("events without a usable time", 1)
        else:
            timed.append((at, one))
    timed.sort(key=lambda each: each[0])  # stable: at one time the file's order counts
    threads = [(at, one) for at, one in timed if one["ph"] in (*BEGINS, *ENDS)]
    rest = [(at, one) for at, one in timed if one["ph"] in (*ASYNC_BEGINS, *ASYNC_ENDS)]
    found = _pairs(threads, BEGINS, lambda one: (as_identity(one.get("pid")), as_identity(one.get("tid"))), miss)
    return [slice_ for slice_, _ in found] + _on_lanes(_pairs(rest, ASYNC_BEGINS, _async_key, miss))


def _async_key(one: Fields) -> tuple[Hashable, ...]:
    local = one.get("id2")
    number = one.get("id", local)
    of_process = isinstance(local, dict) and "local" in local
    owner = as_identity(one.get("pid")) if of_process else ""
    return as_text(one.get("cat")), as_text(one.get("scope")), repr(number), owner


def _pairs(
    timed: Sequence[tuple[int, Fields]],
    begins: Sequence[str],
    key: Callable[[Fields], tuple[Hashable, ...]],
    miss: Callable[[str, int], None],
) -> list[tuple[Slice, tuple[Hashable, ...]]]:
    found = []
    begun: dict[tuple[Hashable, ...], list[tuple[int, Fields]]] = defaultdict(list)
    for at, one in timed:
        mine = key(one)
        if one["ph"] in begins:
            begun[mine].append((at, one))
        elif begun[mine]:
            start, first = begun[mine].pop()
            found.append((({**first, "ph": "X"}, start, at - start), mine))
        else:
            miss("ends without a begin", 1)
    miss("begins without an end", sum(map(len, begun.values())))
    return found


def _on_lanes(found: Sequence[tuple[Slice, tuple[Hashable, ...]]]) -> list[Slice]:
    """The asynchronous slices with a lane as their thread: one id after another where they do not overlap."""
    ids: dict[tuple[Hashable, ...], list[Slice]] = defaultdict(list)
    for one, key in found:
        ids[key].append(one)
    lanes: dict[tuple[Hashable, str], list[tuple[int, int]]] = defaultdict(list)  # by process and category: free from, number
    placed = []
    for slices in sorted(ids.values(), key=lambda many: min(start for _, start, _ in many)):
        first = slices[0][0]
        category = as_text(first.get("cat"))
        free = lanes[as_identity(first.get("pid")), category]
        begin, end = min(start for _, start, _ in slices), max(start + length for _, start, length in slices)
        number = heapq.heappop(free)[1] if free and free[0][0] <= begin else len(free)
        heapq.heappush(free, (end, number))
        placed += [({**fields, "tid": f"{category} {number} (async)"}, start, length) for fields, start, length in slices]
    return placed
