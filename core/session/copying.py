"""Copies the runs of an open session into a new file, row by row: the old file need not be there any more, nor be in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from core.records.deltas import Written
from core.session.database import connect, remove_leftovers
from core.session.limits import check_size
from core.session.rows import append_rows, read_rows
from core.session.schema import migrate

HEADS = "SELECT id, name, created, status, note, config, facts, group_id, role FROM main.runs ORDER BY id"


def copy_session(source: Any, path: Path) -> list[int]:
    """Write everything that ``source`` (a cursor) can read into a new file at ``path``, replacing what is there.

    What is asked and known of a run is copied as it stands, also where this program cannot make sense of it.

    Returns:
        The ids of runs whose rows could not be read; of those only what was asked and is known of them is in the copy.
    """
    remove_leftovers(path)
    path.unlink(missing_ok=True)
    connection, _ = connect(path, create=True)
    try:
        migrate(connection, 0)
        return [number for number in _copy_heads(source, connection) if not _copy_rows(source, connection, number)]
    finally:
        connection.close()


def _copy_heads(source: Any, target: Any) -> list[int]:
    heads = source.execute(HEADS).fetchall()
    settings = source.execute("SELECT run, name, value FROM main.environment").fetchall()
    groups = source.execute("SELECT id, kind, created, config FROM main.groups").fetchall()
    for table, rows in (("runs", heads), ("environment", settings), ("groups", groups)):
        if rows:
            columns = [list(column) for column in zip(*rows, strict=True)]
            unnested = ", ".join(["unnest(?)"] * len(columns))
            target.execute(f"INSERT INTO main.{table} SELECT {unnested}", columns)
    return list(dict.fromkeys(row[0] for row in heads))


def _copy_rows(source: Any, target: Any, number: int) -> bool:
    try:
        check_size(source, number)
        trace = read_rows(source, number)
    except (duckdb.Error, ValueError, TypeError, OverflowError, MemoryError):
        return False
    target.execute("BEGIN")
    append_rows(target, number, trace, Written())
    target.execute("COMMIT")
    return True
