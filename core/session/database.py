"""Opens DuckDB files and says in one sentence why that, or a later read or write, did not work."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from core.error_text import said
from core.errors import Refusal
from core.messages.reason import Reason

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
        raise Refusal(Reason("session.is-a-folder", path=str(path)))
    exists = path.exists()
    if exists and not path.is_file():  # DuckDB waits at a pipe for ever, and writes to a device
        raise Refusal(Reason("session.is-no-file", path=str(path)))
    if not exists:
        if not create:
            raise Refusal(Reason("session.no-such-file", path=str(path)))
        check_folder(path)
    read_only = exists and not (_writable(path) and os.access(path.parent, os.W_OK))
    try:
        return duckdb.connect(str(path), read_only=read_only, config=SETTINGS), read_only
    except duckdb.Error as error:
        # Network shares and containers may say "writable" and then refuse.
        if exists and not read_only and re.search(r"Permission denied|Read-only file system", said(error)):
            try:
                return duckdb.connect(str(path), read_only=True, config=SETTINGS), True
            except duckdb.Error as second:
                raise Refusal(explain(second, path)) from second
        raise Refusal(explain(error, path)) from error


def check_folder(path: Path) -> None:
    """Refuse unless a new file can be made at ``path``."""
    if not path.parent.is_dir():
        raise Refusal(Reason("session.no-such-folder", folder=str(path.parent), name=path.name))
    if not os.access(path.parent, os.W_OK):
        raise Refusal(Reason("session.folder-not-writable", folder=str(path.parent), name=path.name))


def identity(path: Path) -> tuple[int, int] | None:
    """What tells this file from another that is put at its path; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def file_trouble(path: Path, opened: tuple[int, int] | None) -> Reason | None:
    """What became of the file that was opened at ``path``, as what follows its name, or None if it is there still."""
    now = identity(path)
    if now is None:
        return Reason("session.was-removed")
    return None if now == opened else Reason("session.was-replaced")


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


def without_log(path: Path) -> Reason:
    """The sentence for a file that was copied while all of its rows were in the log."""
    return Reason("session.copied-without-log", name=path.name, log=log_of(path).name)


def explain(error: BaseException, path: Path) -> Reason:
    """One sentence for people: what DuckDB or the system said about the file at ``path``, and what to do."""
    text = said(error)
    for pattern, told in _TROUBLES:
        if re.search(pattern, text, re.IGNORECASE):
            return told(path, text)
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    return Reason("session.cannot-be-used", name=path.name, problem=first)


def too_slow(path: Path) -> Reason:
    """The sentence for a query that ``limits.limited`` ended."""
    return Reason("session.too-slow", name=path.name)


def _open_elsewhere(path: Path, text: str) -> Reason:
    copied = Reason("session.the-file")
    if log_of(path).exists():
        copied = Reason("session.it-and-its-log", log=log_of(path).name)
    process = re.search(r"PID (\d+)", text)
    if process:
        return Reason("session.open-in-process", name=path.name, process=process[1], copied=copied)
    return Reason("session.open-elsewhere", name=path.name, copied=copied)


_TROUBLES: tuple[tuple[str, Callable[[Path, str], Reason]], ...] = (
    (r"lock on file|being used by another process|different configuration than existing", _open_elsewhere),
    (
        r"No space left|not enough space|File too large|disk (is )?full|quota",
        lambda path, _: Reason("session.disk-full", name=path.name, folder=str(path.parent)),
    ),
    (
        r"Out of Memory Error|memory_limit|failed to (allocate|pin)",
        lambda path, _: Reason("session.too-much-memory", name=path.name),
    ),
    (
        r"WAL was created for|WAL does not match",
        lambda path, _: Reason("session.log-of-another", name=path.name, log=log_of(path).name, folder=str(path.parent)),
    ),
    (
        r"replaying WAL|Corrupt WAL",
        lambda path, _: Reason("session.log-damaged", name=path.name, log=log_of(path).name, folder=str(path.parent)),
    ),
    (r"not a valid DuckDB|extensions? is disabled|Extension \"", lambda path, _: Reason("session.no-session", name=path.name)),
    (r"version number|newer version of DuckDB|storage version", lambda path, _: Reason("session.newer-duckdb", name=path.name)),
    (
        r"Corrupt|enough bytes|checksum|INTERNAL Error|Serialization Error|deserialize|invalidated",
        lambda path, _: Reason("session.damaged", name=path.name),
    ),
    (
        r"Permission denied|Access is denied|Read-only file system",
        lambda path, _: Reason("session.no-permission", name=path.name),
    ),
)
"""What DuckDB's words mean, for it raises one class of error for most of them; the first that fits counts."""


def _writable(path: Path) -> bool:
    # The administrator can write to a file whose owner made it read-only; the wish still counts.
    return os.access(path, os.W_OK) and bool(path.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
