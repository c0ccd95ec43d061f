"""What the report of an imported trace has in place of a run's configuration, and the operators that took longest."""

from __future__ import annotations

from typing import Any

from core import units
from core.analysis.imported import NOT_SAID
from core.commands.section import Section

Json = dict[str, Any]

_FLAGS = ("record_shapes", "profile_memory", "with_stack", "with_flops", "with_modules")
_MOST_CHARACTERS = 80


def about(summary: Json) -> Section:
    """Where the trace is from, and that it does not say what was asked."""
    source, environment = summary["instruments"].get("import", {}), summary["environment"]
    switched = [name for name in _FLAGS if source.get(name)]
    where = ", ".join(str(one) for one in environment.get("devices", ()))
    rows = [
        ("Trace", f"{source.get('source', summary['name'])}, {source.get('events', 0):,} events"),
        ("Begun", summary["created"]),
        ("Devices", where),
        ("Host", str(environment.get("host_name", ""))),
        ("Recorded with", ", ".join(switched)),
        ("Model, target, dtype, workload", f"{units.DASH} ({NOT_SAID})"),
    ]
    return Section("Imported trace", ("", ""), [row for row in rows if row[1]])


def steps(summary: Json) -> Section:
    """The time of the steps, the first one apart."""
    found = summary["steps"]
    rows = []
    for one in found:
        name = "steps" if len(found) == 1 else f"process {one['process']}"
        span = f"{units.duration(one['min_ns'])} … {units.duration(one['max_ns'])}" if one["n"] > 1 else units.DASH
        first = units.duration(one["first_ns"]) if one["first_ns"] is not None else units.DASH
        rows.append((name, str(one["steps"]), units.duration(one["median_ns"]), span, first))
    note = "Under the profiler that wrote the trace; a first step set apart is in none of the other columns." if rows else ""
    return Section("Steps", ("", "number", "median", "range", "first, apart"), rows, note)


def operators(summary: Json) -> Section:
    """The longest by their own time, shapes below the name where there are several."""
    rows: list[tuple[str, ...]] = []
    for one in summary["operators"]:
        kind = "" if one["kind"] is None else f" ({one['kind'].replace('_', ' ')})"
        shapes = one["shapes"]
        rows.append((f"{_short(one['name'])}{kind}", one["place"], *_cells(one)))
        if len(shapes) > 1:
            rows += [("  " + _short(each["shapes"] or "shapes not recorded"), "", *_cells(each)) for each in shapes]
    note = "" if summary["status"] == "imported" else "From the moments under the operator profiler."
    return Section(
        "Longest operators by their own time", ("operator", "where", "calls", "own time", "share", "in all"), rows, note
    )


def _cells(one: Json) -> tuple[str, ...]:
    return (f"{one['calls']:,}", units.duration(one["self_ns"]), units.percent(one["share"]), units.duration(one["total_ns"]))


def _short(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"
