"""The calls of layers in an imported trace: which slices are such, in which layer everything else ran, and their spans."""

from __future__ import annotations

import numpy as np

from core.imports import modules
from core.imports.nesting import nearest, self_times
from core.imports.places import PYTHON, REGION, STEP
from core.imports.rows import Rows, empty, where
from core.imports.slices import Slices
from profilers.trace import NOT_MEASURED, SPAN_COLUMNS, Array, Layer

_MOST_REGIONS = 5000
"""More differently named regions than this are numbered iterations or the like, not layers."""

_MOST_LAYERS = 20_000
"""With more, a layer is told by its name alone, wherever it was called from."""


def layers_of(rows: Rows, slices: Slices, moment: Array) -> tuple[tuple[Layer, ...], Array, dict[str, Array]]:
    """The layers, the innermost layer around each slice, and the layers' spans in moments."""
    is_module = where(rows.names, lambda name: name.startswith(modules.MODULE))[rows["name"]] & (rows.place == PYTHON)
    named = rows["details"] >= 0
    region = (rows.place == REGION) & ~where(rows.names, STEP.fullmatch)[rows["name"]]
    marked = named & region if named.any() else is_module | region
    if len(np.unique(rows["name"][marked & region])) > _MOST_REGIONS:
        slices.miss("differently named regions, which are no layers", int((marked & region & ~named).sum()))
        marked = named | is_module
    calls = np.flatnonzero(marked)
    if not len(calls):
        return (), np.full(len(marked), NOT_MEASURED, np.int32), empty(SPAN_COLUMNS, 0)
    codes = rows["name"][calls]
    inner, above = _around(rows, marked, calls)
    row_of_call = modules.rows_of(codes, above, by_name=bool(named.any()))
    if int(row_of_call.max()) >= _MOST_LAYERS:  # numbered regions, each with all modules in it
        row_of_call = modules.rows_of(codes, above, by_name=True)
    layers = modules.build(row_of_call, codes, above, rows.names, _details(rows, slices, calls))
    layer = np.full(len(marked) + 1, NOT_MEASURED, np.int32)
    layer[calls] = row_of_call
    around = np.where(inner >= 0, layer[inner], NOT_MEASURED)
    start, end = rows["ts_ns"][calls], rows.end[calls]
    kept = np.flatnonzero(moment[calls] >= 0)
    slices.miss("layer calls outside of all steps", len(calls) - len(kept))
    kept = kept[np.lexsort((start[kept], moment[calls][kept]))]
    spans = empty(SPAN_COLUMNS, len(kept))
    spans["moment"][:] = moment[calls][kept]
    spans["layer"][:] = row_of_call[kept]
    spans["start_ns"][:] = start[kept]
    spans["duration_ns"][:] = (end - start)[kept]
    spans["self_ns"][:] = self_times(start, end, above)[kept]
    return layers, around, spans


def _around(rows: Rows, marked: Array, calls: Array) -> tuple[Array, Array]:
    """The innermost call around each slice (or itself), and of each call the call around it (its number), -1 for none."""
    inner = nearest(marked, rows.parent)
    position = np.full(len(marked) + 1, NOT_MEASURED, np.int64)
    position[calls] = np.arange(len(calls))
    outer = np.where(rows.parent[calls] >= 0, inner[rows.parent[calls]], -1)
    return inner, np.where(outer >= 0, position[outer], -1)


def _details(rows: Rows, slices: Slices, calls: Array) -> list[tuple[str, str] | None]:
    """Class and stage by the number of a name, where the trace says them (Tickscope's own traces do)."""
    details: list[tuple[str, str] | None] = [None] * len(rows.names)
    texts = tuple(slices.details)
    codes, first = np.unique(rows["name"][calls], return_index=True)
    for code, call in zip(codes.tolist(), first.tolist(), strict=True):
        number = int(rows["details"][calls[call]])
        details[code] = texts[number] if number >= 0 else None
    return details
