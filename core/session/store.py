"""The session file: runs with their columns, facts and notes in one DuckDB database.

Threads: the worker begins and updates runs, the writer appends, the face lists, reads, renames and deletes. One connection
is open; every call works on a cursor of its own, which is a transaction of its own, so readers never wait for the writer
(DuckDB shows them the last commit). Writers take turns by a lock, because two transactions that touch one run would conflict.
A commit is in DuckDB's write-ahead log when a call returns, so that ``kill -9`` loses nothing that was acknowledged.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import duckdb

from core.error_text import reason_of
from core.errors import NotWritten, Refusal
from core.messages.reason import Reason
from core.paths import typed
from core.records.deltas import Written
from core.records.run import UNREADABLE, Group, Run, RunFacts
from core.session import codec
from core.session.copying import copy_session
from core.session.database import (
    bytes_in_use,
    check_folder,
    connect,
    explain,
    file_trouble,
    identity,
    log_of,
    remove_leftovers,
    too_slow,
    without_log,
)
from core.session.deleted import DeletedHead, head_in_file, put_back
from core.session.heads import HEADS, RunHead, head_of
from core.session.limits import Late, check_size, limited
from core.session.making import being_made, was_being_made
from core.session.older_copy import copied, forget
from core.session.rows import append_rows, missing_rows, read_rows
from core.session.schema import RUN_TABLES, SCHEMA_VERSION, file_version, migrate
from core.session.soundness import fault
from core.session.unread_log import EMPTY_BYTES, damaged, log_kept
from profilers.trace import Trace

SUFFIX = ".tickscope"

INTERRUPT_AGAIN_S = 0.02


class SessionStore:
    """One open session file. Every method may be called from any thread and raises ``Refusal`` with a sentence for people."""

    def __init__(self, path: Path, connection: Any, read_only: bool, folder: Path | None = None) -> None:
        """``folder``: of the copy that is open in place of ``path``, for this session to remove."""
        self.path = path
        self._folder = folder
        self.read_only = read_only
        self._connection = connection
        self._lock = threading.RLock()
        # DuckDB 2 refuses to close a connection while another thread fetches from one of its cursors, and before that it waits
        # for the query: so who closes lets the readers out first.
        self._turn = threading.Condition()
        self._readers: set[Any] = set()  # cursors
        self._closed = False
        self._begun: set[int] = set()  # runs of this process: only these can really be running
        self._decoded: dict[int, tuple[tuple[Any, ...], RunHead]] = {}
        self._identity = identity(path)
        self._invalid = False  # DuckDB gave the open database up after a failed write; it must be opened anew

    @classmethod
    def open(cls, path: str | Path, create: bool = True) -> SessionStore:
        """Open a session file, or make one if there is none and ``create``; read-only where it cannot be written.

        One of an older version is brought up to date; where it cannot be written, a copy of it that goes with the session.

        Raises:
            Refusal: see ``database.connect``; also if it is another program's database or of a newer schema version.
        """
        path = typed(path).absolute()
        if was_being_made(path) and path.is_file() and not log_of(path).exists() and path.stat().st_size <= EMPTY_BYTES:
            path.unlink()  # killed before it held anything: it is made anew
            create = True
        with log_kept(path) as all_in_log, being_made(path) if create and not path.exists() else nullcontext():
            return cls._opened(path, create, all_in_log)

    @classmethod
    def _opened(cls, path: Path, create: bool, all_in_log: bool) -> SessionStore:
        new = not path.exists()
        alone = not new and not log_of(path).exists()
        connection, read_only = connect(path, create=create)
        try:
            with limited(connection) as late:
                found = file_version(connection, path.name)
                if found > SCHEMA_VERSION:
                    raise Refusal(Reason("session.newer-tickscope", name=path.name, version=found))
                if found == 0 and all_in_log:
                    raise damaged(path)
                if found == 0 and alone and not create:
                    raise Refusal(without_log(path))
                if found < SCHEMA_VERSION:
                    if read_only:
                        connection.close()
                        return cls._copy_of_older(path)
                    migrate(connection, found)
        except duckdb.Error as error:
            connection.close()
            if new:  # there was no room for it
                path.unlink(missing_ok=True)
                remove_leftovers(path)
            raise Refusal(too_slow(path) if late else explain(error, path)) from error
        except Refusal:
            connection.close()
            raise
        return cls(path, connection, read_only)

    @classmethod
    def _copy_of_older(cls, path: Path) -> SessionStore:
        with copied(path) as copy:
            connection, _ = connect(copy, create=False)
            try:
                with limited(connection) as late:
                    migrate(connection, file_version(connection, path.name))
            except duckdb.Error as error:
                connection.close()
                raise Refusal(too_slow(path) if late else explain(error, path)) from error
            except Refusal:
                connection.close()
                raise
            return cls(path, connection, read_only=True, folder=copy.parent)

    def begin(self, run: Run) -> int:
        """Add a run (without its columns); returns its id, from 1."""
        with self._writing() as cursor:
            run_id = self._next_id(cursor)
            self._insert_head(cursor, run_id, run)
        self._begun.add(run_id)
        return run_id

    def add(self, run: Run) -> int:
        """Add a run with all its columns, or nothing of it; returns its id."""
        with self._writing() as cursor:
            run_id = self._next_id(cursor)
            self._insert_head(cursor, run_id, run)
            append_rows(cursor, run_id, run.trace, Written())
        return run_id

    def append(self, run_id: int, trace: Trace, written: Written) -> Written:
        """Add the rows of ``trace`` past ``written`` (``Written()`` at first); all of them or, if it raises, none."""
        with self._writing() as cursor:
            return append_rows(cursor, run_id, trace, written)

    def update(self, run_id: int, facts: RunFacts) -> None:
        """Replace what is known about a run."""
        with self._writing() as cursor:
            text = codec.facts_to_json(facts)
            cursor.execute("UPDATE runs SET status = ?, facts = ? WHERE id = ?", [facts.status, text, run_id])
            self._write_environment(cursor, run_id, facts)

    def runs(self) -> list[RunHead]:
        """All runs, oldest first."""
        with self.reading() as cursor:
            return self._heads(cursor, "")

    def read(self, run_id: int) -> Run:
        """One run in full; ``Refusal`` if there is none of that id."""
        with self.reading() as cursor:
            cursor.execute("BEGIN")  # head and columns of one and the same commit
            heads = self._heads(cursor, "WHERE runs.id = ?", [run_id])
            if not heads:
                known = tuple(str(row[0]) for row in cursor.execute("SELECT id FROM runs ORDER BY id").fetchall())
                if not known:
                    raise Refusal(Reason("session.no-runs-yet", run=run_id, name=self.path.name))
                raise Refusal(Reason("session.no-such-run", run=run_id, name=self.path.name, known=known))
            head = heads[0]
            if head.status == UNREADABLE:
                raise Refusal(Reason("session.run-unreadable", run=run_id, name=self.path.name, problem=head.facts.error))
            try:
                check_size(cursor, run_id)
                trace = read_rows(cursor, run_id)
                wrong = None if run_id in self._begun else fault(trace)
            except duckdb.Error:
                raise
            except (ValueError, TypeError, OverflowError, MemoryError) as error:
                wrong = reason_of(error)
            if wrong:
                raise Refusal(Reason("session.run-damaged", run=run_id, name=self.path.name, wrong=wrong))
        said = (head.id, head.name, head.created, head.config, head.facts)
        return Run(*said, trace, head.note, head.group, head.role)

    def missing(self, runs: Sequence[Run]) -> Reason | None:
        """Why not every row of ``runs`` is in the file, as what follows its name ("was removed meanwhile"), or None."""
        try:
            with self.reading() as cursor:
                for run in runs:
                    lacking = missing_rows(cursor, run.id, run.trace)
                    if lacking:
                        return Reason("session.lacks", lacking=lacking, run=run.id)
            return self.trouble()
        except Refusal as refusal:
            return Reason("session.not-read-any-more", refusal=refusal.reason)

    def trouble(self) -> Reason | None:
        """Why the file at ``path`` is not the whole of the one that is open, as what follows its name, or None."""
        changed = file_trouble(self.path, self._identity)
        if changed is not None:
            return changed
        try:
            with self._lock, self.reading() as cursor:  # nobody writes meanwhile, so the file neither grows nor shrinks
                needed = bytes_in_use(cursor)
                there = self.path.stat().st_size
        except Refusal as refusal:
            return Reason("session.not-read-any-more", refusal=refusal.reason)
        return Reason("session.was-cut-off") if there < needed else None

    def rename(self, run_id: int, name: str) -> None:
        """Give a run another name."""
        with self._writing() as cursor:
            cursor.execute("UPDATE runs SET name = ? WHERE id = ?", [name, run_id])

    def annotate(self, run_id: int, note: str) -> None:
        """Replace a run's note."""
        with self._writing() as cursor:
            cursor.execute("UPDATE runs SET note = ? WHERE id = ?", [note, run_id])

    def delete(self, run_id: int) -> DeletedHead | None:
        """Remove a run and all its rows; the file reuses their room. Returns what ``restore`` needs beside the run itself."""
        with self._writing() as cursor:
            head = head_in_file(cursor, run_id)
            for table in RUN_TABLES:
                cursor.execute(f"DELETE FROM {table} WHERE run = ?", [run_id])
            cursor.execute("DELETE FROM runs WHERE id = ?", [run_id])
            cursor.execute("DELETE FROM groups WHERE id NOT IN (SELECT group_id FROM runs WHERE group_id IS NOT NULL)")
        return head

    def restore(self, run: Run, head: DeletedHead | None = None) -> int:
        """Put a run that was deleted back with all its rows, under its old id if that is free; returns its id.

        With the ``head`` that ``delete`` gave, the file says of it what it said before. A run that was read from a file lacks
        some of that: consents never come out of one.
        """
        with self._writing() as cursor:
            (taken,) = cursor.execute("SELECT count(*) FROM runs WHERE id = ?", [run.id]).fetchone()
            run_id = self._next_id(cursor) if taken or run.id < 1 else run.id
            if head is None:
                self._insert_head(cursor, run_id, run)
            else:
                put_back(cursor, run_id, head)
            append_rows(cursor, run_id, run.trace, Written())
        return run_id

    def save_as(self, path: str | Path) -> Reason | None:
        """Copy everything to another file (replacing it) and continue there; the old file stays as it is, or may be gone.

        Returns:
            A sentence about runs that could not be copied whole; None if all were.
        """
        path = typed(path).absolute()
        if path == self.path or (path.exists() and self.path.exists() and path.samefile(self.path)):
            return None
        if path.is_dir():
            raise Refusal(Reason("session.name-the-new-file", path=str(path)))
        check_folder(path)
        with self._lock:
            unfinished = path.with_name(path.name + ".part")
            try:
                with self.reading() as cursor:
                    lost = copy_session(cursor, unfinished)
                remove_leftovers(path)
                os.replace(unfinished, path)
            except (duckdb.Error, OSError, Refusal) as error:
                unfinished.unlink(missing_ok=True)
                remove_leftovers(unfinished)
                raise Refusal(error.reason if isinstance(error, Refusal) else explain(error, path)) from error
            connection, read_only = connect(path, create=False)
            with self._turn:
                self._turn.wait_for(lambda: not self._readers)
                self._connection.close()
                self._connection, self.path, self.read_only = connection, path, read_only
                self._identity = identity(path)
                self._forget_copy()
        return Reason("session.rows-lost", runs=tuple(map(str, lost)), name=path.name) if lost else None

    def close(self) -> None:
        """Write everything to the file itself (no write-ahead log stays behind) and let go of it.

        Whoever is reading is interrupted and gets a ``Refusal``, as does whoever comes after.
        """
        with self._lock:
            self._closed = True
            self._disconnect()
            self._forget_copy()

    def _forget_copy(self) -> None:
        forget(self._folder)
        self._folder = None

    def _disconnect(self) -> None:
        """Close the connection once nobody reads. A reader asks several times, so it is interrupted until it leaves."""
        with self._turn:
            while self._readers:
                for cursor in self._readers:
                    cursor.interrupt()
                self._turn.wait(INTERRUPT_AGAIN_S)
            self._connection.close()

    def _heads(self, cursor: Any, where: str, values: list[Any] | None = None) -> list[RunHead]:
        # The face lists the runs again after every change, and decoding takes 0.5 ms a run.
        rows = cursor.execute(f"{HEADS} {where} ORDER BY runs.id", values or []).fetchall()
        for row in rows:
            if row[0] not in self._decoded or self._decoded[row[0]][0] != row:
                self._decoded[row[0]] = row, head_of(row, ours=row[0] in self._begun)
        return [self._decoded[row[0]][1] for row in rows]

    def _next_id(self, cursor: Any) -> int:
        (newest,) = cursor.execute("SELECT coalesce(max(id), 0) FROM runs").fetchone()
        return int(newest) + 1

    def _insert_head(self, cursor: Any, run_id: int, run: Run) -> None:
        config, facts = codec.to_json(run.config), codec.facts_to_json(run.facts)
        group, role = (None, None) if run.group is None else (run.group.id, run.role)
        row = [run_id, run.name, run.created, run.facts.status, run.note, config, facts, group, role]
        cursor.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        if run.group is not None:
            self._insert_group(cursor, run.group)
        self._write_environment(cursor, run_id, run.facts)

    def _insert_group(self, cursor: Any, group: Group) -> None:
        (there,) = cursor.execute("SELECT count(*) FROM groups WHERE id = ?", [group.id]).fetchone()
        if not there:
            row = [group.id, group.kind, group.created, codec.to_json(group.config)]
            cursor.execute("INSERT INTO groups VALUES (?, ?, ?, ?)", row)

    def _write_environment(self, cursor: Any, run_id: int, facts: RunFacts) -> None:
        new = {name: codec.to_json(value) for name, value in facts.environment.items()}
        if dict(cursor.execute("SELECT name, value FROM environment WHERE run = ?", [run_id]).fetchall()) == new:
            return
        cursor.execute("DELETE FROM environment WHERE run = ?", [run_id])
        if new:
            cursor.execute("INSERT INTO environment SELECT ?, unnest(?), unnest(?)", [run_id, list(new), list(new.values())])

    def _was_closed(self) -> Reason:
        return Reason("session.was-closed", name=self.path.name)

    @contextmanager
    def reading(self) -> Iterator[Any]:
        cursor = None
        late = Late()
        try:
            with self._turn:
                if self._closed:
                    raise Refusal(self._was_closed())
                cursor = self._connection.cursor()
                self._readers.add(cursor)
            with limited(cursor, late=late):
                yield cursor
        except duckdb.Error as error:
            sentence = self._was_closed() if self._closed else too_slow(self.path) if late else explain(error, self.path)
            raise Refusal(sentence) from error
        finally:
            if cursor is not None:
                with self._turn:
                    self._readers.discard(cursor)
                    cursor.close()
                    self._turn.notify_all()

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        with self._lock:
            if self.read_only:
                raise Refusal(Reason("session.read-only", name=self.path.name))
            late = Late()
            if self._invalid:
                self._connection, self.read_only = connect(self.path, create=False)
                self._invalid = False
            try:
                cursor = self._connection.cursor()
                try:
                    with limited(cursor, late=late):
                        cursor.execute("BEGIN")
                        yield cursor
                        cursor.execute("COMMIT")
                finally:
                    cursor.close()  # rolls back what was not committed
            except duckdb.Error as error:
                if isinstance(error, duckdb.FatalException):
                    self._disconnect()
                    self._invalid = True
                raise _not_written(too_slow(self.path) if late else explain(error, self.path)) from error


def _not_written(reason: Reason) -> Refusal:
    """A full disk is no fault of what was asked for."""
    return NotWritten(reason) if reason.code == "session.disk-full" else Refusal(reason)
