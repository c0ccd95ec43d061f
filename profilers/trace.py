"""The columns of one run, and the recorder that the engine and the instruments append to.

Every other part of Tickscope (session file, charts, statistics, exports) is a view of these columns.
Time is integer nanoseconds of ``time.perf_counter_ns`` relative to the run's start.
In columns -1 means "not measured"; everywhere else that is ``None``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FIRST, LATER, WHOLE = "first", "later", "whole"
PART_OF: Mapping[str, str] = {
    "prefill": FIRST,
    "prefill_chunk": FIRST,
    "decode": LATER,
    "verify": LATER,
    "forward": WHOLE,
    "encode": FIRST,
    "draft": LATER,
}
"""Moment kinds, each with the part of a request that it belongs to: up to its first token, after it, or all of it."""

KINDS = tuple(PART_OF)
"""Moment kinds; the ``kind`` column of ``moments`` is an index into this."""

STAGES = ("tokenize", "embed", "attention", "mlp", "norm", "head", "sample", "transfer", "other")
"""Stages in reading order. ``tokenize`` and ``sample`` are outside the model."""

NOT_MEASURED = -1


class Tag(IntFlag):
    """What is special about a moment or request. Tagged and filtered, never deleted."""

    COLD = 1
    WARMUP = 2
    CLEAN = 4
    TRACED = 8
    COMPILE = 16
    GC = 32
    PERTURBED = 64
    SETTLING = 128  # one of the two after a long visit of the gate's guests: caches and cores are still coming back
    PROFILED = 256  # ran under torch.profiler to name its operators; several times slower, never in any statistic of time


Array = npt.NDArray[Any]

REQUEST_COLUMNS = {
    "tags": "i4",
    "start_ns": "i8",  # t0, request accepted, clock running
    "tokenize_ns": "i8",  # duration of tokenisation, -1 for a token-count workload
    "end_ns": "i8",  # last token visible, -1 while running
    "input_tokens": "i4",  # per sequence
    "output_tokens": "i4",  # per sequence
}
MOMENT_COLUMNS = {  # what an instrument may add stays -1 where it is off or absent
    "request": "i4",  # row in requests
    "kind": "i1",  # index into KINDS
    "step": "i4",  # 0 for the request's first forward
    "tags": "i4",
    "start_ns": "i8",  # the forward pass of the whole model begins
    "duration_ns": "i8",  # of that forward pass
    "latency_ns": "i8",  # TTFT in the first, gap since the previous token (ITL) in later ones; without pauses; -1: no token
    "paused_ns": "i8",  # clock stopped by the gate and by instruments before this moment
    "tokens": "i4",  # new positions in this forward, summed over the batch
    "context": "i4",  # positions already in the cache, per sequence
    "kv_bytes": "i8",  # KV cache after this moment
    "drafted": "i4",  # tokens that were guessed and are checked by this forward (speculative decoding), per sequence
    "accepted": "i4",  # how many of them were right
    "device_ns": "i8",  # by the accelerator's own clock
    "cycles": "i8",  # of the processor, in user space, summed over the threads that compute
    "instructions": "i8",
    "cache_misses": "i8",  # of the last level
    "cpu_ns": "i8",  # time those threads were on a processor
    "counted_share": "f8",  # part of the time in which the hardware really counted; below 1 the counts are extrapolated
    "switches": "i4",  # times the process was taken off a processor against its will
    "steal_ns": "i8",  # processor time that the hypervisor gave to others, over all processors
    "others_ns": "i8",  # processor time that other processes took
    "stalled_ns": "i8",  # time in which some task waited for a processor (the kernel's pressure account)
    "peak_bytes": "i8",  # peak resident memory of the process in this moment
}
SPAN_COLUMNS = {
    "moment": "i4",
    "layer": "i4",
    "start_ns": "i8",
    "duration_ns": "i8",
    "self_ns": "i8",  # without the layers called from it
    "cycles": "i8",  # as in moments; of the layer with all it calls
    "instructions": "i8",
    "cache_misses": "i8",
    "cpu_ns": "i8",
}
OPERATOR_COLUMNS = {
    "moment": "i4",  # -1: in no moment (imported traces)
    "layer": "i4",  # the innermost layer around it, -1: none
    "name": "i4",  # row in names
    "shapes": "i4",  # row in names, -1: not recorded
    "place": "i1",  # index into PLACES
    "lane": "i4",  # native thread id, or stream of the device
    "start_ns": "i8",
    "duration_ns": "i8",
    "self_ns": "i8",  # without the operators called from it
    "flops": "i8",  # of it with all it calls, where torch knows a formula
    "bytes": "i8",  # read and written, where it is known (copies; kernels of the device)
    "allocated_bytes": "i8",  # net memory that it took by itself; negative memory given back is stored as 0
    "correlation": "i8",  # joins a launch and its kernel
}
PLACES = ("cpu", "runtime", "kernel", "copy", "python")
"""Where an operator row ran: on the processor, in the device's driver, on the device, as a copy, or a Python function."""

COUNTER_COLUMNS = {"track": "i2", "time_ns": "i8", "value": "f8"}


@dataclass(frozen=True)
class Layer:
    """One ``nn.Module`` of the model: its dotted path ("" is the model itself), class name, stage, parent's row (-1: none)."""

    path: str
    type: str
    stage: str
    parent: int


@dataclass(frozen=True)
class Track:
    """One counter track.

    ``unit``: ``bytes``, ``percent``, ``hertz``, ``ns``, ``per_second``, ``watt``, ``joule`` (counts up), ``celsius`` or
    ``count``.
    """

    name: str
    unit: str


@dataclass(frozen=True)
class Instant:
    """Something that happened at one time: pass applied, recompile, cancel, gate timeout."""

    track: str
    time_ns: int
    label: str


@dataclass(frozen=True)
class Output:
    """What one request produced. ``token_ids`` are those of the first sequence of the batch, without the prompt.

    ``text`` is None without a tokenizer. ``finish_reason``: ``length``, ``stop``, ``cancelled`` or ``forward`` (encoders).
    ``values``: for encoders, the first sequence's embedding or class scores.
    """

    request: int
    token_ids: tuple[int, ...]
    text: str | None
    finish_reason: str
    values: tuple[float, ...] = ()


class Columns:
    """Growing numpy columns with one row count, which is written last.

    A reader takes the count first and then views of the arrays: rows below the count never change, and a grown array is a
    new one, so no reader needs a lock. (``set`` is for the few cells that are known only later, such as a request's end.)
    """

    def __init__(self, dtypes: Mapping[str, str], capacity: int = 1024) -> None:
        self.count = 0
        self._arrays: dict[str, Array] = {name: np.empty(capacity, dtype) for name, dtype in dtypes.items()}
        self._capacity = capacity

    def append(self, **values: float) -> int:
        """Add one row; columns not named are not measured. Returns its number."""
        assert values.keys() <= self._arrays.keys(), values.keys() - self._arrays.keys()
        row = self.count
        if row == self._capacity:
            self._grow(row + 1)
        for name, array in self._arrays.items():
            array[row] = values.get(name, NOT_MEASURED)
        self.count = row + 1
        return row

    def extend(self, columns: Mapping[str, Array]) -> None:
        """Add rows; all columns of one length, those not named are not measured."""
        assert columns.keys() <= self._arrays.keys(), columns.keys() - self._arrays.keys()
        added = len(next(iter(columns.values())))
        end = self.count + added
        if end > self._capacity:
            self._grow(end)
        for name, array in self._arrays.items():
            array[self.count : end] = columns.get(name, NOT_MEASURED)
        self.count = end

    def set(self, row: int, **values: float) -> None:
        """Overwrite cells of an existing row."""
        for name, value in values.items():
            self._arrays[name][row] = value

    def view(self, start: int = 0) -> dict[str, Array]:
        """Read-only views of the rows from ``start`` on."""
        count = self.count
        views = {name: array[start:count] for name, array in self._arrays.items()}
        for array in views.values():
            array.flags.writeable = False
        return views

    def _grow(self, needed: int) -> None:
        self._capacity = max(needed, 2 * self._capacity)
        for name, old in list(self._arrays.items()):
            new = np.empty(self._capacity, old.dtype)
            new[: self.count] = old[: self.count]
            self._arrays[name] = new


class Pointer(NamedTuple):
    """A column whose values are rows of another table, from ``least`` on: -1, where that is none."""

    table: str
    column: str
    to: str
    least: int = 0


POINTERS = (
    Pointer("moments", "request", "requests", NOT_MEASURED),
    Pointer("spans", "moment", "moments"),
    Pointer("spans", "layer", "layers"),
    Pointer("operators", "moment", "moments", NOT_MEASURED),
    Pointer("operators", "layer", "layers", NOT_MEASURED),
    Pointer("operators", "name", "names"),
    Pointer("operators", "shapes", "names", NOT_MEASURED),
    Pointer("counters", "track", "tracks"),
)
"""What hangs together: whoever draws or sums rows takes it for granted, so it is looked at where rows come in."""


@dataclass(frozen=True)
class Trace:
    """A frozen view of everything recorded so far (or of everything a session file holds about a run)."""

    layers: tuple[Layer, ...] = ()
    requests: Mapping[str, Array] = field(default_factory=lambda: Columns(REQUEST_COLUMNS, 0).view())
    moments: Mapping[str, Array] = field(default_factory=lambda: Columns(MOMENT_COLUMNS, 0).view())
    spans: Mapping[str, Array] = field(default_factory=lambda: Columns(SPAN_COLUMNS, 0).view())
    counters: Mapping[str, Array] = field(default_factory=lambda: Columns(COUNTER_COLUMNS, 0).view())
    operators: Mapping[str, Array] = field(default_factory=lambda: Columns(OPERATOR_COLUMNS, 0).view())
    names: tuple[str, ...] = ()  # texts that operators point to
    tracks: tuple[Track, ...] = ()
    instants: tuple[Instant, ...] = ()
    outputs: tuple[Output, ...] = ()


class Recorder:
    """Collects one run. The worker appends requests, moments and spans; worker and sampler append counter samples."""

    def __init__(self) -> None:
        self.origin_ns = time.perf_counter_ns()
        self.requests = Columns(REQUEST_COLUMNS, 64)
        self.moments = Columns(MOMENT_COLUMNS)
        self.spans = Columns(SPAN_COLUMNS, 65536)
        self.counters = Columns(COUNTER_COLUMNS)
        self.operators = Columns(OPERATOR_COLUMNS)
        self.layers: tuple[Layer, ...] = ()
        self.live_text = ""
        self._tracks: list[Track] = []
        self._instants: list[Instant] = []
        self._outputs: list[Output] = []
        self._names: dict[str, int] = {}
        self._counter_lock = threading.Lock()

    def now_ns(self) -> int:
        """Nanoseconds since the run's start."""
        return time.perf_counter_ns() - self.origin_ns

    def set_layers(self, layers: Sequence[Layer]) -> None:
        """Name the rows that the ``layer`` column of spans points to. Once, before the first span."""
        self.layers = tuple(layers)

    def track(self, name: str, unit: str) -> int:
        """The number of the named counter track, made if new."""
        with self._counter_lock:
            for number, track in enumerate(self._tracks):
                if track.name == name:
                    return number
            self._tracks.append(Track(name, unit))
            return len(self._tracks) - 1

    def sample(self, track: int, value: float, time_ns: int | None = None) -> None:
        """Append one counter sample, now or at ``time_ns`` relative to the run's start."""
        stamp = self.now_ns() if time_ns is None else time_ns
        with self._counter_lock:
            self.counters.append(track=track, time_ns=stamp, value=value)

    def name(self, text: str) -> int:
        """The number of a text that operators point to, made if new (worker only)."""
        return self._names.setdefault(text, len(self._names))

    def instant(self, track: str, label: str) -> None:
        """Note that something happened now."""
        self._instants.append(Instant(track, self.now_ns(), label))

    def output(self, output: Output) -> None:
        """Add what a request produced."""
        self._outputs.append(output)

    def add(self, instants: Sequence[Instant], outputs: Sequence[Output]) -> None:
        """Take over what was noted and produced elsewhere (by the recording that this one mirrors)."""
        self._instants.extend(instants)
        self._outputs.extend(outputs)

    def snapshot(self) -> Trace:
        """Everything so far. Moments are viewed before spans: a moment's spans are appended before the moment itself."""
        requests = self.requests.view()
        moments = self.moments.view()
        spans = self.spans.view()
        counters = self.counters.view()
        operators = self.operators.view()  # before the names that they point to
        return Trace(
            layers=self.layers,
            requests=requests,
            moments=moments,
            spans=spans,
            counters=counters,
            operators=operators,
            names=tuple(self._names),
            tracks=tuple(self._tracks),
            instants=tuple(self._instants),
            outputs=tuple(self._outputs),
        )
