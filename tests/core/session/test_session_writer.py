"""The writer gets everything into the file, in pauses where it can, and keeps it where it cannot."""

import threading
from dataclasses import replace

import duckdb
import numpy as np
import pytest

from core.clock.gate import Gate
from core.errors import Refusal
from core.messages.reason import of_text
from core.session import writer as writer_module
from core.session.store import SessionStore
from core.session.writer import Writer
from profilers.trace import Recorder, Tag
from tests.support.synthetic import llama_layers, record_moment, synthetic_run

WAIT_S = 20


class Watched:
    """A store that tells when it is written to, and fails as long as it is told to."""

    def __init__(self, store):
        self.store = store
        self.path = store.path
        self.error = None
        self.attempts = threading.Semaphore(0)
        self.gate_was_closed = []

    def append(self, run_id, trace, written):
        try:
            if self.error is not None:
                raise self.error
            return self.store.append(run_id, trace, written)
        finally:
            self.attempts.release()

    def update(self, run_id, facts):
        self.store.update(run_id, facts)


@pytest.fixture
def store(tmp_path):
    opened = SessionStore.open(tmp_path / "work.tickscope")
    yield opened
    opened.close()


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(writer_module, "PERIOD_S", 0.02)
    monkeypatch.setattr(writer_module, "PATIENCE_S", 0.02)


def new_recorder(moments=8):
    recorder = Recorder()
    recorder.set_layers(llama_layers(2))
    grow(recorder, moments)
    return recorder


def grow(recorder, moments):
    rng = np.random.default_rng(0)
    for step in range(moments):
        record_moment(recorder, rng, request=0, step=step, tags=Tag.TRACED, start_ns=step, scale=1)


def rows(store, run_id):
    trace = store.read(run_id).trace
    return len(trace.moments["kind"]), len(trace.spans["moment"])


def test_finish_writes_all_rows_and_the_last_facts(store):
    run = synthetic_run(status="running")
    facts = [run.facts]
    writer = Writer(store, Gate())
    recorder = new_recorder()
    run_id = store.begin(run)
    writer.follow(run_id, recorder, lambda: facts[0])
    grow(recorder, 100)
    facts[0] = replace(run.facts, status="cancelled")
    assert writer.finish()
    assert rows(store, run_id) == (108, recorder.spans.count)
    assert store.runs()[0].facts == facts[0]
    assert writer.close()


def test_rows_arrive_while_the_run_goes_on(store, fast):
    watched = Watched(store)
    writer = Writer(watched, Gate())
    recorder = new_recorder()
    run = synthetic_run(status="running")
    run_id = store.begin(run)
    writer.follow(run_id, recorder, lambda: run.facts)
    assert watched.attempts.acquire(timeout=WAIT_S)
    first = rows(store, run_id)
    grow(recorder, 5)
    for _ in range(2):
        assert watched.attempts.acquire(timeout=WAIT_S)
    assert (first[0], rows(store, run_id)[0]) == (8, 13)
    assert store.runs()[0].status == "running"
    assert writer.close()


def test_it_writes_in_a_pause_of_the_gate(store, monkeypatch):
    monkeypatch.setattr(writer_module, "PERIOD_S", 0.02)
    monkeypatch.setattr(writer_module, "PATIENCE_S", WAIT_S)
    monkeypatch.setattr(writer_module, "STAY_S", WAIT_S)
    gate = Gate()
    watched = Watched(store)
    writer = Writer(watched, gate)
    run = synthetic_run(status="running")
    run_id = store.begin(run)
    writer.follow(run_id, new_recorder(), lambda: run.facts)
    worker_may_go = threading.Event()
    while not gate.wanted:
        assert not worker_may_go.wait(0.001)
    assert not watched.attempts.acquire(blocking=False)
    assert gate.pause() > 0
    assert watched.attempts.acquire(blocking=False)
    assert rows(store, run_id)[0] == 8
    gate.clock_runs = True
    assert gate.take_disturbance() == 0
    assert writer.close()


def test_it_does_not_wait_for_ever_and_says_that_it_disturbed(store, fast):
    gate = Gate()
    gate.clock_runs = True  # a moment that never ends
    watched = Watched(store)
    writer = Writer(watched, gate)
    run = synthetic_run(status="running")
    run_id = store.begin(run)
    writer.follow(run_id, new_recorder(), lambda: run.facts)
    for _ in range(2):
        assert watched.attempts.acquire(timeout=WAIT_S)
    assert rows(store, run_id)[0] == 8
    assert gate.take_disturbance() > 0
    assert writer.close()


def test_a_full_disk_is_told_once_and_everything_lands_later(store, fast):
    watched = Watched(store)
    watched.error = duckdb.IOException('IO Error: Could not write file "x.wal": No space left on device')
    told = []
    writer = Writer(watched, Gate(), on_trouble=told.append)
    recorder = new_recorder()
    run = synthetic_run(status="running")
    run_id = store.begin(run)
    writer.follow(run_id, recorder, lambda: run.facts)
    for _ in range(4):
        assert watched.attempts.acquire(timeout=WAIT_S)
        grow(recorder, 3)
    assert len(told) == 1
    assert str(told[0]).startswith("The disk is full, so work.tickscope cannot grow; free some space")
    assert rows(store, run_id)[0] == 0

    watched.error = None
    assert writer.finish()
    assert rows(store, run_id) == (20, recorder.spans.count)

    watched.error = Refusal("Another sentence.")
    second = store.begin(run)
    writer.follow(second, new_recorder(), lambda: run.facts)
    assert not writer.finish()
    assert told[1:] == [of_text("Another sentence.")]
    watched.error = None
    assert writer.close()
    assert rows(store, second)[0] == 8


def test_a_run_that_could_not_be_finished_is_tried_on_with_the_next(store, fast):
    watched = Watched(store)
    watched.error = OSError(28, "No space left on device")
    writer = Writer(watched, Gate())
    run = synthetic_run()
    first, second = store.begin(run), store.begin(run)
    writer.follow(first, new_recorder(4), lambda: run.facts)
    assert not writer.finish()
    writer.follow(second, new_recorder(6), lambda: run.facts)
    watched.error = None
    assert writer.finish()
    assert (rows(store, first)[0], rows(store, second)[0]) == (4, 6)
    assert writer.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_is_told_and_finish_does_not_hang(store, fast):
    told = []
    writer = Writer(store, Gate(), on_trouble=told.append)

    def facts():
        raise KeyError("a bug")

    writer.follow(store.begin(synthetic_run()), new_recorder(), facts)
    assert not writer.finish()
    assert len(told) == 1
    assert "a fault in Tickscope" in str(told[0])
    assert not writer.close()


def test_close_ends_the_thread_and_leaves_the_gate(store):
    gate = Gate()
    before = threading.active_count()
    writer = Writer(store, gate)
    assert threading.active_count() == before + 1
    assert writer.close()
    assert threading.active_count() == before
    assert gate._guests == []
