"""``tickscope ab``: two or more configurations take turns until it is plain which is faster, or that it cannot be told.

``--json`` writes, with the fields of ``Verdict`` and ``LayerVerdict`` in ``core.analysis.verdict`` and of ``run --json``::

    {"schema": 1,
     "trial": {"id": "", "same": false, "rounds": 14, "order": [0, 1, 1, 0], "most_rounds": 60, "most_seconds": 300.0,
               "parts": 1},
     "sides": [{... as run --json ...}],
     "verdicts": [{"side": 1, "name": "B", "metrics": {"tpot_ns": {"metric": "tpot_ns", "word": "faster", "ratio": 0.93,
                   "low": 0.9, "high": 0.97, "n": 11, "floor": 0.0, "decided": true, "hopeless": false, "why": "",
                   "looked": true}}}],
     "layers": [{"side": 1, "path": "", "stage": "", "kind": "decode", "ratio": 0.9, "low": 0.8, "high": 1.0,
                 "word": "can't tell", "a_ns": 0, "b_ns": 0, "n": 3}],
     "kernels": [{"side": 0, "name": "A", "names": [], "only_here": []}],
     "floors": {"tpot_ns": 0.008}, "stopped": "decided"}

Ratios are side over A of times: below 1 is faster. ``low`` and ``high`` are null while there are too few rounds.
"""

from __future__ import annotations

import argparse
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import paths
from core.commands.configure import SIDES, trial_config
from core.commands.switches import (
    model_switches,
    observation_switches,
    path_argument,
    quality_switches,
    target_switches,
    workload_switches,
)
from core.config import DTYPES, ABTestConfig

if TYPE_CHECKING:
    from core.execution.ab_test_state import ABTestState

NEW_TOKENS = 16
"""Shorter requests take turns more often, so that a change of the machine's mood falls on all sides alike."""

_SHOWN = "abc"  # in --help; the others work alike


def arguments(one: argparse.ArgumentParser) -> None:
    """The switches of ``tickscope ab``."""
    _sides(one)
    model = one.add_argument_group("model and target, of all sides")
    model_switches(model)
    target_switches(model)
    workload_switches(one.add_argument_group("workload, of all sides"), NEW_TOKENS, repeats=False)
    quality_switches(one.add_argument_group("quality cost, of each side with passes"))
    limits = one.add_argument_group("when to stop")
    rounds, seconds = ABTestConfig.most_rounds, ABTestConfig.most_seconds
    limits.add_argument(
        "--most-rounds", type=int, default=rounds, metavar="N", help=f"a round is one request of every side (default: {rounds})"
    )
    limits.add_argument(
        "--most-seconds",
        type=float,
        default=seconds,
        metavar="S",
        help=f"of measuring, all sides together (default: {seconds:.0f})",
    )
    results = one.add_argument_group("observation and results")
    observation_switches(results)
    results.add_argument("--out", type=path_argument, metavar="FILE", help="session file that the sides are added to as runs")


def _sides(one: argparse.ArgumentParser) -> None:
    sides = one.add_argument_group("sides")
    for side in SIDES:
        what = "passes of side A, which the others are compared with (default: none)"
        if side != "a":
            what = f"passes of side {side.upper()}: ID or ID:key=value,..., several separated by spaces; none for none"
        told = what if side in _SHOWN else argparse.SUPPRESS
        sides.add_argument(f"--{side}", nargs="*", action="extend", metavar="PASS", help=told)
    sides.add_argument("--aa", action="store_true", help="side A against itself: finds and keeps this machine's noise floor")
    for side in SIDES:
        dtype, threads = f"weights of side {side.upper()}", f"processor threads of side {side.upper()}"
        if side not in _SHOWN:
            dtype = threads = argparse.SUPPRESS
        sides.add_argument(f"--dtype-{side}", choices=DTYPES, help=dtype)
        sides.add_argument(f"--threads-{side}", type=int, metavar="N", help=threads)


def ab(args: argparse.Namespace) -> int:
    """Carry the A/B test out and report it; what was measured before a cancel or a failure is reported and kept as well."""
    from core.commands.following import interrupts
    from core.commands.output import check_folder, note

    config = trial_config(args)
    json_file = paths.typed(args.json) if args.json not in (None, "-") else None
    for path in (args.out, json_file):
        if path is not None:
            check_folder(path)
    with interrupts() as stop:
        status, state, kept = carry_out(config, args.out, stop, debug=getattr(args, "debug", False), executor=args.executor)
    if kept:
        note(kept)
    if state is not None and state.runs:
        _tell(state, as_json=args.json == "-", json_file=json_file)
    return stop.status(status)


def carry_out(
    config: ABTestConfig, session: Path | None, stop: threading.Event, *, debug: bool = False, executor: str = "local"
) -> tuple[int, ABTestState | None, str]:
    """Exit status, the A/B test as far as it came (None: it never began), and where it is kept, a sentence ("": nowhere)."""
    from core.commands.ab_report import standing
    from core.commands.following import PATIENCE_S, Progress, follow
    from core.commands.run import confirmed
    from core.program import Program

    program = Program(session, keep_session=session is not None, executor=executor)
    try:
        program.start_trial(config)
        status = follow(program, Progress(), stop, debug, lambda: standing(program.status, program.trial))
        state, store = program.trial, program.store
    finally:
        program.close(PATIENCE_S)
    return confirmed(status, session, store, state.runs if state is not None else (), state)


def _tell(state: ABTestState, *, as_json: bool, json_file: Path | None) -> None:
    from core.commands.ab_report import text, trial_json
    from core.commands.output import json_text, note, write, write_file, write_json

    result: dict[str, Any] = trial_json(state)
    if as_json:
        write_json(result)
    else:
        write(text(result))
    if json_file is not None:
        write_file(json_file, json_text(result))
        note(f"JSON written to {json_file}.")
