"""The calls of layers in an imported trace: which slices are such, in which layer everything else ran, and their spans."""

from __future__ import annotations

import numpy as np

from core.imports import modules
from core.imports.nesting import nearest, self_times
from core.imports.places import REGION
from core.imports.rows import Rows, empty, where
from core.imports.slices import Slices
from core.imports.steps import STEP
from profilers.trace import NOT_MEASURED, PLACES, SPAN_COLUMNS, Array, Layer

_MOST_REGIONS = 5000
"""More differently named regions than this are numbered iterations or the like, not layers."""


def layers_of(rows: Rows, slices: Slices, moment: Array) -> tuple[tuple[Layer, ...], Array, dict[str, Array]]:
    """The layers, the innermost layer around each slice, and the layers' spans in moments."""
    is_module = where(rows.names, lambda name: name.startswith(modules.MODULE))[rows["name"]] & (
        rows.place == PLACES.index("python")
    )
    named = rows["details"] >= 0
    region = (rows.place == REGION) & ~where(rows.names, STEP.fullmatch)[rows["name"]]
    marked = named & region if named.any() else is_module | region
    if len(np.unique(rows["name"][marked & region])) > _MOST_REGIONS:
        slices.miss("differently named regions, which are no layers", int((marked & region & ~named).sum()))
        marked = named | is_module
    calls = np.flatnonzero(marked)
    if not len(calls):
        return (), np.full(len(marked), NOT_MEASURED, np.int32), empty(SPAN_COLUMNS, 0)
    inner = nearest(marked, rows.parent)
    position = np.full(len(marked) + 1, NOT_MEASURED, np.int64)
    position[calls] = np.arange(len(calls))
    outer = np.where(rows.parent[calls] >= 0, inner[rows.parent[calls]], -1)
    above = np.where(outer >= 0, position[outer], -1)
    details: list[tuple[str, str] | None] = [None] * len(rows.names)
    texts = tuple(slices.details)
    codes, first = np.unique(rows["name"][calls], return_index=True)
    for code, call in zip(codes.tolist(), first.tolist(), strict=True):
        number = int(rows["details"][calls[call]])
        details[code] = texts[number] if number >= 0 else None
    layers, row_of_call = modules.build(rows["name"][calls], above, rows.names, details)
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


def follow_launches(rows: Rows, moment: Array, layer: Array) -> None:
    """Kernels and copies run later than they were launched: they belong to the moment and layer of their launch."""
    joined = rows["correlation"] > 0
    device = np.flatnonzero(joined & ((rows.place == PLACES.index("kernel")) | (rows.place == PLACES.index("copy"))))
    launches = np.flatnonzero(joined & (rows.place == PLACES.index("runtime")))
    if not len(device) or not len(launches):
        return
    launches = launches[np.argsort(rows["correlation"][launches], kind="stable")]
    keys = rows["correlation"][launches]
    at = np.minimum(np.searchsorted(keys, rows["correlation"][device]), len(keys) - 1)
    same = keys[at] == rows["correlation"][device]
    moment[device[same]] = moment[launches[at[same]]]
    layer[device[same]] = layer[launches[at[same]]]
