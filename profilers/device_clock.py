"""The accelerator's own clock: event pairs, resolved once at the moment's end. Not verified on hardware."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from profilers.forward_patch import Forward, ForwardPatch, Order
from profilers.layer_clock import forward_slots, parents_of
from profilers.trace import Recorder

if TYPE_CHECKING:
    import torch

BACKWARDS = "The accelerator's clock went backwards; the layers that this touched were not measured."


class DeviceEvents(Protocol):
    """Marks in a device's queue of work, which the device stamps by its own clock when it gets there."""

    def record(self) -> Any:
        """Put a mark behind all work queued so far. ``RuntimeError``: the device is gone."""
        ...

    def elapsed_ns(self, a: Any, b: Any) -> int:
        """Device time from mark ``a`` to mark ``b``, both passed (``synchronize``). ``RuntimeError``: the device is gone."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has done all that is queued. ``RuntimeError``: the device is gone."""
        ...

    def give_back(self, marks: Iterable[Any]) -> None:
        """These marks are no longer needed and may be recorded anew."""
        ...


class TorchEvents:
    """Events of torch: ``torch.Event`` for CUDA and XPU, ``torch.mps.event.Event`` for Metal, which resolve to about 0.5 µs.

    Making an event costs more than recording it, so they are used again.

    Args:
        make: makes one event with timing enabled.
        wait: synchronises the device.
    """

    def __init__(self, make: Callable[[], Any], wait: Callable[[], None]) -> None:
        self._make = make
        self._wait = wait
        self._free: list[Any] = []

    def record(self) -> Any:
        event = self._free.pop() if self._free else self._make()
        event.record()
        return event

    def elapsed_ns(self, a: Any, b: Any) -> int:
        return round(a.elapsed_time(b) * 1e6)  # torch counts in ms

    def synchronize(self) -> None:
        self._wait()

    def give_back(self, marks: Iterable[Any]) -> None:
        self._free.extend(marks)


class DeviceLayerClock:
    """Times the layers of one model on an accelerator; used by the engine as a ``LayerClock``.

    The device runs behind the host, so the host's clock would only see how long it takes to queue a layer. Marks are put into
    the queue instead, and read after one ``synchronize`` at the moment's end. The engine synchronises before a moment too, so
    that the device is idle when the first mark comes and its time can be taken as the host's.
    """

    def __init__(self, model: torch.nn.Module, events: DeviceEvents, framed: Sequence[torch.nn.Module] = ()) -> None:
        self._events = events
        self._log: list[tuple[int, int, Any, Any]] = []  # row, order of the start, marks: in the order of the ends
        self._started = 0
        self._first: tuple[int, Any] | None = None  # the first mark of the moment, and the host's time of it
        self._lost: str | None = None
        slots = forward_slots(model, framed)
        self._patch = ForwardPatch(Order.CLOCK, [(module, partial(self._timed, row)) for row, module in slots])

    def install(self) -> None:
        """Put the clock on every layer. Left off once the device is gone."""
        self._forget()
        if self._lost is None:
            self._patch.push()

    def remove(self) -> None:
        """Take the clock off every layer; each has again just what it had."""
        self._patch.pop()

    def collect(self, recorder: Recorder, moment: int, start_ns: int, duration_ns: int) -> str | None:
        """Append the spans of the traced moment just ended.

        Args:
            recorder: where to; times become relative to its origin.
            moment: row the moment will have.
            start_ns: the moment's start, as ``perf_counter_ns``.
            duration_ns: the moment's length by the host's clock, which becomes the span of the model itself.

        Returns:
            A sentence when the device is gone or its clock went backwards (such layers get no span), else None.
        """
        log, first = self._log, self._first
        starts, ends = np.empty((2, len(log)), np.int64)
        try:
            if log and first is not None and self._lost is None:
                self._events.synchronize()
                for index, (_row, _order, begun, ended) in enumerate(log):
                    starts[index] = self._events.elapsed_ns(first[1], begun) if begun is not first[1] else 0
                    ends[index] = self._events.elapsed_ns(first[1], ended)
        except RuntimeError as error:
            self._lose(error)
        if self._lost is not None or first is None:
            self._forget()
            return self._lost
        rows = np.array([entry[0] for entry in log])
        order = np.array([entry[1] for entry in log])
        self._forget()
        return _append_spans(recorder, moment, rows, order, (starts + first[0], ends + first[0]), (start_ns, duration_ns))

    def _timed(self, row: int, forward: Forward) -> Forward:
        @functools.wraps(forward)  # transformers looks at the signature of ``forward``
        def timed(*args: Any, **kwargs: Any) -> Any:
            order = self._started
            self._started += 1
            begun = self._mark()
            output = forward(*args, **kwargs)
            ended = self._mark()
            if begun is not None and ended is not None:
                self._log.append((row, order, begun, ended))
            return output

        return timed

    def _mark(self) -> Any:
        """A mark, or None once the device is gone: the failure that counts is the model's own, with its own words."""
        if self._lost is not None:
            return None
        try:
            mark = self._events.record()
        except RuntimeError as error:
            self._lose(error)
            return None
        if self._first is None:
            self._first = (time.perf_counter_ns(), mark)
        return mark

    def _lose(self, error: RuntimeError) -> None:
        self._lost = f"The accelerator's clock stopped: {_first_line(error)}."

    def _forget(self) -> None:
        self._events.give_back(mark for entry in self._log for mark in entry[2:])
        self._log.clear()
        self._started, self._first = 0, None


def _append_spans(
    recorder: Recorder, moment: int, rows: Any, order: Any, times: tuple[Any, Any], whole: tuple[int, int]
) -> str | None:
    """Spans with their self times, the model's own last; ``rows`` are in the order of the ends."""
    starts, ends = times
    sound = ends >= starts
    rows, order = np.append(rows[sound], 0), np.append(order[sound], -1)
    starts = np.append(starts[sound], whole[0])
    durations = np.append((ends - times[0])[sound], whole[1])
    parents = parents_of(order)
    below = np.bincount(parents[:-1], weights=durations[:-1], minlength=len(rows)).astype(np.int64)
    recorder.spans.extend(
        {
            "moment": np.full(len(rows), moment),
            "layer": rows,
            "start_ns": starts - recorder.origin_ns,
            "duration_ns": durations,
            "self_ns": np.maximum(0, durations - below),  # marks are rounded, so a layer can seem shorter than those within it
        }
    )
    return None if sound.all() else BACKWARDS


def _first_line(error: RuntimeError) -> str:
    return (str(error).strip() or "the device is gone").splitlines()[0].rstrip(".")


class DeviceProbe:
    """The length of every moment by the accelerator's clock (``device_ns``)."""

    def __init__(self, events: DeviceEvents) -> None:
        self._events = events
        self._marks: list[Any] = []
        self._missing: dict[str, str] = {}

    def begin(self) -> None:
        self._give_back()
        self._mark()

    def end(self) -> None:
        self._mark()

    def columns(self) -> dict[str, float]:
        if len(self._marks) != 2:
            return {}
        try:
            self._events.synchronize()
            elapsed_ns = self._events.elapsed_ns(*self._marks)
        except RuntimeError as error:
            self._missing["device_ns"] = f"The accelerator's clock stopped: {_first_line(error)}."
            return {}
        self._give_back()
        if elapsed_ns < 0:
            self._missing["device_ns"] = "The accelerator's clock went backwards; such moments have no device time."
            return {}
        return {"device_ns": elapsed_ns}

    def facts(self) -> dict[str, Any]:
        return {"source": "events of the device, not verified on hardware", "missing": dict(self._missing)}

    def close(self) -> None:
        self._give_back()

    def _mark(self) -> None:
        try:
            self._marks.append(self._events.record())
        except RuntimeError as error:
            self._missing["device_ns"] = f"The accelerator's clock stopped: {_first_line(error)}."

    def _give_back(self) -> None:
        self._events.give_back(self._marks)
        self._marks = []
