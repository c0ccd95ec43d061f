"""The columns of the layer table: what each says, what it is sorted by, and what it means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from core import units
from profilers.trace import Layer


class Times(NamedTuple):
    """One layer's numbers; ``summed``: the layer itself is never called, its total is that of what is inside."""

    calls: float | None
    total_ns: float | None
    self_ns: float | None
    share: float | None
    total_share: float | None
    summed: bool = False
    counts: Mapping[str, float | None] = MappingProxyType({})  # by name of ``COUNTED``
    beside_ns: float | None = None  # total in the kind of moment that stands beside the chosen one
    bytes_per_s: float | None = None
    operations_per_s: float | None = None
    limit_share: float | None = None
    layers: int = 1  # how many layers the row stands for


class LayerError(NamedTuple):
    """Signal-to-noise ratio of a layer's output in dB (None: exact); ``inside``: the lowest of the layers inside it."""

    sqnr_db: float | None
    inside: bool = False


NOTHING = Times(None, None, None, None, None)
EXACT_DB = 1e6
"""Where layers that are equal bit for bit stand among the others: behind all, before those that were not measured."""

COUNTED = {"Cycles": "cycles", "Instr.": "instructions", "IPC": "ipc", "Cache misses": "cache_misses", "CPU time": "cpu_ns"}
"""Columns of the processor's counters, with their names in the layer table. Only blocks and their like are counted."""

Value = Callable[[Times], float | None]
Text = Callable[[float], str]


@dataclass(frozen=True)
class Column:
    """One column. ``value`` None: it is text, and told by the layer itself. ``optional``: hidden where no layer has a value."""

    title: str
    meaning: str
    width: int
    value: Value | None = None
    text: Text = units.duration
    optional: bool = False
    seldom: bool = False  # shown only when asked for: another says it shorter
    roomy: bool = False  # left out of a narrow window; the tooltip says it too


def _calls(value: float) -> str:
    return f"{value:.3g}" if value % 1 else f"{value:.0f}"


LEAST_PER_S = 1e7  # less has more digits than its column, and says no more


def _per_s(value: float) -> str:
    return units.number(value / 1e9) if value >= LEAST_PER_S else f"< {LEAST_PER_S / 1e9:g}"


def _counted(title: str, meaning: str, width: int, text: Text, *, seldom: bool = False, roomy: bool = False) -> Column:
    name = COUNTED[title]
    return Column(title, meaning, width, lambda times: times.counts.get(name), text, True, seldom, roomy)


COLUMNS: tuple[Column, ...] = (
    Column("Layer", "Module by its place in the model", 0),
    Column("Type", "Class of the module", 116, roomy=True),
    Column("Stage", "What the module does in the model", 76, roomy=True),
    Column("Calls", "Calls in one moment", 52, lambda times: times.calls, _calls),
    Column(
        "Total",
        "Time in a median moment with everything inside it, scaled to clean moments",
        78,
        lambda times: times.total_ns,
    ),
    Column(
        "Share",
        "Total time over the moment's, with everything inside. Bar, to the scale of the longest of the same depth: solid "
        "what the layer takes by itself, pale what is inside it",
        132,
        lambda times: times.total_share,
        units.percent,
    ),
    Column(
        "Self",
        "Time of the module itself, without the modules inside it, scaled to clean moments",
        78,
        lambda times: times.self_ns,
    ),
    Column("Self share", "Self time over the moment's", 76, lambda times: times.share, units.percent, roomy=True),
    Column(
        "Beside",
        "Total time in a median moment of the other kind (prefill beside decode), scaled to clean moments",
        84,
        lambda times: times.beside_ns,
        optional=True,
    ),
    Column(
        "GB/s",
        "Weight bytes of the layer and what is inside it, as they are held, over its total time",
        62,
        lambda times: times.bytes_per_s,
        _per_s,
        optional=True,
    ),
    Column(
        "GFLOP/s",
        "Operations of its products (two per multiplication) over its total time",
        72,
        lambda times: times.operations_per_s,
        _per_s,
        optional=True,
    ),
    Column(
        "Of limit",
        "The time that its products need at least, by what this machine can read and multiply, over the time it took: near "
        "100 % nothing is left to win without fewer bytes or operations",
        68,
        lambda times: times.limit_share,
        units.percent,
        optional=True,
    ),
    _counted(
        "Cycles",
        "Clock cycles of the processor in a median traced moment, over all threads, with everything inside",
        72,
        units.count,
    ),
    _counted(
        "Instr.",
        "Instructions in a median traced moment, over all threads, with everything inside",
        72,
        units.count,
        seldom=True,
    ),
    _counted(
        "IPC", "Instructions per cycle: below 1 the processor mostly waits, for memory as a rule", 52, lambda v: f"{v:.2f}"
    ),
    _counted(
        "Cache misses",
        "Misses of the last cache in a median traced moment, with everything inside",
        92,
        units.count,
        roomy=True,
    ),
    _counted(
        "CPU time",
        "Time on a processor, added up over all threads: with two busy threads twice the total",
        80,
        units.duration,
    ),
    Column(
        "SQNR dB",
        "Layer error: power of the unoptimized layer's output over that of its difference, in decibels; the lower, the further "
        "the passes moved it. exact: equal bit for bit",
        78,
    ),
)

TITLES = tuple(column.title for column in COLUMNS)
SHARE, BESIDE, SQNR = TITLES.index("Share"), TITLES.index("Beside"), TITLES.index("SQNR dB")
NUMBERS_FROM = TITLES.index("Calls")


def name_of(layer: Layer) -> str:
    """A layer's name in the tree: "layers.12" says more than a bare 12."""
    above, _, name = layer.path.rpartition(".")
    return f"{above.rpartition('.')[2]}.{name}" if (name.isdigit() or name == "*") and above else name or layer.type


def text_of(column: int, times: Times, error: LayerError | None) -> str:
    """What stands in a column of numbers: a dash where nothing was measured."""
    if column == SQNR:
        return error_text(error)
    told = COLUMNS[column]
    assert told.value is not None
    value = told.value(times)
    return units.DASH if value is None else told.text(value)


def sort_key(column: int, times: Times, error: LayerError | None) -> float:
    """What a column of numbers is sorted by: what was not measured comes first upwards, and last in layer errors."""
    if column == SQNR:
        return 2 * EXACT_DB if error is None else EXACT_DB if error.sqnr_db is None else error.sqnr_db
    told = COLUMNS[column]
    assert told.value is not None
    value = told.value(times)
    return -1.0 if value is None else float(value)


def error_text(error: LayerError | None) -> str:
    """``31.4``, ``min 11.8`` of what is inside, ``exact``, or a dash where it was not measured."""
    if error is None:
        return units.DASH
    if error.sqnr_db is None:
        return "exact"
    return f"{'min ' if error.inside else ''}{error.sqnr_db:.1f}"
