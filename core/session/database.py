"""Opens DuckDB files and says in one sentence why that, or a later read or write, did not work."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import duckdb

from core.errors import Refusal

STORAGE_VERSION = "v1.4.0"
"""DuckDB's own file format: that of the oldest DuckDB this program accepts, so that old and new clients read every file."""

FILE_HEAD_BYTES = 3 * 4096
"""Before the first block of a file: DuckDB's main header and its two database headers."""

SETTINGS = {
    # One thread and little memory, so that writing does not compete with inference.
    "threads": 1,
    "memory_limit": "512MB",
    "storage_compatibility_version": STORAGE_VERSION,
    # Without these DuckDB tries to download an extension when it is handed, say, an SQLite file.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    # A file may come from a stranger: nothing in it may reach another file, fill the disk, or change these settings.
    "enable_external_access": False,
    "temp_directory": "",
    "python_enable_replacements": False,
    "lock_configuration": True,
}


def connect(path: Path, *, create: bool) -> tuple[Any, bool]:
    """Open (or create) the database at ``path``; returns the connection and whether it can only be read.

    Raises:
        Refusal: there is no such file (or no such folder), it is a folder or a device, it is not DuckDB's, it is damaged, it is
            made by a newer DuckDB, another process has it open, or a new file cannot be made there.
    """
    if path.is_dir():
        raise Refusal(f"{path} is a folder; choose a .tickscope file in it, or another name.")
    exists = path.exists()
    if exists and not path.is_file():  # DuckDB waits at a pipe for ever, and writes to a device
        raise Refusal(f"{path} is no file but a pipe, a socket or a device; choose a .tickscope file.")
    if not exists:
        if not create:
            raise Refusal(f"There is no session file {path}; check the name, or make a new session.")
        check_folder(path)
    read_only = exists and not (_writable(path) and os.access(path.parent, os.W_OK))
    try:
        return duckdb.connect(str(path), read_only=read_only, config=SETTINGS), read_only
    except duckdb.Error as error:
        # Network shares and containers may say "writable" and then refuse.
        if exists and not read_only and re.search(r"Permission denied|Read-only file system", str(error)):
            try:
                return duckdb.connect(str(path), read_only=True, config=SETTINGS), True
            except duckdb.Error as second:
                raise Refusal(explain(second, path)) from second
        raise Refusal(explain(error, path)) from error


def check_folder(path: Path) -> None:
    """Refuse unless a new file can be made at ``path``."""
    if not path.parent.is_dir():
        raise Refusal(f"The folder {path.parent} does not exist; make it, or choose another place for {path.name}.")
    if not os.access(path.parent, os.W_OK):
        raise Refusal(f"The folder {path.parent} is not writable; choose another place for {path.name}.")


def identity(path: Path) -> tuple[int, int] | None:
    """What tells this file from another that is put at its path; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def file_trouble(path: Path, opened: tuple[int, int] | None) -> str | None:
    """What became of the file that was opened at ``path``, as what follows its name, or None if it is there still."""
    now = identity(path)
    if now is None:
        return "was removed meanwhile"
    return None if now == opened else "was replaced by another file meanwhile"


def bytes_in_use(cursor: Any) -> int:
    """How long the open file has to be for every block that a table or DuckDB's own records lie in.

    Not as long as the blocks it counts: those that are free at its end DuckDB cuts off itself, after it has noted their number.
    """
    newest = "SELECT max(greatest(block_id, coalesce(list_max(additional_block_ids), -1))) FROM system.main.{} WHERE persistent"
    tables = cursor.execute(
        "SELECT table_name FROM system.main.duckdb_tables() WHERE NOT internal AND NOT temporary"
    ).fetchall()
    found = [cursor.execute(newest.format("pragma_storage_info(?)"), table).fetchone() for table in tables]
    found.append(cursor.execute("SELECT max(block_id) FROM system.main.pragma_metadata_info()").fetchone())
    name = cursor.execute("SELECT current_database()").fetchone()
    query = "SELECT block_size FROM system.main.pragma_database_size() WHERE database_name = ?"
    (size,) = cursor.execute(query, name).fetchone()
    last = max((number for (number,) in found if number is not None), default=-1)
    return FILE_HEAD_BYTES + (last + 1) * int(size) if last >= 0 else 0


def remove_leftovers(path: Path) -> None:
    """Delete the write-ahead log of a file that is about to be replaced, lest DuckDB replays it into the new one."""
    log_of(path).unlink(missing_ok=True)


def log_of(path: Path) -> Path:
    """DuckDB's write-ahead log of a file: what was written last, until the file is closed."""
    return path.with_name(path.name + ".wal")


def without_log(path: Path) -> str:
    """The sentence for a file that was copied while all of its rows were in the log."""
    log = log_of(path).name
    return (
        f"{path.name} holds nothing: it was copied without its log while it was open, and its runs are in the .wal file beside "
        f"the original; copy that one too, as {log}, or close the original and copy it again."
    )


def explain(error: BaseException, path: Path) -> str:
    """One sentence for people: what DuckDB or the system said about the file at ``path``, and what to do."""
    text = str(error)
    name = path.name
    for pattern, sentence in _SENTENCES:
        found = re.search(pattern, text, re.IGNORECASE)
        if found:
            copied = f"it and of {name}.wal, which holds its newest runs" if log_of(path).exists() else "the file"
            return sentence.format(name=name, folder=path.parent, process=_process(text), copied=copied)
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    return f"The session file {name} cannot be used ({first}); try again, or continue in another file with Save as."


def too_slow(path: Path) -> str:
    """The sentence for a query that ``limits.limited`` ended."""
    return f"{path.name} took longer than a session may, so it is damaged or made to do harm; use a backup of the file."


_SENTENCES = (
    (
        r"lock on file|being used by another process|different configuration than existing",
        "{name} is already open in another program{process}; close it there, or open a copy of {copied}.",
    ),
    (
        r"No space left|not enough space|File too large|disk (is )?full|quota",
        "The disk is full, so {name} cannot grow; free some space in {folder}, and what is waiting of a run under way will be "
        "written.",
    ),
    (
        r"Out of Memory Error|memory_limit|failed to (allocate|pin)",
        "{name} asks for more memory than a session may take, so it is damaged or made to do harm; use a backup of the file.",
    ),
    (
        r"WAL was created for|WAL does not match",
        "{name}.wal in {folder} belongs to an older state of {name}, or to another file, so the two cannot be used together; "
        "move {name}.wal away, and {name} opens without it.",
    ),
    (
        r"replaying WAL|Corrupt WAL",
        "{name}.wal in {folder}, which holds the newest rows of {name}, is damaged; use a backup of both, or move {name}.wal "
        "away, and {name} opens without those rows.",
    ),
    (
        r"not a valid DuckDB|extensions? is disabled|Extension \"",
        "{name} is not a Tickscope session; choose a .tickscope file.",
    ),
    (
        r"version number|newer version of DuckDB|storage version",
        "{name} was written by a newer DuckDB than the one installed here; update Tickscope and its duckdb package to open it.",
    ),
    (
        r"Corrupt|enough bytes|checksum|INTERNAL Error|Serialization Error|deserialize|invalidated",
        "{name} is damaged, part of it is missing or overwritten; use a backup of the file.",
    ),
    (
        r"Permission denied|Access is denied|Read-only file system",
        "{name} may not be read or written by you; change its permissions, or copy it to another place.",
    ),
)


def _process(text: str) -> str:
    found = re.search(r"PID (\d+)", text)
    return f" (process {found[1]})" if found else ""


def _writable(path: Path) -> bool:
    # The administrator can write to a file whose owner made it read-only; the wish still counts.
    return os.access(path, os.W_OK) and bool(path.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
