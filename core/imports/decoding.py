"""Decodes single events of a Chrome trace, as far as they can be understood: also those that other tools damaged."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from profilers.trace import NOT_MEASURED

INT_MAX = 2**63 - 1
_LENIENT = json.JSONDecoder(strict=False)


class Arguments(msgspec.Struct, gc=False):
    """What an event's ``args`` may hold that has a column here; the rest is not read."""

    correlation: int = NOT_MEASURED
    stream: int = NOT_MEASURED
    bytes: int = NOT_MEASURED
    flops: int = NOT_MEASURED
    input_dims: msgspec.Raw = msgspec.field(name="Input Dims", default=msgspec.Raw())  # "or None" would admit null alone
    allocated: int = msgspec.field(name="Bytes", default=0)
    total_allocated: int = msgspec.field(name="Total Allocated", default=NOT_MEASURED)
    device_type: int = msgspec.field(name="Device Type", default=0)
    stage: str = ""
    type: str = ""


class Event(msgspec.Struct, gc=False):
    """One event; a missing time is NaN."""

    ph: str = "X"
    cat: str = ""
    name: str = ""
    pid: int | str = 0
    tid: int | str = 0
    ts: float = math.nan
    dur: float = math.nan
    args: Arguments | None = None


def as_they_are(text: bytes) -> Iterable[dict[str, Any]]:
    """The events of a piece with everything that they hold."""
    try:
        found = msgspec.json.decode(b"[%b]" % text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        found = _LENIENT.decode(f"[{text.decode('utf-8', 'replace')}]")  # each was decoded so before
    return [one for one in found if isinstance(one, dict)]


def lenient(text: bytes) -> Event | None:
    """An event as far as it can be understood: NaN, control characters and values of wrong types are passed over."""
    try:
        found = _LENIENT.decode(text.decode("utf-8", "replace"))
    except (json.JSONDecodeError, RecursionError):
        return None
    return event_from(found) if isinstance(found, dict) and "ph" in found else None


def event_from(found: dict[str, Any]) -> Event:
    """An event from its fields, whatever types they have."""
    arguments = found.get("args")
    arguments = arguments if isinstance(arguments, dict) else {}
    dims = arguments.get("Input Dims")
    return Event(
        ph=str(found["ph"]),
        cat=as_text(found.get("cat")),
        name=as_text(found.get("name")),
        pid=as_identity(found.get("pid")),
        tid=as_identity(found.get("tid")),
        ts=as_number(found.get("ts")),
        dur=as_number(found.get("dur")),
        args=Arguments(
            correlation=as_whole(arguments.get("correlation"), NOT_MEASURED),
            stream=as_whole(arguments.get("stream"), NOT_MEASURED),
            bytes=as_whole(arguments.get("bytes"), NOT_MEASURED),
            flops=as_whole(arguments.get("flops"), NOT_MEASURED),
            input_dims=msgspec.Raw() if dims is None else msgspec.Raw(json.dumps(dims).encode()),
            allocated=as_whole(arguments.get("Bytes"), 0),
            total_allocated=as_whole(arguments.get("Total Allocated"), NOT_MEASURED),
            device_type=as_whole(arguments.get("Device Type"), 0),
            stage=as_text(arguments.get("stage")),
            type=as_text(arguments.get("type")),
        ),
    )


def as_text(value: Any) -> str:
    """A name; "" for none."""
    return value if isinstance(value, str) else "" if value is None else str(value)


def as_identity(value: Any) -> int | str:
    """The number or name of a process or thread."""
    return value if isinstance(value, (int, str)) and not isinstance(value, bool) else str(value)


def as_number(value: Any) -> float:
    """A number, NaN for what is none."""
    if isinstance(value, str):  # some writers quote their numbers
        try:
            return float(value)
        except ValueError:
            return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def as_whole(value: Any, otherwise: int) -> int:
    """A whole number, ``otherwise`` for what is none."""
    number = as_number(value)
    if not math.isfinite(number) or abs(number) > INT_MAX / 2:
        return otherwise
    return int(value) if isinstance(value, int) else int(number)


def time_ns(event: Mapping[str, Any], origin: int) -> int | None:
    """When an event was, in ns from ``origin``; None if it does not say so."""
    stamp = event.get("ts")
    if isinstance(stamp, bool) or not isinstance(stamp, (int, float)) or not abs(stamp) < 9e15:
        return None
    whole = math.floor(stamp)
    return whole * 1000 + round((stamp - whole) * 1000) - origin
