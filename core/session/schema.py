"""The tables of a session file, their version, and the numbered steps that bring an older file up to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from core.errors import Refusal
from core.messages.reason import Reason
from core.plain_text import visible

SCHEMA_VERSION = 4

# No primary keys: DuckDB's indexes slow bulk inserts down several times and refuse to replace a row within one transaction.
# Nothing but this program writes the file, one transaction at a time, so uniqueness needs no guard.
TABLES_1 = """
CREATE TABLE meta (schema_version INTEGER NOT NULL, made_by VARCHAR NOT NULL);
CREATE TABLE runs (id INTEGER NOT NULL, name VARCHAR NOT NULL, created VARCHAR NOT NULL, status VARCHAR NOT NULL,
                   note VARCHAR NOT NULL, config VARCHAR NOT NULL, facts VARCHAR NOT NULL);
CREATE TABLE environment (run INTEGER NOT NULL, name VARCHAR NOT NULL, value VARCHAR);
CREATE TABLE layers (run INTEGER NOT NULL, id INTEGER NOT NULL, path VARCHAR NOT NULL, type VARCHAR NOT NULL,
                     stage VARCHAR NOT NULL, parent INTEGER);
CREATE TABLE requests (run INTEGER NOT NULL, id INTEGER NOT NULL, tags INTEGER NOT NULL, start_ns BIGINT, tokenize_ns BIGINT,
                       end_ns BIGINT, input_tokens INTEGER, output_tokens INTEGER);
CREATE TABLE moments (run INTEGER NOT NULL, id INTEGER NOT NULL, request INTEGER NOT NULL, kind VARCHAR NOT NULL,
                      step INTEGER NOT NULL, tags INTEGER NOT NULL, start_ns BIGINT, duration_ns BIGINT, latency_ns BIGINT,
                      paused_ns BIGINT, tokens INTEGER, context INTEGER, kv_bytes BIGINT);
CREATE TABLE spans (run INTEGER NOT NULL, moment INTEGER NOT NULL, layer INTEGER NOT NULL, start_ns BIGINT,
                    duration_ns BIGINT, self_ns BIGINT, cycles BIGINT, instructions BIGINT);
CREATE TABLE tracks (run INTEGER NOT NULL, id INTEGER NOT NULL, name VARCHAR NOT NULL, unit VARCHAR NOT NULL);
CREATE TABLE counter_samples (run INTEGER NOT NULL, track INTEGER NOT NULL, time_ns BIGINT NOT NULL, value DOUBLE);
CREATE TABLE instants (run INTEGER NOT NULL, track VARCHAR NOT NULL, time_ns BIGINT NOT NULL, label VARCHAR NOT NULL);
CREATE TABLE outputs (run INTEGER NOT NULL, request INTEGER NOT NULL, token_ids INTEGER[] NOT NULL, text VARCHAR,
                      finish_reason VARCHAR NOT NULL, vector DOUBLE[] NOT NULL);
"""

# What the hardware counters, the noise instrument, the accelerator's clock and the operator profiler add.
TABLES_2 = """
ALTER TABLE moments ADD COLUMN device_ns BIGINT;
ALTER TABLE moments ADD COLUMN cycles BIGINT;
ALTER TABLE moments ADD COLUMN instructions BIGINT;
ALTER TABLE moments ADD COLUMN cache_misses BIGINT;
ALTER TABLE moments ADD COLUMN cpu_ns BIGINT;
ALTER TABLE moments ADD COLUMN counted_share DOUBLE;
ALTER TABLE moments ADD COLUMN switches INTEGER;
ALTER TABLE moments ADD COLUMN steal_ns BIGINT;
ALTER TABLE moments ADD COLUMN others_ns BIGINT;
ALTER TABLE moments ADD COLUMN stalled_ns BIGINT;
ALTER TABLE moments ADD COLUMN peak_bytes BIGINT;
ALTER TABLE spans ADD COLUMN cache_misses BIGINT;
ALTER TABLE spans ADD COLUMN cpu_ns BIGINT;
CREATE TABLE names (run INTEGER NOT NULL, id INTEGER NOT NULL, text VARCHAR NOT NULL);
CREATE TABLE operators (run INTEGER NOT NULL, moment INTEGER, layer INTEGER, name INTEGER NOT NULL, shapes INTEGER,
                        place VARCHAR NOT NULL, lane INTEGER, start_ns BIGINT, duration_ns BIGINT, self_ns BIGINT,
                        flops BIGINT, bytes BIGINT, allocated_bytes BIGINT, correlation BIGINT);
"""

# What speculative decoding adds.
TABLES_3 = """
ALTER TABLE moments ADD COLUMN drafted INTEGER;
ALTER TABLE moments ADD COLUMN accepted INTEGER;
"""

# What belongs together: the sides of an A/B test.
TABLES_4 = """
CREATE TABLE groups (id VARCHAR NOT NULL, kind VARCHAR NOT NULL, created VARCHAR NOT NULL, config VARCHAR NOT NULL);
ALTER TABLE runs ADD COLUMN group_id VARCHAR;
ALTER TABLE runs ADD COLUMN role INTEGER;
"""

RUN_TABLES = (
    *("environment", "layers", "requests", "moments", "spans", "names", "operators"),
    *("tracks", "counter_samples", "instants", "outputs"),
)
"""Tables whose rows belong to one run by their ``run`` column."""


def _create(connection: Any) -> None:
    connection.execute(TABLES_1)
    connection.execute("INSERT INTO meta VALUES (0, ?)", [_program()])


def _add_instruments(connection: Any) -> None:
    connection.execute(TABLES_2)


def _add_drafts(connection: Any) -> None:
    connection.execute(TABLES_3)


def _add_groups(connection: Any) -> None:
    """Which runs took turns was said in the facts of each; what was asked of all of them was said nowhere."""
    connection.execute(TABLES_4)
    made: set[str] = set()
    for run, created, facts in connection.execute("SELECT id, created, facts FROM main.runs ORDER BY id").fetchall():
        trial = _trial_in(facts)
        if trial is None:
            continue
        group, side = trial
        connection.execute("UPDATE main.runs SET group_id = ?, role = ? WHERE id = ?", [group, side, run])
        if group not in made:
            made.add(group)
            connection.execute("INSERT INTO main.groups VALUES (?, 'ab_test', ?, 'null')", [group, created])


def _trial_in(facts: str) -> tuple[str, int] | None:
    """The A/B test that facts in JSON tell of, and the number of the side; None where they tell of none, or make no sense."""
    try:
        trial = json.loads(facts)["trial"]
        group, side = trial["id"], trial["side"]
        group.encode()  # half of a character, which JSON can spell and no file can hold
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    sound = isinstance(group, str) and isinstance(side, int) and 0 <= side < 1000
    return (group, side) if sound else None


MIGRATIONS: Mapping[int, Callable[[Any], None]] = {1: _create, 2: _add_instruments, 3: _add_drafts, 4: _add_groups}
"""``MIGRATIONS[n]`` brings a file of version n - 1 to version n; an empty file is version 0, so creating is the first step."""


def file_version(connection: Any, name: str) -> int:
    """The schema version of an open database, 0 if it is empty.

    Only base tables exactly as this program makes them are let in: a view, a macro, a default or a generated column is code
    that would run whenever a run is read. The functions asked here are named in full, so that none of the file's stands in.

    Raises:
        Refusal: it is somebody else's database, or a session with something in it that is not a session's.
    """
    foreign = _foreign(connection)
    tables = dict(_tables(connection))
    if not tables and not foreign:
        return 0
    if foreign:
        raise Refusal(Reason("session.holds-foreign", name=name, what=foreign))
    meta = tables.get("meta", "")
    if "schema_version" not in meta or "runs" not in tables:
        raise Refusal(Reason("session.another-database", name=name))
    rows = connection.execute("SELECT schema_version FROM main.meta LIMIT 2").fetchall()
    if len(rows) != 1 or not isinstance(rows[0][0], int) or rows[0][0] < 1:
        raise Refusal(Reason("session.no-version", name=name))
    version_found = rows[0][0]
    if version_found <= SCHEMA_VERSION:
        _check_tables(tables, version_found, name)
    return version_found


def _foreign(connection: Any) -> Reason | None:
    """What is in the file besides tables, in words; None if nothing is."""
    for what, function, column in (
        (Reason("session.view"), "duckdb_views", "view_name"),
        (Reason("session.macro"), "duckdb_functions", "function_name"),
        (Reason("session.type"), "duckdb_types", "type_name"),
        (Reason("session.index"), "duckdb_indexes", "index_name"),
        (Reason("session.sequence"), "duckdb_sequences", "sequence_name"),
    ):
        inside = "" if function in ("duckdb_indexes", "duckdb_sequences") else "WHERE NOT internal"
        row = connection.execute(f"SELECT {column} FROM system.main.{function}() {inside} LIMIT 1").fetchone()
        if row is not None:
            return Reason("session.by-name", what=what, name=visible(str(row[0]))[:60])
    return None


def _tables(connection: Any) -> list[tuple[str, str]]:
    """Name and definition of every table of the main schema."""
    query = "SELECT table_name, sql, schema_name FROM system.main.duckdb_tables() WHERE NOT internal AND NOT temporary"
    return [(name, text) for name, text, schema in connection.execute(query).fetchall() if schema == "main"]


@cache
def _as_made(number: int) -> Mapping[str, str]:
    """Name and definition of every table of a file of that version, from a database that is made in memory."""
    import duckdb

    with duckdb.connect(":memory:") as connection:
        for step in range(1, number + 1):
            MIGRATIONS[step](connection)
        return dict(_tables(connection))


def definitions() -> str:
    """The tables of the present version as SQL, for people."""
    return "\n".join(text.replace(", ", ",\n    ").replace("(", "(\n    ", 1) for text in _as_made(SCHEMA_VERSION).values())


def _check_tables(tables: Mapping[str, str], number: int, name: str) -> None:
    """A table that somebody added lies there unread; one of ours must be ours, to the last default."""
    for table, definition in _as_made(number).items():
        if table not in tables:
            raise Refusal(Reason("session.no-table", name=name, table=table))
        if tables[table] != definition:
            raise Refusal(Reason("session.other-columns", name=name, table=table))


def migrate(connection: Any, found: int) -> None:
    """Bring a file from version ``found`` to ``SCHEMA_VERSION``, each step in a transaction of its own."""
    for number in range(found + 1, SCHEMA_VERSION + 1):
        connection.execute("BEGIN")
        MIGRATIONS[number](connection)
        connection.execute("UPDATE meta SET schema_version = ?", [number])
        connection.execute("COMMIT")


def _program() -> str:
    try:
        return f"Tickscope {version('tickscope')}"
    except PackageNotFoundError:  # run from a folder without being installed
        return "Tickscope"
