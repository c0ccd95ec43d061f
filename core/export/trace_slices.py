"""The slices of layers and operators for a Chrome trace: made to nest strictly, kernels tied to their launches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from core.export.json_rows import Micros, Part, Whole, Words, rows
from core.imports.modules import ROOT
from core.imports.nesting import in_reading_order, nearest, parents, strictly_nested
from core.records.run import Run
from profilers.trace import NOT_MEASURED, PLACES, Array

PROCESS, DEVICE = 1_000_000, 0
"""Made-up process number of the CPU's lanes, and the device's index as Kineto numbers GPU processes."""

REQUESTS, MOMENTS, LAYERS = 2_000_000_001, 2_000_000_011, 2_000_000_021
"""Threads of the program's own lanes; far from thread numbers of a system, and at most 2**32 - 1."""

SPILL = 1_000_000
"""Slices that do not nest go to this thread further on, as Kineto does with its waiting slices."""

_ON_DEVICE = (PLACES.index("kernel"), PLACES.index("copy"))


@dataclass(frozen=True)
class Options:
    """``whole_us``: whole microseconds and durations of at least 1 for older HTA; ``python``: Python functions too."""

    whole_us: bool = False
    python: bool = False


def quoted(text: str) -> bytes:
    """A text as JSON in plain ASCII: quotes, backslashes, control characters and half surrogates cannot break a reader."""
    return json.dumps(text).encode()


@dataclass
class Slices:
    """Slices ready to be written, in reading order: their lane and times, and the text before and after these."""

    pid: Array
    tid: Array
    start: Array
    end: Array
    before: list[Part]
    after: list[Part]
    whole_us: bool
    kernels: tuple[Array, Array] | None = None  # rows of launches and of what they launched

    def text(self) -> Iterator[bytes]:
        """Their ``X`` events."""
        duration = self.end - self.start
        parts: list[Part] = [
            b'{"ph":"X",',
            *self.before,
            Whole(self.pid, b',"pid":'),
            Whole(self.tid, b',"tid":'),
            b',"ts":',
            Micros(self.start, self.whole_us),
            b',"dur":',
            Micros(duration, self.whole_us),
            *self.after,
            b"},\n",
        ]
        return rows(parts, len(self.start))

    def flows(self) -> Iterator[bytes]:
        """Arrows from launches to kernels; both ends begin with their slice, so that they lie in it."""
        if self.kernels is None:
            return
        number = np.arange(1, len(self.kernels[0]) + 1)
        for phase, ends in ((b'{"ph":"s"', self.kernels[0]), (b'{"ph":"f","bp":"e"', self.kernels[1])):
            parts: list[Part] = [
                phase + b',"id":',
                Whole(number),
                b',"cat":"ac2g","name":"ac2g"',
                Whole(self.pid[ends], b',"pid":'),
                Whole(self.tid[ends], b',"tid":'),
                b',"ts":',
                Micros(self.start[ends], self.whole_us),
                b"},\n",
            ]
            yield from rows(parts, len(number))


def nested(lane: Array, start: Array, duration: Array, options: Options) -> tuple[Array, Array, Array, Array]:
    """Reading order, and in it the level, start and end of slices made to nest strictly."""
    duration = np.maximum(duration, 0)
    if options.whole_us:
        end = np.maximum((start + duration) // 1000, start // 1000 + 1) * 1000
        start = start // 1000 * 1000
        duration = end - start
    order = in_reading_order(lane, start, duration)
    lane, start, end = lane[order], start[order], (start + duration)[order]
    level, end = strictly_nested(lane, start, end, 0 if options.whole_us else 1_000)
    return order, level, start, end


def layer_slices(run: Run, shift: int, options: Options) -> Slices | None:
    """The layers' spans, with times ``shift`` ns later; None if there are none."""
    spans = run.trace.spans
    if not len(spans["layer"]):
        return None
    one_lane = np.zeros(len(spans["layer"]), np.int8)
    order, level, start, end = nested(one_lane, spans["start_ns"] + shift, spans["duration_ns"], options)
    names = []
    for layer in run.trace.layers:
        detail = b'"type":%b,"stage":%b' % (quoted(layer.type), quoted(layer.stage))
        names.append((quoted(layer.path or ROOT), detail))
    numbers = spans["layer"][order]
    after: list[Part] = [b',"args":{', Words(numbers, [detail for _, detail in names])]
    told = ("moment", "self_ns", "cycles", "instructions", "cache_misses", "cpu_ns")
    after += [Whole(spans[name][order], b',"%b":' % name.encode()) for name in told if (spans[name] >= 0).any()]
    return Slices(
        pid=np.full(len(order), PROCESS),
        tid=LAYERS + level.astype(np.int64) * SPILL,
        start=start,
        end=end,
        before=[b'"cat":"user_annotation","name":', Words(numbers, [name for name, _ in names])],
        after=[*after, b"}"],
        whole_us=options.whole_us,
    )


def operator_slices(run: Run, shift: int, options: Options) -> Slices | None:
    """Operators, driver calls, kernels and copies, each on its thread or stream; None if there are none."""
    found = run.trace.operators
    keep = np.flatnonzero((found["place"] != PLACES.index("python")) | options.python)
    if not len(keep):
        return None
    columns = {name: column[keep] for name, column in found.items()}
    device = np.isin(columns["place"], _ON_DEVICE)
    tid = columns["lane"].astype(np.int64)
    for where in (device, ~device):  # a thread 0 would be taken for its process's number, a stream 0 for none
        if where.any():
            tid[where] += max(0, 1 - int(tid[where].min()))
    pid = np.where(device, DEVICE, PROCESS)
    order, level, start, end = nested(tid * 2 + device, columns["start_ns"] + shift, columns["duration_ns"], options)
    columns = {name: column[order] for name, column in columns.items()}
    pid, tid, device = pid[order], tid[order], device[order]
    names = [quoted(name) for name in run.trace.names]
    correlation, links = _correlations(columns, device)
    after: list[Part] = [b',"args":{"External id":', Whole(_external_ids(columns, device, links, start, end, tid))]
    for name, values in (
        ("stream", np.where(device, tid, NOT_MEASURED)),
        ("device", np.where(device, DEVICE, NOT_MEASURED)),
        ("correlation", correlation),
        ("flops", columns["flops"]),
        ("bytes", columns["bytes"]),
        ("allocated_bytes", columns["allocated_bytes"]),
        ("self_ns", columns["self_ns"]),
        ("moment", columns["moment"]),
    ):
        if (values >= 0).any():
            after.append(Whole(values, b',"%b":' % name.encode()))
    if (columns["shapes"] >= 0).any():
        used = set(np.unique(columns["shapes"]).tolist())
        shapes = [b',"Input Dims":' + _as_json(name) if number in used else b"" for number, name in enumerate(run.trace.names)]
        after.append(Words(columns["shapes"], shapes))
    if (columns["layer"] >= 0).any():
        after.append(Words(columns["layer"], [b',"layer":' + quoted(layer.path or ROOT) for layer in run.trace.layers]))
    return Slices(
        pid=pid,
        tid=tid + level.astype(np.int64) * SPILL,
        start=start,
        end=end,
        before=[b'"cat":"', Words(_categories(run, columns), _CATEGORIES), b'","name":', Words(columns["name"], names)],
        after=[*after, b"}"],
        whole_us=options.whole_us,
        kernels=links if len(links[0]) else None,
    )


_CATEGORIES = (b"cpu_op", b"cuda_runtime", b"kernel", b"gpu_memcpy", b"python_function", b"gpu_memset", b"xpu_runtime")


def _categories(run: Run, columns: Mapping[str, Array]) -> Array:
    found = columns["place"].astype(np.int64)
    sets = np.array(["memset" in name.lower() for name in run.trace.names] or [False])
    found[(found == PLACES.index("copy")) & sets[columns["name"]]] = 5
    if run.facts.target is not None and run.facts.target.id == "xpu":
        found[found == PLACES.index("runtime")] = 6
    return found


def _as_json(text: str) -> bytes:
    """Shapes as the list that they are written as, or as a text if they are none."""
    try:
        return json.dumps(json.loads(text), allow_nan=False).encode()
    except (ValueError, RecursionError):
        return quoted(text)


def _correlations(columns: Mapping[str, Array], device: Array) -> tuple[Array, tuple[Array, Array]]:
    """One number per launch with what it launched (numbers of a run may repeat from moment to moment), and the pairs."""
    known = np.flatnonzero(columns["correlation"] >= 0)
    found = np.full(len(device), NOT_MEASURED, np.int64)
    none = np.zeros(0, np.int64)
    if not len(known):
        return found, (none, none)
    _, own = np.unique(columns["correlation"][known], return_inverse=True)
    _, number = np.unique((columns["moment"][known].astype(np.int64) + 1) * len(known) + own, return_inverse=True)
    found[known] = number + 1
    launches = known[columns["place"][known] == PLACES.index("runtime")]
    kernels = known[device[known]]
    _, first = np.unique(found[launches], return_index=True)
    launches = launches[first]
    if not len(launches):
        return found, (none, none)
    at = np.minimum(np.searchsorted(found[launches], found[kernels]), len(launches) - 1)
    same = found[launches[at]] == found[kernels]
    return found, (launches[at[same]], kernels[same])


def _external_ids(
    columns: Mapping[str, Array], device: Array, links: tuple[Array, Array], start: Array, end: Array, tid: Array
) -> Array:
    """The number of the operator that each launch, and so each kernel, was called from."""
    is_operator = columns["place"] == PLACES.index("cpu")
    inner = nearest(is_operator, parents(tid * 2 + device, start, end))
    found = np.where(inner >= 0, inner + 1, 0)
    found[links[1]] = found[links[0]]
    return found
