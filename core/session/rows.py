"""Moves the columns of a run into the tables of a session file and back; -1 in a column is NULL in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.messages.reason import Reason
from core.records.deltas import Written, since
from profilers.trace import (
    COUNTER_COLUMNS,
    KINDS,
    MOMENT_COLUMNS,
    NOT_MEASURED,
    OPERATOR_COLUMNS,
    PLACES,
    REQUEST_COLUMNS,
    SPAN_COLUMNS,
    Array,
    Instant,
    Layer,
    Output,
    Trace,
    Track,
)

_WORDS = {
    column: "[" + ", ".join(f"'{word}'" for word in words) + "]" for column, words in (("kind", KINDS), ("place", PLACES))
}
"""Columns that are numbers in memory and words in the file."""
_NEVER_MISSING = {"tags", "request", "step", "track", "time_ns", "name"}


def append_rows(cursor: Any, run: int, trace: Trace, written: Written) -> Written:
    """Insert what is new in ``trace`` since ``written``, inside the caller's transaction; returns the new counts."""
    delta, taken = since(trace, written)
    first, columns = delta.first, delta.columns
    _insert_lists(
        cursor, "layers", run, first.layers, [[getattr(item, name) for item in delta.layers] for name in _LAYER_FIELDS]
    )
    for table, row in (("requests", first.requests), ("moments", first.moments)):
        added = len(columns[table]["tags"])
        if added:
            cursor.execute(f"DELETE FROM {table} WHERE run = ? AND id >= ?", [run, row])
            _insert_columns(cursor, table, run, {"id": np.arange(row, row + added, dtype="i4"), **columns[table]})
    _insert_columns(cursor, "spans", run, columns["spans"])
    _insert_lists(cursor, "names", run, first.names, [list(delta.names)])
    _insert_columns(cursor, "operators", run, columns["operators"])
    tracks = delta.tracks
    _insert_lists(cursor, "tracks", run, first.tracks, [[item.name for item in tracks], [item.unit for item in tracks]])
    _insert_columns(cursor, "counter_samples", run, columns["counters"])
    for instant in delta.instants:
        cursor.execute("INSERT INTO instants VALUES (?, ?, ?, ?)", [run, instant.track, instant.time_ns, instant.label])
    for output in delta.outputs:
        cursor.execute(
            "INSERT INTO outputs VALUES (?, ?, ?, ?, ?, ?)",
            [run, output.request, list(output.token_ids), output.text, output.finish_reason, list(output.values)],
        )
    return taken


def missing_rows(cursor: Any, run: int, trace: Trace) -> Reason | None:
    """What of ``trace`` the file does not have, in words ("12 of 900 moments"), or None."""
    moments = len(trace.moments["kind"])
    expected = {
        "layers": len(trace.layers),
        "requests": len(trace.requests["tags"]),
        "moments": moments,
        "spans": int((trace.spans["moment"] < moments).sum()),
        "operators": int((trace.operators["moment"] < moments).sum()),
        "counter_samples": len(trace.counters["time_ns"]),
        "instants": len(trace.instants),
        "outputs": len(trace.outputs),
    }
    for table, count in {"runs": 1, **expected}.items():
        column = "id" if table == "runs" else "run"
        (found,) = cursor.execute(f"SELECT count(*) FROM main.{table} WHERE {column} = ?", [run]).fetchone()
        if found < count:
            return Reason("session.so-many-of", missing=count - found, n=count, table=table.replace("_", " "))
    return None


def read_rows(cursor: Any, run: int) -> Trace:
    """Everything the file holds about one run's columns, with the recorder's dtypes, read-only.

    Raises:
        ValueError: with a clause about what is wrong, where rows are missing, there twice, or without what they need.
    """
    for table in ("layers", "requests", "moments", "names", "tracks"):
        _check_ids(cursor, table, run)
    layers = cursor.execute("SELECT path, type, stage, parent FROM layers WHERE run = ? ORDER BY id", [run]).fetchall()
    tracks = cursor.execute("SELECT name, unit FROM tracks WHERE run = ? ORDER BY id", [run]).fetchall()
    instants = cursor.execute("SELECT track, time_ns, label FROM instants WHERE run = ?", [run]).fetchall()
    names = cursor.execute("SELECT text FROM names WHERE run = ? ORDER BY id", [run]).fetchall()
    outputs = cursor.execute(
        "SELECT request, token_ids, text, finish_reason, vector FROM outputs WHERE run = ?", [run]
    ).fetchall()
    return Trace(
        layers=tuple(
            Layer(path, kind, stage, NOT_MEASURED if parent is None else parent) for path, kind, stage, parent in layers
        ),
        requests=_select(cursor, "requests", REQUEST_COLUMNS, run, "ORDER BY id"),
        moments=_select(cursor, "moments", MOMENT_COLUMNS, run, "ORDER BY id"),
        spans=_in_order(_select(cursor, "spans", SPAN_COLUMNS, run)),
        operators=_select(cursor, "operators", OPERATOR_COLUMNS, run),
        names=tuple(name for (name,) in names),
        counters=_select(cursor, "counter_samples", COUNTER_COLUMNS, run),
        tracks=tuple(Track(*row) for row in tracks),
        instants=tuple(Instant(*row) for row in instants),
        outputs=tuple(
            Output(request, tuple(ids), text, reason, tuple(values)) for request, ids, text, reason, values in outputs
        ),
    )


_LAYER_FIELDS = ("path", "type", "stage", "parent")


def _in_order(spans: dict[str, Array]) -> dict[str, Array]:
    """Spans by moment. A scan returns rows in the order of insertion, which is that, so that millions need no sorting."""
    if len(spans["moment"]) and (np.diff(spans["moment"]) < 0).any():
        order = np.argsort(spans["moment"], kind="stable")
        spans = {name: column[order] for name, column in spans.items()}
    return spans


def _check_ids(cursor: Any, table: str, run: int) -> None:
    """Rows are known by their place, so their ids must be 0, 1, 2 and so on."""
    count, different, least, most = cursor.execute(
        f"SELECT count(*), count(DISTINCT id), min(id), max(id) FROM main.{table} WHERE run = ?", [run]
    ).fetchone()
    if count and (different != count or least != 0 or most != count - 1):
        raise ValueError(Reason("session.not-all-there", table=table))


def _insert_columns(cursor: Any, table: str, run: int, columns: Mapping[str, Array]) -> None:
    """Bulk insert of numpy columns, 200,000 spans in 0.1 s; a Python row at a time would take a minute."""
    if not len(next(iter(columns.values()))):
        return
    chosen = ", ".join(_to_file(name) for name in columns)
    cursor.register("batch", dict(columns))
    cursor.execute(f"INSERT INTO main.{table} (run, {', '.join(columns)}) SELECT {run}, {chosen} FROM temp.main.batch")
    cursor.unregister("batch")


def _to_file(name: str) -> str:
    if name in _WORDS:
        return f"{_WORDS[name]}[{name} + 1]"
    return name if name in _NEVER_MISSING or name == "id" else f"nullif({name}, {NOT_MEASURED})"


def _insert_lists(cursor: Any, table: str, run: int, first: int, lists: Sequence[list[Any]]) -> None:
    """Insert few rows of mixed type in one statement; ids count up from ``first``."""
    if not lists[0]:
        return
    ids = list(range(first, first + len(lists[0])))
    if table == "layers":
        lists = [*lists[:-1], [None if parent == NOT_MEASURED else parent for parent in lists[-1]]]
    unnested = ", ".join(["unnest(?)"] * (len(lists) + 1))
    cursor.execute(f"INSERT INTO {table} SELECT {run}, {unnested}", [ids, *lists])


def _select(cursor: Any, table: str, dtypes: Mapping[str, str], run: int, order: str = "") -> dict[str, Array]:
    chosen = ", ".join(f"{_from_file(name)} AS {name}" for name in dtypes)
    found = cursor.execute(f"SELECT {chosen} FROM {table} WHERE run = ? {order}", [run]).fetchnumpy()
    holes = [name for name in dtypes if np.ma.is_masked(found[name])]
    if holes:
        raise ValueError(Reason("session.are-without", table=table.replace("_", " "), column=holes[0]))
    columns = {name: np.asarray(found[name]).astype(dtype, copy=False) for name, dtype in dtypes.items()}
    for column in columns.values():
        column.flags.writeable = False
    return columns


def _from_file(name: str) -> str:
    if name in _WORDS:
        return f"list_position({_WORDS[name]}, {name}) - 1"
    return name if name in _NEVER_MISSING else f"coalesce({name}, {NOT_MEASURED})"
