"""Decodes single events of a Chrome trace, as far as they can be understood: also those that other tools damaged."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from profilers.trace import NOT_MEASURED

INT_MAX = 2**63 - 1
MOST_US = INT_MAX // 1000
"""No time is further from 0, so that its nanoseconds fit a column."""

COARSE_US = 2**43
"""From here on (101 days) a float of microseconds is too coarse for whole nanoseconds: since 1970 its steps are 250 ns."""

_LONE_BACKSLASH = re.compile(rb'(\\(?:["\\/]|u[0-9a-fA-F]{4}))|\\')
_SURROGATE = re.compile(rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
"""Two backslashes, a pair of surrogates, or one alone, which no file takes as UTF-8."""

_ILLEGAL_ESCAPE = re.compile(rb'(?<!\\)(?:\\\\)*\\(?:[^"\\/bfnrtu]|u(?![0-9a-fA-F]{4}))')
_PATH_WITH_ESCAPE = re.compile(rb'\w\\[bfnrt][^"]{0,300}?\.py\(\d')


class Arguments(msgspec.Struct, gc=False):
    """What an event's ``args`` may hold that has a column here; the rest is not read."""

    correlation: int = NOT_MEASURED
    bytes: int = NOT_MEASURED
    flops: int = NOT_MEASURED
    input_dims: msgspec.Raw = msgspec.field(name="Input Dims", default=msgspec.Raw())  # "or None" would admit null alone
    old_input_dims: msgspec.Raw = msgspec.field(name="Input dims", default=msgspec.Raw())  # until torch 1.10
    allocated: int = msgspec.field(name="Bytes", default=0)
    total_allocated: int = msgspec.field(name="Total Allocated", default=NOT_MEASURED)
    device_type: int = msgspec.field(name="Device Type", default=0)
    device_id: int = msgspec.field(name="Device Id", default=NOT_MEASURED)
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


class Stamp(msgspec.Struct, gc=False):
    """The time of an event as the file writes it."""

    ts: msgspec.Raw = msgspec.Raw()


def number_of(text: str) -> float | Decimal:
    """A number with a point as written in a file: exact where a float would not be."""
    value = float(text)
    return Decimal(text) if COARSE_US <= abs(value) < MOST_US else value


_LENIENT = json.JSONDecoder(strict=False, parse_float=number_of)


def decoded(text: bytes) -> Any:
    """The value of a JSON text, with what strict JSON forbids: NaN, control characters, and backslashes that stand alone.

    Raises:
        ValueError: it is damaged beyond that.
    """
    if b"\\u" in text:
        text = _SURROGATE.sub(lambda found: b"\\ufffd" if len(found[0]) == 6 else found[0], text)
    try:
        return _LENIENT.decode(text.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        if b"\\" not in text:
            raise ValueError("damaged JSON") from None
    try:
        return _LENIENT.decode(with_backslashes(text).decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise ValueError("damaged JSON") from None


def has_lone_backslashes(text: bytes) -> bool:
    r"""Whether Windows paths stand there as they are: ``\U`` is no escape of JSON, and a path has no line break (``\new``)."""
    return _ILLEGAL_ESCAPE.search(text) is not None or _PATH_WITH_ESCAPE.search(text) is not None


def with_backslashes(text: bytes) -> bytes:
    """The same with every backslash that stands alone doubled, as torch did not do on Windows until 2.0."""
    return _LONE_BACKSLASH.sub(lambda found: found[1] or b"\\\\", text)


def objects(text: bytes) -> list[dict[str, Any]]:
    """The events of a piece with everything that they hold; each can be decoded."""
    try:
        found = decoded(b"[%b]" % text)
    except ValueError:
        return []
    return [one for one in found if isinstance(one, dict)]


def lenient(text: bytes) -> dict[str, Any] | None:
    """An event's fields as far as they can be understood, None where they cannot."""
    try:
        found = decoded(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "ph" in found else None


def event_from(found: Mapping[str, Any]) -> Event:
    """An event from its fields, whatever types they have; its exact time is told by ``exact_ns``."""
    arguments = found.get("args")
    arguments = arguments if isinstance(arguments, dict) else {}
    dims = arguments.get("Input Dims", arguments.get("Input dims"))
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
            bytes=as_whole(arguments.get("bytes"), NOT_MEASURED),
            flops=as_whole(arguments.get("flops"), NOT_MEASURED),
            input_dims=msgspec.Raw() if dims is None else msgspec.Raw(json.dumps(dims, default=float).encode()),
            allocated=as_whole(arguments.get("Bytes"), 0),
            total_allocated=as_whole(arguments.get("Total Allocated"), NOT_MEASURED),
            device_type=as_whole(arguments.get("Device Type"), 0),
            device_id=as_whole(arguments.get("Device Id"), NOT_MEASURED),
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
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        return math.nan
    try:
        return float(value)  # some writers quote their numbers
    except (ValueError, OverflowError):
        return math.nan


def as_whole(value: Any, otherwise: int) -> int:
    """A whole number, ``otherwise`` for what is none."""
    number = as_number(value)
    if not math.isfinite(number) or abs(number) > INT_MAX / 2:
        return otherwise
    return int(value) if isinstance(value, int) else int(number)


def exact_ns(value: Any) -> int | None:
    """A time or duration in µs as whole ns, to the last digit that the file has; None for what is none."""
    number = as_number(value)
    if not abs(number) < MOST_US:
        return None
    if isinstance(value, int):
        return value * 1000
    if abs(number) < COARSE_US:
        whole = math.floor(number)
        return whole * 1000 + round((number - whole) * 1000)
    try:
        return int((Decimal(value) * 1000).to_integral_value())
    except InvalidOperation:
        return round(number) * 1000


def stamps_ns(stamps: Sequence[bytes]) -> list[int]:
    """Numbers of µs as a file writes them, as whole ns; each is known to be one."""
    return [int((Decimal(stamp.decode()) * 1000).to_integral_value()) for stamp in stamps]


def time_ns(event: Mapping[str, Any], origin: int) -> int | None:
    """When an event was, in ns from ``origin``; None if it does not say so."""
    at = exact_ns(event.get("ts"))
    return None if at is None else at - origin
