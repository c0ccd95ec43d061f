"""``tickscope run``: one run through the same program that the window drives."""

from __future__ import annotations

import argparse
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from core import paths
from core.commands import FAILED, report
from core.commands.configure import run_config
from core.commands.following import PATIENCE_S, Progress, follow, interrupts
from core.commands.output import check_folder, json_text, note, write, write_file, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.config import RunConfig
    from core.records.run import Run
    from core.session.store import SessionStore

Measured = TypeVar("Measured")


def run(args: argparse.Namespace) -> int:
    """Carry the run out and report it; what was measured before a cancel or a failure is reported and kept as well."""
    config = run_config(args)
    json_file = paths.typed(args.json) if args.json not in (None, "-") else None
    for path in (args.out, json_file):
        if path is not None:
            check_folder(path)
    with interrupts() as stop:
        status, measured, kept = carry_out(config, args.out, stop, debug=getattr(args, "debug", False), executor=args.executor)
    if kept:
        note(kept)
    if measured is not None:
        _report(measured, as_json=args.json == "-", json_file=json_file)
    return stop.status(status)


def carry_out(
    config: RunConfig, session: Path | None, stop: threading.Event, *, debug: bool = False, executor: str = "local"
) -> tuple[int, Run | None, str]:
    """Exit status, the run as far as it came (None: it never began), and a sentence about where it is kept ("": nowhere)."""
    from core.program import Program

    program = Program(session, keep_session=session is not None, executor=executor)
    try:
        program.start(config)
        status = follow(program, Progress(), stop, debug)
        measured = program.live()
        store = program.store
    finally:
        program.close(PATIENCE_S)
    return confirmed(status, session, store, [measured] if measured is not None else [], measured)


def confirmed(
    status: int, session: Path | None, store: SessionStore | None, runs: Sequence[Run], measured: Measured
) -> tuple[int, Measured, str]:
    """``carry_out``'s answer, once the closed file was looked into: what is not there is not said to be kept."""
    if session is None or not runs:
        return status, measured, ""
    from core.session.keeping import confirm

    sound, sentence = confirm(session if store is None else store.path, runs)
    return (status if sound else FAILED), measured, str(sentence)


def _report(measured: Run, *, as_json: bool, json_file: Path | None) -> None:
    from core.analysis.summary import summarize

    summary = summarize(measured)
    if as_json:
        write_json(summary)
    else:
        write(report.text(summary))
    if json_file is not None:
        write_file(json_file, json_text(summary))
        note(f"JSON written to {json_file}.")
