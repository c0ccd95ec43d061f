"""Exports a run's tables as CSV files: moments, layers, requests, operators, counters, quality and what each chart shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.analysis.operators import operator_columns
from core.analysis.series import allocated, allocated_table, layer_rows, memory, stages
from core.export.base import exporters
from core.export.files import names, write_table
from core.messages.reason import Reason
from core.records.run import Run
from profilers.trace import KINDS, NOT_MEASURED, Array, Tag

Table = Mapping[str, Any]


def moments_table(run: Run) -> Table:
    """Every moment with all that was recorded of it; tags as a column of 0 and 1 each."""
    return {"moment": np.arange(len(run.trace.moments["tags"])), **_recorded(run.trace.moments)}


def requests_table(run: Run) -> Table:
    """Every repeat of the workload."""
    return {"request": np.arange(len(run.trace.requests["tags"])), **_recorded(run.trace.requests)}


def layers_table(run: Run) -> Table:
    """One row per layer and kind of moment."""
    return layer_rows(run).table()


def counters_table(run: Run) -> Table:
    """Every counter sample in the unit it was recorded in."""
    columns = run.trace.counters
    tracks = [run.trace.tracks[number] for number in columns["track"]]
    return {
        "time_ns": columns["time_ns"],
        "track": [track.name for track in tracks],
        "value": columns["value"],
        "unit": [track.unit for track in tracks],
    }


def quality_table(run: Run) -> Table:
    """One row per figure of the quality cost, then one per layer with its signal-to-noise ratio; no rows: not measured.

    An empty cell is a layer whose output is equal bit for bit, or a figure that has no standard error.
    """
    quality = run.facts.quality
    figures = dict(quality.figures) if quality is not None else {}
    layers = dict(quality.layer_sqnr_db) if quality is not None else {}
    return {
        "figure": [*figures, *("layer_sqnr_db" for _ in layers)],
        "layer": [*("" for _ in figures), *layers],
        "value": [*(figure.value for figure in figures.values()), *layers.values()],
        "standard_error": [*(figure.error for figure in figures.values()), *(None for _ in layers)],
    }


TABLES: Mapping[str, Callable[[Run], Table]] = {
    "moments": moments_table,
    "requests": requests_table,
    "layers": layers_table,
    "stages": lambda run: stages(run).table(),
    "memory": lambda run: allocated_table(run) if allocated(run) else memory(run).table(),
    "counters": counters_table,
    "operators": operator_columns,
    "quality": quality_table,
}


@exporters.register
class CsvTables:
    """One file per table of ``TABLES``."""

    id = "csv"
    title = "Tables as CSV"
    suffix = ".csv"

    def check(self) -> Reason | None:
        return None

    def write(self, runs: Sequence[Run], path: Path) -> list[Path]:
        files = names(path, self.suffix, tuple(TABLES), runs)
        for (index, part), file in files.items():
            write_table(TABLES[part](runs[index]), file)
        return list(files.values())


def _recorded(columns: Mapping[str, Array]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, column in columns.items():
        if name == "kind":
            found[name] = [KINDS[number] for number in column]
        elif name == "tags":
            found.update({(tag.name or "").lower(): (column & tag.value) > 0 for tag in Tag})
        else:
            found[name] = [None if value == NOT_MEASURED else value for value in column.tolist()]
    return found
