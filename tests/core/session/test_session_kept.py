"""What is said to be kept is there: a session that was removed, replaced, cut or full is told, and the run kept elsewhere."""

from __future__ import annotations

import os
import queue
import shutil
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from core.cli import main
from core.clock.gate import Gate
from core.commands.following import Progress, follow
from core.commands.run import confirmed
from core.errors import Refusal
from core.notices import Notice, Status
from core.records.run import Run
from core.session import keeping
from core.session import store as module
from core.session.current import CurrentSession
from core.session.schema import SCHEMA_VERSION
from core.session.store import SessionStore
from tests.support.folders import SAMPLES
from tests.support.synthetic import synthetic_run

SAMPLE = SAMPLES / f"session-v{SCHEMA_VERSION}.tickscope"


class Recorded:
    """A run that is over, as the session sees a recording."""

    def __init__(self, run: Run) -> None:
        self.number = 0
        self.recorder = self
        self.facts = run.facts
        self._run = run

    def snapshot(self):
        return self._run.trace

    def run(self) -> Run:
        return replace(self._run, id=self.number)


@pytest.fixture
def told() -> list[Notice]:
    return []


@pytest.fixture
def session(tmp_path: Path, told: list[Notice]):
    """A session with an earlier run, open in a program."""
    shutil.copy(SAMPLE, tmp_path / "work.tickscope")
    opened = CurrentSession(None, True, Gate(), told.append)
    opened.change(tmp_path / "work.tickscope", create=False)
    yield opened
    opened.close()


def remove(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    shutil.copy(SAMPLE, path.with_name("new"))
    os.replace(path.with_name("new"), path)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (remove, "was removed meanwhile"),
        (replaced, "was replaced by another file meanwhile"),
        (cut, "was cut off meanwhile"),
    ],
)
def test_a_run_whose_file_is_gone_is_kept_beside_it_with_the_earlier_ones(session, told, tmp_path, harm, said) -> None:
    run = Recorded(synthetic_run())
    session.follow(run)
    session.store.rename(1, "earlier")  # so that a connection that sees the old file is told from one that does not
    harm(tmp_path / "work.tickscope")
    (kept,) = session.settle([run.run()])
    notice = next(notice for notice in told if notice.kind == "not_kept")
    assert f"work.tickscope {said}; what was measured is kept in " in notice.text
    place = tmp_path / "work (rescued).tickscope"
    assert str(place) in notice.text
    assert session.store.path == place
    session.close()
    store = SessionStore.open(place, create=False)
    assert len(store.read(kept.id).trace.spans["moment"]) == len(run.run().trace.spans["moment"])
    if harm is not cut:
        assert store.runs()[0].name == "earlier"
    store.close()


def test_a_run_that_could_not_be_written_goes_to_another_place(session, told, tmp_path, monkeypatch) -> None:
    run = Recorded(synthetic_run())
    session.follow(run)
    append = module.append_rows

    def full(cursor, run_id, trace, written):
        if "work.tickscope" in str(cursor.execute("SELECT path FROM duckdb_databases() WHERE NOT internal").fetchall()):
            raise module.duckdb.IOException("No space left on device")
        return append(cursor, run_id, trace, written)

    monkeypatch.setattr(module, "append_rows", full)
    beside = tmp_path / "work (rescued).tickscope"
    beside.write_bytes(b"something of somebody's")  # is not overwritten
    (kept,) = session.settle([run.run()])
    place = tmp_path / "work (rescued 2).tickscope"
    assert session.store.path == place
    assert any(notice.kind == "not_kept" and str(place) in notice.text for notice in told)
    assert session.store.missing([kept]) is None
    assert beside.read_bytes() == b"something of somebody's"


def test_where_nothing_can_be_written_that_is_said(session, told, tmp_path, monkeypatch) -> None:
    run = Recorded(synthetic_run())
    session.follow(run)
    (tmp_path / "work.tickscope").unlink()
    monkeypatch.setattr(keeping, "_put", lambda *_: (_ for _ in ()).throw(Refusal("The disk is full.")))
    session.settle([run.run()])
    assert any("no other place can be; export the run now" in notice.text for notice in told)
    assert not [path for path in tmp_path.iterdir() if "rescued" in path.name]


def test_what_is_there_is_left_where_it_is(session, told, tmp_path) -> None:
    run = Recorded(synthetic_run())
    session.follow(run)
    (kept,) = session.settle([run.run()])
    assert not [notice for notice in told if notice.kind == "not_kept"]
    session.close()
    sound, sentence = keeping.confirm(tmp_path / "work.tickscope", [kept])
    assert (sound, str(sentence)) == (
        True,
        f"Kept in {tmp_path / 'work.tickscope'} as run {kept.id}.",
    )


def test_the_command_line_looks_into_the_closed_file(session, tmp_path) -> None:
    run = Recorded(synthetic_run())
    session.follow(run)
    (kept,) = session.settle([run.run()])
    session.close()
    path = tmp_path / "work.tickscope"
    with_less = SessionStore.open(path)
    with_less.delete(kept.id)
    with_less.close()
    status, _, said = confirmed(0, path, None, [kept], None)
    assert status == 1
    assert said.startswith(f"Not in {path} (lacks 1 of 1 runs of run {kept.id}); kept in ")
    path.unlink()
    status, _, said = confirmed(0, path, None, [kept], None)
    assert status == 1
    assert "There is no session file" in said


class Lost:
    """A program whose run finished, and was not kept."""

    def __init__(self) -> None:
        self.notices: queue.SimpleQueue[Notice] = queue.SimpleQueue()
        for notice in (Notice("not_kept", "Not there."), Notice("job_finished", "Finished.", job="run")):
            self.notices.put(notice)

    status = Status("running")

    def join(self, timeout_s: float | None = None) -> bool:
        return True


def test_a_run_that_is_not_kept_ends_with_status_1(capsys) -> None:
    assert follow(Lost(), Progress(), threading.Event()) == 1
    assert "tickscope: Not there." in capsys.readouterr().err


def test_a_failed_import_leaves_nothing_behind(tmp_path, monkeypatch, told) -> None:
    trace = tmp_path / "trace.json"
    event = '{"ph": "X", "name": "aten::mm", "cat": "cpu_op", "ts": 1, "dur": 2, "pid": 1, "tid": 1}'
    trace.write_text(f'{{"traceEvents": [{event}]}}')
    monkeypatch.setattr(module, "append_rows", lambda *_: (_ for _ in ()).throw(module.duckdb.IOException("No space left")))
    assert main(["import", str(trace), "--out", str(tmp_path / "new.tickscope")]) == 1
    session = CurrentSession(tmp_path / "other.tickscope", True, Gate(), told.append)
    with pytest.raises(Refusal):
        session.add(synthetic_run())
    session.close()
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]
    there = Path(shutil.copy(SAMPLE, tmp_path / "there.tickscope"))
    assert main(["import", str(trace), "--out", str(there)]) == 1
    store = SessionStore.open(there)
    assert [head.id for head in store.runs()] == [1, 2, 3]
    store.close()


@pytest.mark.slow  # 5 s: DuckDB makes a file shorter only when it was large
def test_a_file_that_duckdb_itself_made_shorter_is_whole(tmp_path) -> None:
    """Free blocks at its end are cut off at a checkpoint, and the number of blocks that it says it has is that of before."""
    path = tmp_path / "work.tickscope"
    lengths = []
    for number in range(1, 7):
        store = SessionStore.open(path)
        run_id = store.add(synthetic_run(repeats=6, new_tokens=40))
        assert store.missing([store.read(run_id)]) is None
        if number % 2 == 0:
            store.delete(run_id - 1)
        store.close()
        lengths.append(path.stat().st_size)
        store = SessionStore.open(path)
        assert store.missing([store.read(run_id)]) is None, lengths
        store.close()
    assert any(after < before for before, after in pairwise(lengths)), lengths


def test_one_block_that_is_cut_off_is_told(tmp_path) -> None:
    path = tmp_path / "work.tickscope"
    store = SessionStore.open(path)
    run_id = store.add(synthetic_run())
    store.close()
    store = SessionStore.open(path)
    run = store.read(run_id)
    os.truncate(path, path.stat().st_size - 1)
    assert str(store.missing([run])) == "was cut off meanwhile"
    store.close()
