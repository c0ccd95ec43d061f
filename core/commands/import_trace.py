"""``tickscope import``: another profiler's trace becomes a run of a session file."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.commands import DONE, FAILED
from core.commands.output import check_folder, note, table, write, write_json
from core.errors import Refusal
from core.records.run import Run


def import_trace(args: argparse.Namespace) -> int:
    """Read the trace, add it to the session file, and say what was found."""
    from core.imports.base import read_trace
    from core.session.keeping import confirm

    check_folder(args.out)
    run = read_trace(args.trace)
    if args.name:
        run = replace(run, name=args.name)
    run = replace(run, id=_add(run, args.out))
    sound, kept = confirm(args.out, [run])
    for missing in run.facts.unavailable:
        if missing.what != "clean latency":
            note(f"{missing.what}: {missing.why}.")
    note(str(kept))
    if args.json:
        from core.analysis.summary import summarize

        write_json(summarize(run))
    else:
        write(imported_text(run))
    return DONE if sound else FAILED


def _add(run: Run, path: Path) -> int:
    """Put the run into the file; where that cannot be, or is interrupted, a file that was made for it goes again."""
    from core.session.keeping import remove_session
    from core.session.store import SessionStore

    there = path.exists()
    store = None
    try:
        store = SessionStore.open(path)
        return store.add(run)
    except (Refusal, KeyboardInterrupt, RuntimeError):  # the last is DuckDB's word for a signal
        if not there:
            if store is not None:
                store.close()
            remove_session(path)
        raise
    finally:
        if store is not None:
            store.close()


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
