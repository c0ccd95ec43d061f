"""Writes files so that a reader finds the old one or the whole new one, never half of it; and names the files of a set."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from core.disk_space import is_full
from core.error_text import said
from core.errors import NotWritten, Refusal
from core.messages.reason import Reason
from core.plain_text import csv_cell, csv_number, visible
from core.records.run import Run


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a file name beside ``path`` to write to; it becomes ``path`` when the block ends well, and goes when it does not.

    A link stays one. What is there and is no file (a pipe, ``/dev/stdout``) is written to and not replaced.

    Raises:
        Refusal: ``path`` is a folder, or its folder is not there or not writable.
        NotWritten: the disk is full.
    """
    unfinished: Path | None = None
    try:
        if path.is_dir():
            raise Refusal(Reason("export.is-a-folder", path=str(path)))
        if not path.parent.is_dir():
            raise Refusal(Reason("export.no-such-folder", folder=str(path.parent), name=path.name))
        if path.exists() and not path.is_file():
            yield path
            return
        target = path.resolve()
        unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
        yield unfinished
        _reach_the_disk(unfinished)
        os.replace(unfinished, target)
    except OSError as error:
        reason = Reason("export.cannot-be-written", path=str(path), problem=error.strerror or said(error))
        raise (NotWritten if is_full(error) else Refusal)(reason) from error
    finally:
        if unfinished is not None:
            with suppress(OSError):  # it was said already why nothing can be done there
                unfinished.unlink(missing_ok=True)


def write_whole(content: bytes, path: Path) -> None:
    """A file whose content is there already; errors as ``replacing``."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


def _reach_the_disk(path: Path) -> None:
    """Some disks say only here that they are full."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def names(path: Path, suffix: str, parts: Sequence[str], runs: Sequence[Run]) -> dict[tuple[int, str], Path]:
    """File names of a set by (index of the run, part); makes the folder if ``path`` is meant as one.

    Several runs are told apart by their ids.
    """
    folder = path.is_dir() or not path.suffix
    if folder:
        try:
            path.mkdir(exist_ok=True)
        except OSError as error:
            raise Refusal(Reason("export.folder-cannot-be-made", path=str(path), problem=error.strerror)) from error
    found = {}
    for index, run in enumerate(runs):
        run_part = f"run{run.id}-" if len(runs) > 1 else ""
        for part in parts:
            name = f"{run_part}{part}{suffix}"
            found[index, part] = path / name if folder else path.with_name(f"{path.stem}-{name}")
    return found


def write_table(table: Mapping[str, Any], path: Path) -> None:
    """Columns as a CSV file (RFC 4180, UTF-8), column names with their units as the header; not measured is an empty cell."""
    columns = [column.tolist() if isinstance(column, np.ndarray) else list(column) for column in table.values()]
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([_with_unit(name) for name in table])
        writer.writerows([_cell(value) for value in row] for row in zip(*columns, strict=True))


_UNITS = re.compile(r"^(.+)_(ns|ms|s|mib|bytes)$")
_SPELLED = {"mib": "MiB"}


def _with_unit(name: str) -> str:
    found = _UNITS.match(name)
    return f"{found[1]} ({_SPELLED.get(found[2], found[2])})" if found else csv_cell(visible(name))


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        return csv_cell(visible(value))
    return csv_number(value) if isinstance(value, float) else value
