"""The worker thread: one job after another, and some that nobody waits for."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from core import program
from core.execution import libraries
from core.execution.worker import Worker


@pytest.fixture
def errors() -> list[BaseException]:
    return []


@pytest.fixture
def worker(errors: list[BaseException]) -> Iterator[Worker]:
    made = Worker(errors.append)
    yield made
    made.close()


def test_a_job_that_nobody_waits_for_is_not_busy_but_joined(worker: Worker) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        may_end.wait()

    worker.submit(job, awaited=False)
    assert begun.wait(10)
    done: list[int] = []
    seen = [(worker.busy, worker.join(0.0))]
    worker.submit(lambda: done.append(1))
    seen.append((worker.busy, worker.join(0.0)))
    may_end.set()
    ended = worker.join(10)
    seen.append((worker.busy, ended))
    assert seen == [(False, False), (True, False), (False, True)]
    assert done == [1]


def test_a_job_that_fails_is_told_and_counted(worker: Worker, errors: list[BaseException]) -> None:
    def job() -> None:
        raise ZeroDivisionError

    worker.submit(job)
    assert worker.join(10)
    assert not worker.busy
    assert [type(error) for error in errors] == [ZeroDivisionError]


def test_imports_ahead_are_not_busy_and_end_when_the_program_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []
    closing = threading.Event()

    def slow(name: str) -> None:
        imported.append(name)
        closing.wait(10)

    monkeypatch.setattr(libraries, "import_module", slow)
    made = program.Program(keep_session=False)
    made.import_ahead()
    assert not made.busy
    threading.Timer(0.05, closing.set).start()
    made._local._worker.closing = True
    made.close()
    assert imported in ([], [libraries.LIBRARIES[0]])


@pytest.mark.slow  # imports torch and transformers
def test_the_libraries_that_are_imported_ahead_exist() -> None:
    made = program.Program(keep_session=False)
    made.import_ahead()
    assert made.join(120)
    made.close()
    assert made.notices.empty()
    assert set(libraries.LIBRARIES) <= set(sys.modules)
