"""``tickscope demo`` without a window: a short run of the starter model, kept as session, charts and summary."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from core.commands import report
from core.commands.configure import check
from core.commands.following import interrupts
from core.commands.output import json_text, note, write, write_file
from core.commands.run import carry_out
from core.config import ModelConfig, RunConfig, WorkloadConfig
from core.errors import Refusal
from core.records.run import Run

DEFAULT_FOLDER = Path("tickscope-demo")
WORKLOAD = WorkloadConfig(new_tokens=32, repeats=5, warmup=1)


def demo(args: argparse.Namespace) -> int:
    """Run the demo and write its files, each named on stdout."""
    folder = args.out or DEFAULT_FOLDER
    config = demo_config(args.model)
    _make(folder)
    session = folder / "demo.tickscope"
    note(f"A short run of {args.model} without a window; its files go to {folder}.")
    with interrupts() as stop:
        status, measured, _ = carry_out(config, session, stop, debug=getattr(args, "debug", False))
    if measured is not None:
        written = [session, *write_files(measured, folder)]
        write("\nWritten:\n" + "\n".join(f"  {path}" for path in written))
    return stop.status(status)


def demo_config(spec: str) -> RunConfig:
    """The short run of a model; random tokens for one without tokenizer. ``Refusal`` if it is not there."""
    from core.models import catalog

    model = ModelConfig(spec)
    workload = WORKLOAD if catalog.describe(model).has_tokenizer else replace(WORKLOAD, prompt_tokens=16)
    return check(RunConfig(model, workload=workload, name="Demo"))


def write_files(run: Run, folder: Path) -> list[Path]:
    """Summary (text, Markdown, JSON) and every chart as PNG into a folder that is there; reports on stdout too."""
    from core.analysis.summary import summarize
    from core.export.figures import CHARTS, write_figure

    summary = summarize(run)
    write(report.text(summary))
    files = {
        folder / "summary.txt": report.text(summary),
        folder / "summary.md": report.markdown(summary),
        folder / "summary.json": json_text(summary),
    }
    for path, content in files.items():
        write_file(path, content)
    charts = []
    for name in CHARTS:
        path = folder / f"{name}.png"
        write_figure(name, run, path)
        charts.append(path)
    return [*files, *charts]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal(f"The folder {folder} cannot be made ({error.strerror}); give another with --out.") from error
