"""Whose operator was it: puts raw Kineto events on the moment's clock and gives each its layer, its own time and its memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from profilers import kineto
from profilers.kineto import Events
from profilers.trace import NOT_MEASURED, Array, Recorder

LAYER = "tickscope layer "
"""Begins the name of the range around a layer's call; its row follows."""

MARK = "tickscope mark"
"""The name of a range that began at a known time."""


def aligned(events: Events, marks: Sequence[tuple[int, int]]) -> tuple[Events, int]:
    """The events on the clock of ``perf_counter_ns`` instead of Unix time.

    Args:
        events: as recorded, with a mark for each of ``marks``.
        marks: readings of the clock just before and after each mark began; the first half at one end, the rest at the other.

    Returns:
        The events, and by how many ns their times may be off. The difference of the clocks is taken from the tightest mark at
        each end; in between it changes evenly.
    """
    theirs = np.sort(events.start_ns[_named(events, MARK)])
    assert len(theirs) == len(marks), (len(theirs), len(marks))
    before, after = np.array(marks, np.int64).T
    middle = (before + after) // 2
    half = len(marks) // 2
    first = int(np.argmin((after - before)[:half]))
    last = half + int(np.argmin((after - before)[half:]))
    ends = [int(theirs[first]), int(theirs[last])]
    offsets = [int(middle[first]) - ends[0], int(middle[last]) - ends[1]]
    since_first = events.start_ns - ends[0]  # small enough for a float
    drift = np.interp(since_first, [0, ends[1] - ends[0]], [0, offsets[1] - offsets[0]])
    shifted = events.start_ns + offsets[0] + drift.astype(np.int64)
    within = max(int(after[place] - before[place]) for place in (first, last)) // 2 + 1
    return replace(events, start_ns=shifted), within


def columns_of(events: Events, recorder: Recorder, start_ns: int, end_ns: int, within_ns: int = 0) -> dict[str, Array]:
    """The operators of one moment as columns of ``recorder.operators`` (without ``moment``).

    On the processor those that began in the moment; on a device those launched by one of these, whenever they ran. Times of the
    processor's are cut to the moment: the clocks agree only to ``within_ns``.
    """
    layers = _layers(events)
    inside = (events.start_ns >= start_ns - within_ns) & (events.start_ns < end_ns)
    named = ~_named(events, MARK) & (_label_rows(events) < 0)
    cpu = np.flatnonzero(events.on_cpu & inside & named)
    memory = np.flatnonzero((events.place == kineto.MEMORY) & inside)
    device, launchers = _launched(events, inside)
    rows = np.concatenate([cpu, device])
    texts = _texts(events, rows, recorder)
    measured = _nested(events, cpu, memory, start_ns, end_ns)
    of_device = {name: np.full(len(device), NOT_MEASURED) for name in measured}
    duration_ns = events.duration_ns[device]
    of_device |= {"start_ns": events.start_ns[device], "duration_ns": duration_ns, "self_ns": duration_ns}
    columns = {name: np.concatenate([measured[name], of_device[name]]) for name in measured}
    columns["start_ns"] -= recorder.origin_ns
    moved, joined = events.on_device & (events.nbytes > 0), (events.place != kineto.CPU) & (events.correlation > 0)
    return columns | {
        "layer": np.concatenate([layers[cpu], np.where(launchers >= 0, layers[launchers], NOT_MEASURED)]),
        "name": texts[events.name[rows]],
        "shapes": texts[events.shapes[rows]],
        "place": events.place[rows],
        "lane": events.lane[rows],
        "bytes": np.where(moved, events.nbytes, NOT_MEASURED)[rows],
        "correlation": np.where(joined, events.correlation, NOT_MEASURED)[rows],
    }


def _named(events: Events, name: str) -> Array:
    return events.name == (events.texts.index(name) if name in events.texts else NOT_MEASURED)


def _label_rows(events: Events) -> Array:
    """For each event the layer that it is the label of, -1 for all others."""
    rows = [int(text.removeprefix(LAYER)) if text.startswith(LAYER) else NOT_MEASURED for text in events.texts]
    return np.array(rows, np.int64)[events.name]


def _layers(events: Events) -> Array:
    """For each event the layer under way when it began: the innermost label around that time, else the model (0).

    Labels are of the thread that runs the model; what other threads did meanwhile, they did for the same layer.
    """
    rows = _label_rows(events)
    labels = np.flatnonzero(rows >= 0)
    begins = np.concatenate([events.start_ns[labels], events.start_ns])
    ends = np.concatenate([events.start_ns[labels] + events.duration_ns[labels], events.start_ns])
    around, _, _ = kineto.nest(np.zeros(len(begins), np.int64), begins, ends)  # the events as points, which contain nothing
    around = around[len(labels) :]
    return np.concatenate([rows[labels], [0]])[np.where(around >= 0, around, len(labels))]


def _launched(events: Events, inside: Array) -> tuple[Array, Array]:
    """The device's events that belong to the moment, and who launched each (-1: unknown).

    A kernel knows the operator that launched it (``linked``); where it does not, the driver call of the same ``correlation``.
    What nobody is known to have launched belongs to the moment by its own time.
    """
    device = np.flatnonzero(events.on_device)
    operators = np.flatnonzero(events.place == kineto.CPU)
    calls = np.flatnonzero(events.place == kineto.RUNTIME)
    by_link = _find(events.linked[device], events.correlation, operators)
    by_call = _find(events.correlation[device], events.correlation, calls)
    launchers = np.where(by_link >= 0, by_link, by_call)
    ours = inside[np.where(launchers >= 0, launchers, device)]
    return device[ours], launchers[ours]


def _find(wanted: Array, keys: Array, among: Array) -> Array:
    """For each wanted key the index among ``among`` that has it, -1 for none. Keys up to 0 mean nothing."""
    among = among[np.argsort(keys[among], kind="stable")]
    if not len(among):
        return np.full(len(wanted), NOT_MEASURED)
    at = np.minimum(np.searchsorted(keys[among], wanted), len(among) - 1)
    return np.where((keys[among][at] == wanted) & (wanted > 0), among[at], NOT_MEASURED)


def _nested(events: Events, cpu: Array, memory: Array, start_ns: int, end_ns: int) -> dict[str, Array]:
    """Times, operations and memory of the moment's events on the processor, from which of them calls which.

    Memory taken or given back belongs to the innermost operator around it on its thread; what Python gives back is nobody's.
    """
    both = np.concatenate([cpu, memory])
    begins = np.clip(events.start_ns[both], start_ns, end_ns)
    ends = np.clip(events.start_ns[both] + events.duration_ns[both], start_ns, end_ns)
    parents, ends, order = kineto.nest(events.lane[both], begins, ends)
    durations = ends - begins
    called = np.flatnonzero(parents >= 0)
    below = np.bincount(parents[called], durations[called], len(both)).astype(np.int64)
    of_memory = called[called >= len(cpu)]
    taken = np.bincount(parents[of_memory], events.nbytes[both[of_memory]], len(both)).astype(np.int64)
    count = slice(len(cpu))
    return {
        "start_ns": begins[count],
        "duration_ns": durations[count],
        "self_ns": (durations - below)[count],
        "flops": _with_called(events.flops[both], parents, order)[count],
        "allocated_bytes": np.maximum(taken, 0)[count],
    }


def _with_called(flops: Array, parents: Array, order: Array) -> Array:
    """An operator's own count, or the sum of those that it calls where it has none; -1 where these have none either."""
    own, callers = flops.tolist(), parents.tolist()
    below = [0] * len(own)
    for index in reversed(order.tolist()):
        own[index] = own[index] or below[index]
        if callers[index] >= 0:
            below[callers[index]] += own[index]
    counted = np.array(own, np.int64)
    return np.where(counted > 0, counted, NOT_MEASURED)


def _texts(events: Events, rows: Array, recorder: Recorder) -> Array:
    """For each of the events' texts its number in the recorder; -1 for those that no row needs, and at the end, for -1."""
    numbers = np.full(len(events.texts) + 1, NOT_MEASURED)
    for code in np.unique(np.concatenate([events.name[rows], events.shapes[rows]])).tolist():
        if code >= 0:
            numbers[code] = recorder.name(events.texts[code])
    return numbers
