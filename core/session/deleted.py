"""What a file said of a run that is deleted, to the letter, so that an undo puts back what was there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DeletedHead:
    """Rows as they stood in the file: also what is never taken out of one (consents) and what this version cannot read."""

    run: tuple[Any, ...]
    settings: tuple[tuple[Any, ...], ...]
    groups: tuple[tuple[Any, ...], ...]


def head_in_file(cursor: Any, run_id: int) -> DeletedHead | None:
    """All that the file says of a run beside its columns; None where it has none of that id."""
    run = cursor.execute(
        "SELECT name, created, status, note, config, facts, group_id, role FROM main.runs WHERE id = ?", [run_id]
    ).fetchone()
    if run is None:
        return None
    settings = cursor.execute("SELECT name, value FROM main.environment WHERE run = ?", [run_id]).fetchall()
    groups = cursor.execute("SELECT id, kind, created, config FROM main.groups WHERE id = ?", [run[-2]]).fetchall()
    return DeletedHead(run, tuple(settings), tuple(groups))


def put_back(cursor: Any, run_id: int, head: DeletedHead) -> None:
    """The rows again, with ``run_id``; of its group only where no other run has kept it."""
    cursor.execute("INSERT INTO main.runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [run_id, *head.run])
    for setting in head.settings:
        cursor.execute("INSERT INTO main.environment VALUES (?, ?, ?)", [run_id, *setting])
    (there,) = cursor.execute("SELECT count(*) FROM main.groups WHERE id = ?", [head.run[-2]]).fetchone()
    for group in () if there else head.groups:
        cursor.execute("INSERT INTO main.groups VALUES (?, ?, ?, ?)", list(group))
