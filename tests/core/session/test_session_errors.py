"""Every way a session file can be bad is one sentence that says what to do, and nothing is lost."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest

from core.errors import Refusal
from core.private_folders import process_mark
from core.records.deltas import Written
from core.session.schema import SCHEMA_VERSION
from core.session.store import SessionStore
from tests.support.folders import ROOT, SAMPLES
from tests.support.synthetic import synthetic_run

SAMPLE = SAMPLES / f"session-v{SCHEMA_VERSION}.tickscope"


@pytest.fixture
def sample(tmp_path):
    return Path(shutil.copy(SAMPLE, tmp_path / "sample.tickscope"))


def refusal(path, create=False):
    with pytest.raises(Refusal) as caught:
        SessionStore.open(path, create=create)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def test_missing(tmp_path):
    assert "There is no session file" in refusal(tmp_path / "missing.tickscope")
    assert not (tmp_path / "missing.tickscope").exists()


def test_folder(tmp_path):
    assert "is a folder; choose a .tickscope file" in refusal(tmp_path)


def test_missing_folder(tmp_path):
    assert "does not exist; make it" in refusal(tmp_path / "no" / "new.tickscope", create=True)


@pytest.mark.parametrize("content", [b"", b"hello", b"x" * 50_000])
def test_not_a_database(tmp_path, content):
    path = tmp_path / "notes.tickscope"
    path.write_bytes(content)
    assert "is not a Tickscope session" in refusal(path, create=True)
    assert path.read_bytes() == content


def test_another_sort_of_database(tmp_path):
    path = tmp_path / "other.tickscope"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE runs (id)")
    other.close()
    assert "is not a Tickscope session" in refusal(path)


@pytest.mark.parametrize("tables", ["CREATE TABLE cats (name VARCHAR)", "CREATE TABLE meta (a INTEGER)"])
def test_someone_elses_duckdb(tmp_path, tables):
    path = tmp_path / "cats.tickscope"
    with duckdb.connect(str(path)) as other:
        other.execute(tables)
    assert "is a DuckDB database, but not a Tickscope session" in refusal(path, create=True)


def test_newer_version(sample):
    with duckdb.connect(str(sample)) as file:
        file.execute("UPDATE meta SET schema_version = 7")
    assert "made by a newer Tickscope (file version 7); update Tickscope" in refusal(sample)


def test_newer_duckdb(sample, monkeypatch):
    # Word for word what DuckDB 1.4 says to a file of DuckDB 2.0.
    said = (
        "IO Error: Trying to read a database file with version number 999, but we can only read versions between 64 and 67.\n"
        "The database file was created with an newer version of DuckDB.\n"
    )

    def connect(*arguments, **options):
        raise duckdb.IOException(said)

    monkeypatch.setattr(duckdb, "connect", connect)
    assert "written by a newer DuckDB" in refusal(sample)


def test_truncated(sample):
    content = sample.read_bytes()
    for share in (0.02, 0.3):
        sample.write_bytes(content[: int(len(content) * share)])
        assert "is damaged" in refusal(sample)


def test_overwritten_in_the_middle(sample):
    content = bytearray(sample.read_bytes())
    content[12288:] = b"\x07" * (len(content) - 12288)
    sample.write_bytes(content)
    assert "is damaged" in refusal(sample)


def test_damaged_rows_are_a_sentence_when_they_are_read(sample):
    with duckdb.connect(str(sample), read_only=True) as file:
        used = "SELECT DISTINCT block_id FROM pragma_storage_info('spans') WHERE persistent AND block_id >= 0"
        blocks = [row[0] for row in file.execute(used).fetchall()]
        size = file.execute("SELECT block_size FROM pragma_database_size()").fetchone()[0]
    content = bytearray(sample.read_bytes())
    for block in blocks:
        start = 12288 + block * size
        content[start + 100 : start + size] = b"\x07" * (size - 100)
    sample.write_bytes(content)
    with pytest.raises(Refusal, match="is damaged"):
        SessionStore.open(sample, create=False).read(1)


def test_read_only_file_reads_and_refuses_to_write(sample, tmp_path):
    before = sample.read_bytes()
    sample.chmod(0o444)
    store = SessionStore.open(sample)
    assert store.read_only
    run = store.read(1)
    changes = (
        lambda: store.begin(run),
        lambda: store.append(1, run.trace, Written()),
        lambda: store.update(1, run.facts),
        lambda: store.rename(1, "other"),
        lambda: store.annotate(1, "note"),
        lambda: store.delete(1),
    )
    for change in changes:
        with pytest.raises(Refusal, match="is read-only; use Save as"):
            change()
    store.save_as(tmp_path / "copy.tickscope")
    store.rename(1, "other")
    assert store.runs()[0].name == "other"
    store.close()
    assert sample.read_bytes() == before


KILLED = """
import os, sys
from core.session.schema import SCHEMA_VERSION
from core.session.store import SessionStore
from tests.support.synthetic import synthetic_run
store = SessionStore.open(sys.argv[1])
store.begin(synthetic_run(status="running"))
os.kill(os.getpid(), 9)
"""


def test_read_only_file_of_a_killed_run(tmp_path):
    path = tmp_path / "killed.tickscope"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, check=False)
    assert path.with_name(path.name + ".wal").exists()
    path.chmod(0o444)
    store = SessionStore.open(path)
    assert [head.status for head in store.runs()] == ["interrupted"]
    store.save_as(tmp_path / "copy.tickscope")
    assert [head.status for head in store.runs()] == ["interrupted"]
    store.close()


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_an_older_session_that_cannot_be_written_opens_as_an_up_to_date_copy(tmp_path, version):
    path = Path(shutil.copy(SAMPLE.with_name(f"session-v{version}.tickscope"), tmp_path))
    path.chmod(0o444)
    before = path.read_bytes()
    copies = Path(tempfile.gettempdir())
    pattern = f"tickscope-{process_mark()}-*/session-*"
    there = set(copies.glob(pattern))
    store = SessionStore.open(path, create=False)
    assert (store.path, store.read_only, len(store.runs())) == (path, True, 3)
    assert len(set(copies.glob(pattern)) - there) == 1
    with pytest.raises(Refusal, match="is read-only; use Save as"):
        store.annotate(1, "mine")
    store.save_as(tmp_path / "new.tickscope")
    assert set(copies.glob(pattern)) == there
    store.annotate(1, "mine")
    store.close()
    SessionStore.open(path, create=False).close()
    assert set(copies.glob(pattern)) == there
    assert path.read_bytes() == before


def test_without_room_for_a_copy_an_older_session_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    path = Path(shutil.copy(SAMPLE.with_name("session-v1.tickscope"), tmp_path))
    path.chmod(0o444)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=path.stat().st_size))
    assert "is of an older version and read-only; copy it to a writable folder" in refusal(path)


LOCKED_OUT = """
import os, sys, tempfile
from pathlib import Path
import duckdb, json.decoder, unicodedata
from core.errors import Refusal
from core.private_folders import process_mark
from core.session.schema import SCHEMA_VERSION
from core.session.store import SessionStore
duckdb.connect().execute("SELECT 1").fetchall()
folder = Path(sys.argv[1])
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)  # for the administrator no folder is closed
try:
    SessionStore.open(folder / "new.tickscope")
except Refusal as refusal:
    print(refusal)
for path in sorted(folder.glob("*.tickscope")):
    store = SessionStore.open(path)
    print(path.name, store.read_only, len(store.runs()))
    store.close()
print(list(Path(tempfile.gettempdir()).glob(f"tickscope-{process_mark()}-*/session-*")))
"""


def test_folder_that_is_not_writable():
    # Not pytest's own folder: that is closed to everyone but the user, and the administrator must become someone else.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        versions = range(1, SCHEMA_VERSION + 1)
        for version in versions:
            shutil.copy(SAMPLE.with_name(f"session-v{version}.tickscope"), folder)
        folder.chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", LOCKED_OUT, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"The folder {folder} is not writable; choose another place for new.tickscope.",
        *(f"session-v{version}.tickscope True 3" for version in versions),
        "[]",
    ]


def test_already_open_in_another_process(sample):
    store = SessionStore.open(sample)
    code = (
        "import sys\nfrom core.errors import Refusal\nfrom core.session.store import SessionStore\n"
        "try:\n SessionStore.open(sys.argv[1])\nexcept Refusal as refusal:\n print(refusal)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(sample)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "sample.tickscope is already open in another program" in done.stdout
    assert "close it there, or open a copy of the file." in done.stdout
    store.rename(1, "Now there is a log")
    done = subprocess.run([sys.executable, "-c", code, str(sample)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "close it there, or open a copy of it and of sample.tickscope.wal" in done.stdout
    store.close()


@pytest.fixture
def opened(tmp_path):
    """A session that is open, all of it in its log; and that log as it is now."""
    path = tmp_path / "open.tickscope"
    store = SessionStore.open(path)
    store.add(synthetic_run())
    yield store, (tmp_path / "open.tickscope.wal").read_bytes()
    store.close()


def copied(store, tmp_path, log):
    path = Path(shutil.copy(store.path, tmp_path / "copy.tickscope"))
    if log is not None:
        (tmp_path / "copy.tickscope.wal").write_bytes(log)
    return path


def test_a_copy_of_an_open_session_needs_its_log(opened, tmp_path):
    store, log = opened
    told = refusal(copied(store, tmp_path, None))
    assert "copied without its log while it was open" in told
    assert "copy that one too, as copy.tickscope.wal" in told
    whole = SessionStore.open(copied(store, tmp_path, log), create=False)
    assert [head.id for head in whole.runs()] == [1]
    whole.close()


def test_a_log_of_an_older_state_is_named_as_the_file_to_move_away(opened, tmp_path):
    store, log = opened
    store.close()
    path = copied(store, tmp_path, log)
    assert "move copy.tickscope.wal away, and copy.tickscope opens without it." in refusal(path)
    (tmp_path / "copy.tickscope.wal").rename(tmp_path / "elsewhere")
    moved = SessionStore.open(path, create=False)
    assert len(moved.runs()) == 1
    moved.close()


def test_a_log_of_another_file_is_named_as_the_file_to_move_away(opened, sample):
    sample.with_name("sample.tickscope.wal").write_bytes(opened[1])
    assert "move sample.tickscope.wal away, and sample.tickscope opens without it." in refusal(sample)


def test_a_damaged_log_is_named(opened, tmp_path):
    store, log = opened
    flipped = bytearray(log)
    flipped[len(log) // 2] ^= 0xFF
    told = refusal(copied(store, tmp_path, bytes(flipped)))
    assert "copy.tickscope.wal in" in told
    assert "is damaged; use a backup of both, or move copy.tickscope.wal away" in told


def test_a_store_recovers_when_duckdb_gives_the_open_database_up(sample, monkeypatch):
    store = SessionStore.open(sample)

    def fail(*arguments):
        raise duckdb.FatalException("database has been invalidated because of a previous fatal error")

    with monkeypatch.context() as broken:
        broken.setattr("core.session.store.append_rows", fail)
        with pytest.raises(Refusal):
            store.append(1, synthetic_run().trace, Written())
    store.rename(1, "recovered")
    assert store.runs()[0].name == "recovered"
    store.close()


FULL = """
import resource, sys
from core.errors import Refusal
from core.private_folders import process_mark
from core.records.deltas import Written

from core.session.schema import SCHEMA_VERSION
from core.session.store import SessionStore
from tests.support.synthetic import synthetic_run
store = SessionStore.open(sys.argv[1])
run = synthetic_run(repeats=40)
run_id = store.begin(run)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))
for _ in range(3):
    try:
        store.append(run_id, run.trace, Written())
    except Refusal as refusal:
        print(refusal)
print(len(store.read(run_id).trace.spans["moment"]))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
store.append(run_id, run.trace, Written())
print(len(store.read(run_id).trace.spans["moment"]) == len(run.trace.spans["moment"]))
sys.stdout.flush()
import os; os.kill(os.getpid(), 9)
"""


def test_disk_full_is_a_sentence_and_the_rows_land_when_there_is_room_again(tmp_path):
    path = tmp_path / "full.tickscope"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert [line for line in lines[:3] if "The disk is full, so full.tickscope cannot grow; free some space" in line] == lines[
        :3
    ]
    assert lines[3:] == ["0", "True"], done.stderr
    store = SessionStore.open(path, create=False)
    assert len(store.read(1).trace.moments["kind"]) == 41 * 16
    store.close()


def killed_at_once(folder):
    """A session whose process was killed before anything of it left the log."""
    path = folder / "open.tickscope"
    code = (
        "import os, sys; from pathlib import Path; from core.session.store import SessionStore; "
        "from tests.support.synthetic import synthetic_run; store = SessionStore.open(Path(sys.argv[1])); "
        "store.begin(synthetic_run(repeats=1, new_tokens=2, blocks=1)); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False, cwd=ROOT)
    return path


@pytest.mark.parametrize("share", [0.01, 0.1, None])
def test_a_log_of_which_nothing_can_be_read_is_named_and_kept(tmp_path, share):
    path = killed_at_once(tmp_path)
    log = path.with_name("open.tickscope.wal")
    whole = log.read_bytes()
    assert SessionStore.open(shutil.copytree(tmp_path, tmp_path / "whole") / "open.tickscope").runs()
    damage = bytes(len(whole)) if share is None else whole[: int(share * len(whole))]
    log.write_bytes(damage)
    before = path.read_bytes()
    with pytest.raises(Refusal, match=r"open\.tickscope\.wal in .* holds all runs"):
        SessionStore.open(path, create=False)
    assert (path.read_bytes(), log.read_bytes()) == (before, damage)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["open.tickscope", "open.tickscope.wal", "whole"]


def test_a_session_that_is_all_in_its_log_opens_where_nothing_can_be_written(tmp_path, monkeypatch):
    path = killed_at_once(tmp_path)
    monkeypatch.setattr(os, "access", lambda place, mode: mode != os.W_OK)
    files = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    store = SessionStore.open(path, create=False)
    assert (store.read_only, len(store.runs())) == (True, 1)
    store.close()
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == files


def test_without_room_for_a_copy_of_its_log_a_session_is_refused_and_stays(tmp_path, monkeypatch):
    path = killed_at_once(tmp_path)
    files = {one.name: one.read_bytes() for one in tmp_path.iterdir()}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", full)
    assert "The disk is full, so open.tickscope cannot grow" in refusal(path)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == files
