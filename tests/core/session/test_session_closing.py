"""Closing a session while its runs are being read: the reader is let out first, and nobody reads afterwards."""

from __future__ import annotations

import contextlib
import threading

import pytest

from core.errors import Refusal
from core.records.deltas import Written
from core.session import store as module
from core.session.store import SessionStore
from tests.support.synthetic import synthetic_run


@pytest.fixture
def store(tmp_path):
    store = SessionStore.open(tmp_path / "s.tickscope")
    run = synthetic_run(repeats=1, blocks=1)
    store.append(store.begin(run), run.trace, Written())
    return store


def wait_until_closing(store):
    """Another thread is in ``close``, waiting: nobody may begin to read any more."""
    while True:
        try:
            store.runs()
        except Refusal as refusal:
            return str(refusal)


def test_close_waits_until_the_reader_has_left_and_refuses_who_comes_later(store, monkeypatch):
    """DuckDB 2 raised "connection is busy" there, so the session stayed open; or waited for the whole query."""
    inside, go_on = threading.Event(), threading.Event()
    order: list[str] = []
    read_rows = module.read_rows

    def slowly(cursor, run_id):
        inside.set()
        go_on.wait(30)
        try:
            return read_rows(cursor, run_id)
        finally:
            order.append("left")

    monkeypatch.setattr(module, "read_rows", slowly)

    def read():
        with contextlib.suppress(Refusal):  # whether the interruption finds a query under way is a matter of luck
            store.read(1)

    reader = threading.Thread(target=read)
    closer = threading.Thread(target=lambda: (store.close(), order.append("closed")))
    reader.start()
    assert inside.wait(30)
    closer.start()
    assert "was closed" in wait_until_closing(store)
    go_on.set()
    reader.join(30)
    closer.join(30)
    assert order == ["left", "closed"]
    SessionStore.open(store.path).close()


def test_a_long_query_is_interrupted_by_close(store, monkeypatch):
    """Without that, this query would run for hours."""
    inside = threading.Event()
    told = []

    def endless(cursor, _run_id):
        inside.set()
        cursor.execute("SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range + b.range = -1").fetchall()

    monkeypatch.setattr(module, "read_rows", endless)

    def read():
        try:
            store.read(1)
        except Refusal as refusal:
            told.append(str(refusal))

    reader = threading.Thread(target=read)
    reader.start()
    assert inside.wait(30)
    store.close()
    reader.join(30)
    assert told == ["s.tickscope was closed meanwhile; open it again to read its runs."]


def test_save_as_lets_a_reader_finish(store, tmp_path, monkeypatch):
    inside, go_on = threading.Event(), threading.Event()
    read_rows = module.read_rows

    def slowly(cursor, run_id):
        inside.set()
        go_on.wait(30)
        return read_rows(cursor, run_id)

    monkeypatch.setattr(module, "read_rows", slowly)
    found = []
    reader = threading.Thread(target=lambda: found.append(store.read(1)))
    reader.start()
    assert inside.wait(30)
    saver = threading.Thread(target=lambda: store.save_as(tmp_path / "other.tickscope"))
    saver.start()
    go_on.set()
    saver.join(30)
    reader.join(30)
    assert len(found) == 1
    assert store.path.name == "other.tickscope"
    assert len(store.read(1).trace.moments["kind"]) == 32
    store.close()
