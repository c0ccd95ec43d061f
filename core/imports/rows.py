"""The slices of an imported trace in reading order, with what each of them is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.imports.decoding import time_ns
from core.imports.nesting import in_reading_order, parents
from core.imports.places import DROPPED, places
from core.imports.slices import Slices
from profilers.trace import NOT_MEASURED, Array


@dataclass
class Rows:
    """The slices in reading order: their columns, which slice each lies in, and what each is."""

    columns: dict[str, Array]
    end: Array
    parent: Array
    place: Array  # index into PLACES, -1: no operator
    names: tuple[str, ...]

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]


def sorted_rows(slices: Slices) -> tuple[Rows, int]:
    """Everything in reading order with times from the first slice on."""
    columns = slices.columns()
    order = in_reading_order(columns["lane"], columns["ts_ns"], columns["duration_ns"])
    for name, column in columns.items():
        columns[name] = column[order]  # one at a time: the old column is let go before the next is sorted
    names = tuple(slices.names)
    place = places(slices)[columns["category"]]
    counted = np.flatnonzero(place != DROPPED)
    origin = int(columns["ts_ns"][counted].min()) if len(counted) else _first_of_others(slices)
    columns["ts_ns"] -= origin
    end = columns["ts_ns"] + columns["duration_ns"]
    return Rows(columns, end, parents(columns["lane"], columns["ts_ns"], end), place, names), origin


def _first_of_others(slices: Slices) -> int:
    return min((time for time in (time_ns(event, 0) for event in slices.others) if time is not None), default=0)


def where(names: Sequence[str], test: Callable[[str], object]) -> Array:
    """Of which numbers of names the test holds; index -1 is False."""
    return np.array([*(bool(test(name)) for name in names), False])


def empty(dtypes: Mapping[str, str], count: int) -> dict[str, Array]:
    """Columns in which nothing is measured yet."""
    return {name: np.full(count, NOT_MEASURED, dtype) for name, dtype in dtypes.items()}


def frozen(columns: dict[str, Array]) -> dict[str, Array]:
    """The same, no longer to be written to."""
    for column in columns.values():
        column.flags.writeable = False
    return columns
