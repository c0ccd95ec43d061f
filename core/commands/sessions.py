"""``tickscope show``, ``export`` and ``compare``: what a session file holds, without loading torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import paths, units
from core.analysis import metrics
from core.analysis.compare import Comparison, compare
from core.analysis.summary import SCHEMA, summarize
from core.commands import report
from core.commands.output import note, table, write, write_json
from core.error_text import named
from core.errors import Refusal
from core.records.run import Run

if TYPE_CHECKING:
    from core.session.store import SessionStore

_LAYERS_SHOWN = 20


def show(args: argparse.Namespace) -> int:
    """List the runs of a session, or report one in full."""
    runs, unreadable = read_all(args.file, args.run)
    if args.json:
        left_out = [{"run": number, "why": why} for number, why in unreadable.items()]
        shown = [summarized(run, args.file) for run in runs]
        write_json({"schema": SCHEMA, "runs": shown, **({"unreadable": left_out} if left_out else {})})
    elif args.run is not None or len(runs) == 1:
        write(report.text(summarized(runs[0], args.file)))
    elif not runs and not unreadable:
        write(f"{args.file} holds no runs yet.")
    elif runs:
        write(_listed([summarized(run, args.file, intervals=False) for run in runs]))
    for why in unreadable.values():
        note(why)
    return 0


def export(args: argparse.Namespace) -> int:
    """Write runs, or one chart, in another format; names the files on stdout."""
    from core.export.base import WarningExporter, exporters

    try:
        exporter = exporters.get(args.format)
    except ValueError as error:
        raise Refusal(str(error)) from error
    reason = exporter.check()
    if reason is not None:
        raise Refusal(f"{exporter.title} cannot be written: {reason}.")
    runs = read_runs(args.file, args.run)
    if not runs:
        raise Refusal(f"{args.file} holds no runs yet; there is nothing to export.")
    try:
        written = exporter.write(runs, args.out) if args.chart is None else _chart(args, runs)
    except OSError as error:
        raise Refusal(f"{args.out} cannot be written ({error.strerror or error}); choose another place.") from error
    write("\n".join(str(path) for path in written))
    for path in written:
        warned = exporter.warning(path) if isinstance(exporter, WarningExporter) else None
        if warned:
            note(str(warned))
    return 0


def compare_runs(args: argparse.Namespace) -> int:
    """Two runs side by side."""
    file_a, number_a = _place(args.a)
    file_b, number_b = _place(args.b, file_a)
    a, b = _one(file_a, number_a), _one(file_b, number_b)
    found = compare(a, b)
    if args.json:
        write_json({"a": _named(a, file_a), "b": _named(b, file_b), **found.as_json()})
    else:
        write(comparison_text(a, b, found))
    return 0


def read_all(path: Path, number: int | None) -> tuple[list[Run], dict[int, str]]:
    """The runs of a session file, or the one of that number, and by number why others cannot be read.

    Raises:
        Refusal: the file or the run is not there, or the one that was asked for cannot be read.
    """
    store = _open(path)
    runs, unreadable = [], {}
    try:
        for one in [head.id for head in store.runs()] if number is None else [number]:
            try:
                runs.append(store.read(one))
            except Refusal as refusal:
                if number is not None:
                    raise
                unreadable[one] = str(refusal)
    finally:
        store.close()
    return runs, unreadable


def read_runs(path: Path, number: int | None) -> list[Run]:
    """As ``read_all``, telling on stderr what cannot be read."""
    runs, unreadable = read_all(path, number)
    for why in unreadable.values():
        note(why)
    return runs


def summarized(run: Run, path: Path, *, intervals: bool = True) -> dict[str, Any]:
    """The summary of a run from a file. Types are checked where it is read; what they hold may still make no sense."""
    try:
        return summarize(run, intervals=intervals)
    except Exception as error:
        raise Refusal(f"Run {run.id} of {path.name} makes no sense ({named(error)}); it was changed.") from error


def comparison_text(a: Run, b: Run, found: Comparison) -> str:
    """Headline numbers, the layers that differ most, and the warnings."""
    tiles = []
    for tile in found.tiles:
        bounds = f"{units.ratio(tile.low)} … {units.ratio(tile.high)}" if tile.low is not None else units.DASH
        shown = units.of_unit(tile.unit)
        tiles.append((tile.name, shown(tile.a), shown(tile.b), units.ratio(tile.ratio), bounds))
    most = sorted(found.layers, key=lambda row: -abs(row.delta_ns or 0))[:_LAYERS_SHOWN]
    layers = [
        (
            row.path or "(model)",
            row.kind,
            units.duration(row.a_ns),
            units.duration(row.b_ns),
            units.signed_duration(row.delta_ns),
        )
        for row in most
        if row.delta_ns
    ]
    parts = [f"A  {a.name} ({a.facts.status})\nB  {b.name} ({b.facts.status})"]
    parts.append(table(("", "A", "B", "B / A", "95 % interval"), tiles))
    if layers:
        parts.append("Layers that differ most\n" + table(("layer", "kind", "A", "B", "B − A"), layers, "  "))
    verdicts = [
        (metrics.title(one.metric), str(one.word.said), units.ratio(one.ratio), str(one.n), str(one.why))
        for one in found.verdicts
    ]
    if verdicts:
        parts.append("Verdicts of their A/B test\n" + table(("", "B is", "B / A", "pairs", ""), verdicts, "  "))
    else:
        parts.append(f"No verdict: {found.refused}")
    if found.warnings:
        parts.append("Mind:\n" + "\n".join(f"  {warning}" for warning in found.warnings))
    return "\n\n".join(parts)


def _chart(args: argparse.Namespace, runs: list[Run]) -> list[Path]:
    from core.export.figures import CHARTS, SPEED_QUALITY, write_chart_csv, write_figure

    if args.chart not in (*CHARTS, SPEED_QUALITY):
        raise Refusal(f"There is no chart {args.chart!r}; there is {', '.join((*CHARTS, SPEED_QUALITY))}.")
    if args.format not in ("png", "svg", "pdf", "csv"):
        raise Refusal(f"A chart cannot be written as {args.format}; give png, svg, pdf or csv.")
    if args.chart == SPEED_QUALITY:
        return [_speed_quality(args, runs)]
    written = []
    for run in runs:
        path = args.out if args.out.suffix else args.out.with_suffix(f".{args.format}")
        if len(runs) > 1:
            path = path.with_name(f"{path.stem}-{run.id}{path.suffix}")
        if args.format == "csv":
            write_chart_csv(args.chart, run, path)
        else:
            write_figure(args.chart, run, path, theme=args.theme)
        written.append(path)
    return written


def _speed_quality(args: argparse.Namespace, runs: list[Run]) -> Path:
    """The one chart of all runs."""
    from core.analysis.speed_quality import points
    from core.export.figures import write_speed_quality
    from core.export.files import write_table
    from core.export.speed_quality import point_table

    path: Path = args.out if args.out.suffix else args.out.with_suffix(f".{args.format}")
    if args.format == "csv":
        write_table(point_table(points(runs)), path)
    else:
        write_speed_quality(points(runs), path, theme=args.theme)
    return path


def _listed(summaries: list[dict[str, Any]]) -> str:
    listed = [one for one in metrics.METRICS if one.listed]
    rows = []
    for summary in summaries:
        numbers = [units.of_unit(one.unit)(summary["metrics"][one.id]["median"]) for one in listed]
        rows.append((str(summary["id"]), summary["name"], summary["created"], summary["status"], *numbers))
    return table(("run", "name", "created", "status", *(one.called for one in listed)), rows)


def _place(text: str, same: Path | None = None) -> tuple[Path, int | None]:
    """``FILE[#run]``; a file whose name holds a ``#`` is taken as it is. ``#N`` is a run of ``same``."""
    paths.typed(text)
    if paths.is_there(text):
        return Path(text), None
    file, hash_sign, number = text.rpartition("#")
    if not hash_sign:
        return Path(text), None
    if not number.isdigit():
        raise Refusal(f"{text!r} names no run; write it as FILE#N with N a run's number.")
    if not file:
        if same is None:
            raise Refusal(f"{text!r} names no session file; write it as FILE#N.")
        return same, int(number)
    return Path(file), int(number)


def _one(path: Path, number: int | None) -> Run:
    store = _open(path)
    try:
        heads = store.runs()
        if not heads:
            raise Refusal(f"{path} holds no runs yet; there is nothing to compare.")
        return store.read(heads[-1].id if number is None else number)
    finally:
        store.close()


def _open(path: Path) -> SessionStore:
    from core.session.store import SessionStore

    return SessionStore.open(path, create=False)


def _named(run: Run, path: Path) -> dict[str, Any]:
    return {"file": str(path), "run": run.id, "name": run.name, "status": run.facts.status}
