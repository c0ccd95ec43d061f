"""The only formatter: turns nanoseconds, bytes, counts, rates and shares into text for people, and None into a dash."""

from __future__ import annotations

from collections.abc import Callable

DASH = "—"
"""What stands where nothing was measured."""

_DURATIONS = ((1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s"))
_SIZES = ((1.0, "B"), (2.0**10, "KiB"), (2.0**20, "MiB"), (2.0**30, "GiB"), (2.0**40, "TiB"))
_COUNTS = ((1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"))
_MINUTE_NS = 60e9


def number(value: float) -> str:
    """Three significant digits, and never fewer than all digits of the integer part: 0.0412, 4.12, 41.2, 412, 4123."""
    size = abs(value)
    if size == 0:
        return "0"
    for least, decimals in ((99.95, 0), (9.995, 1), (0.9995, 2), (0.09995, 3)):
        if size >= least:
            return f"{value:.{decimals}f}"
    return f"{value:.3g}"


def split_duration(ns: float | None) -> tuple[str, str]:
    """A duration as (number, unit) for a large number with a small unit; ``(DASH, "")`` for None."""
    return _split(ns, _DURATIONS)


def duration(ns: float | None) -> str:
    """``41.6 ms``; from a minute on ``2 min 5 s``."""
    if ns is not None and abs(ns) >= _MINUTE_NS:
        minutes, seconds = divmod(round(abs(ns) / 1e9), 60)
        return f"{'-' if ns < 0 else ''}{minutes} min {seconds} s"
    return _joined(split_duration(ns))


def signed_duration(ns: float | None) -> str:
    """A difference of durations with its sign: ``+1.20 ms``, ``−340 µs``."""
    if ns is None:
        return DASH
    return f"{'−' if ns < 0 else '+'}{duration(abs(ns))}"


def split_size(size_bytes: float | None) -> tuple[str, str]:
    """Bytes as (number, unit) in 1024s; ``(DASH, "")`` for None."""
    return _split(size_bytes, _SIZES)


def size(size_bytes: float | None) -> str:
    """``612 MiB``."""
    return _joined(split_size(size_bytes))


def count(value: float | None) -> str:
    """A number of things: ``950``, ``8192``, ``134.5 M``."""
    if value is None:
        return DASH
    if abs(value) < 9999.5:
        return f"{value:.0f}"
    factor, unit = _scale(abs(value), _COUNTS, 999.95)
    return f"{value / factor:.1f} {unit}"


def split_rate(per_s: float | None, unit: str = "tok/s") -> tuple[str, str]:
    """A rate as (number, unit); ``(DASH, "")`` for None."""
    return (DASH, "") if per_s is None else (number(per_s), unit)


def rate(per_s: float | None, unit: str = "tok/s") -> str:
    """``84.8 tok/s``."""
    return _joined(split_rate(per_s, unit))


def of_unit(unit: str) -> Callable[[float | None], str]:
    """What formats a number of a metric's unit ("ns", "tok/s", "bytes", "count", "J")."""
    return {"ns": duration, "bytes": size, "count": count}.get(unit, lambda value: rate(value, unit))


def split_of_unit(unit: str) -> Callable[[float | None], tuple[str, str]]:
    """The same as (number, unit), for a large number with a small unit."""
    written = "" if unit == "count" else unit
    return {"ns": split_duration, "bytes": split_size}.get(unit, lambda value: split_rate(value, written))


def percent(share: float | None) -> str:
    """A share of one as ``43.7 %``."""
    return DASH if share is None else f"{100 * share:.1f} %"


def signed_percent(ratio_to_one: float | None) -> str:
    """A ratio as its distance from one: 1.004 is ``+0.4 %``, 0.98 is ``−2.0 %``."""
    if ratio_to_one is None:
        return DASH
    change = 100 * (ratio_to_one - 1)
    text = f"{abs(change):.1f} %"
    return f"{'−' if change < 0 and text != '0.0 %' else '+'}{text}"


def ratio(value: float | None) -> str:
    """``1.23×``."""
    return DASH if value is None else f"{value:.2f}×"


def clock(seconds: float | None) -> str:
    """Time left or passed as ``0:21``, ``12:05`` or ``1:02:03``."""
    if seconds is None:
        return DASH
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _split(value: float | None, scales: tuple[tuple[float, str], ...]) -> tuple[str, str]:
    if value is None:
        return DASH, ""
    factor, unit = _scale(abs(value), scales, 999.5)
    if factor == 1.0:
        return f"{value:.0f}", unit
    return number(value / factor), unit


def _scale(value: float, scales: tuple[tuple[float, str], ...], limit: float) -> tuple[float, str]:
    """The first scale in which the number reads below ``limit``, else the largest (so 999.7 µs is 1.00 ms, not 1000 µs)."""
    for factor, unit in scales:
        if value / factor < limit:
            return factor, unit
    return scales[-1]


def _joined(parts: tuple[str, str]) -> str:
    return " ".join(part for part in parts if part)
