"""``tickscope import``: a trace of ``torch.profiler`` becomes a run of a session file."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from core.commands.output import check_folder, note, table, write, write_json
from core.session.run import Run


def import_trace(args: argparse.Namespace) -> int:
    """Read the trace, add it to the session file, and say what was found."""
    from core.imports.kineto import read_trace
    from core.session.rows import Written
    from core.session.store import SessionStore

    check_folder(args.out)
    run = read_trace(args.trace)
    if args.name:
        run = replace(run, name=args.name)
    store = SessionStore.open(args.out)
    try:
        run = replace(run, id=store.begin(run))
        store.append(run.id, run.trace, Written())
        store.update(run.id, run.facts)
    finally:
        store.close()
    for missing in run.facts.unavailable:
        if missing.what != "clean latency":
            note(f"{missing.what}: {missing.why}.")
    note(f"Kept in {args.out} as run {run.id}.")
    if args.json:
        from core.analysis.summary import summarize

        write_json(summarize(run))
    else:
        write(imported_text(run))
    return 0


def imported_text(run: Run) -> str:
    """How much of what there was, and the operators that took longest."""
    from core.analysis.longest import longest_json
    from core.commands.imported_report import operators as operators_of

    trace = run.trace
    counts: list[tuple[str, Any]] = [
        ("steps", len(trace.moments["kind"])),
        ("operators and kernels", len(trace.operators["name"])),
        ("layers", len(trace.layers)),
        ("layer calls", len(trace.spans["layer"])),
        ("counter samples", len(trace.counters["value"])),
        ("instants", len(trace.instants)),
    ]
    parts = [f"{run.name} — {run.facts.status}, begun {run.created}"]
    parts.append(table(("", ""), [(name, f"{count:,}") for name, count in counts if count], "  "))
    operators = operators_of({"operators": longest_json(run), "status": run.facts.status})
    if operators.rows:
        parts.append(f"{operators.title}\n" + table(operators.header, operators.rows, "  "))
    return "\n\n".join(parts)
