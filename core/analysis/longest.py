"""The operators that took longest by their own time: one row a name, with the shapes that it was called with below."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from core.analysis.operators import OperatorRow, operator_rows
from core.records.run import Run

MOST_OPERATORS, MOST_SHAPES = 15, 4

Json = dict[str, Any]


def longest_json(run: Run, most: int = MOST_OPERATORS) -> list[Json]:
    """The longest operators of each kind of moment; in an imported trace of all its moments together (``kind`` null).

    ``share`` is own time over the time of those moments (null: they are of several kinds, or outside of all), ``shapes`` the
    input shapes with most own time (a null one: not recorded). Times are ns.
    """
    groups: dict[tuple[str | None, str, str], list[OperatorRow]] = {}
    rows = operator_rows(run, by_layer=False)
    some = any(row.place != "python" for row in rows)  # Python functions are many and only count where there is nothing else
    for row in rows:
        if some and row.place == "python":
            continue
        groups.setdefault((None if run.imported else row.kind, row.name, row.place), []).append(row)
    found = []
    for kind in dict.fromkeys(kind for kind, _, _ in groups):
        mine = [(name, place, rows) for (of, name, place), rows in groups.items() if of == kind]
        mine.sort(key=lambda one: -sum(row.self_ns for row in one[2]))
        for name, place, rows in mine[:most]:
            found.append({"name": name, "place": place, "kind": kind, **_sums(rows), "shapes": _by_shapes(rows)})
    return found


def _by_shapes(rows: Iterable[OperatorRow]) -> list[Json]:
    groups: dict[str | None, list[OperatorRow]] = {}
    for row in rows:
        groups.setdefault(row.shapes, []).append(row)
    if set(groups) == {None}:
        return []
    each = [{"shapes": shapes, **_sums(group)} for shapes, group in groups.items()]
    return sorted(each, key=lambda one: -one["self_ns"])[:MOST_SHAPES]


def _sums(rows: Iterable[OperatorRow]) -> Json:
    rows = list(rows)
    return {
        "calls": sum(row.calls for row in rows),
        "total_ns": sum(row.total_ns for row in rows),
        "self_ns": sum(row.self_ns for row in rows),
        "share": sum(row.share for row in rows) if len({row.kind for row in rows}) == 1 else None,
    }
