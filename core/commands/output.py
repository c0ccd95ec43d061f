"""Where results go: text and JSON to stdout, JSON to a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import NotWritten, Refusal
from core.json_text import strict
from core.plain_text import visible


def write(text: str) -> None:
    """Text to stdout, ending in one newline. A terminal carries out no character of it."""
    sys.stdout.write(f"{visible(text.rstrip(), lines=True)}\n")
    sys.stdout.flush()


def note(sentence: str) -> None:
    """A sentence beside the results, to stderr."""
    sys.stderr.write(f"{visible(sentence)}\n")
    sys.stderr.flush()


def write_json(value: Any) -> None:
    """JSON to stdout."""
    write(json_text(value))


def json_text(value: Any) -> str:
    """Indented JSON in plain ASCII, so that no console can break it. JSON has no NaN and no infinity: they are null."""
    return strict(value, indent=1)


def check_folder(path: Path) -> None:
    """Refuse a file that could not be written later, before a long run begins."""
    if path.is_dir():
        raise Refusal(f"{path} is a folder; give a file name.")
    if not path.absolute().parent.is_dir():
        raise Refusal(f"There is no folder {path.absolute().parent}; make it first, or write elsewhere.")


def write_file(path: Path, text: str) -> None:
    """A text file, whole or not at all; ``NotWritten`` where it cannot be written. What is no file (a pipe) is written to."""
    from core.export.files import write_whole

    try:
        write_whole(f"{text.rstrip()}\n".encode(), path)
    except Refusal as refusal:
        raise NotWritten(str(refusal)) from refusal


def table(header: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "") -> str:
    """Columns side by side; what looks like a number stands to the right."""
    given = [header, *rows] if any(header) else rows
    every = [[visible(cell) for cell in row] for row in given]
    if not every:
        return ""
    widths = [max(len(row[column]) for row in every) for column in range(len(every[0]))]
    right = [_numeric([row[column] for row in rows]) for column in range(len(widths))]
    lines = []
    for row in every:
        cells = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def _numeric(cells: Sequence[str]) -> bool:
    told = [cell for cell in cells if cell not in ("", "—")]
    return bool(told) and all(cell[0] in "0123456789+-−" for cell in told)
