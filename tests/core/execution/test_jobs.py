"""Jobs have one life cycle wherever they are carried out: one after another, one cancel, one notice of each end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.clock.gate import Gate
from core.config import UnloadConfig
from core.errors import Refusal
from core.execution.carriers.child import ChildCarrier, _Asked
from core.execution.carriers.local import LocalCarrier
from core.execution.jobs.base import Job, JobContext, JobKind, Recorded, job_kinds
from core.messages.reason import of_text
from core.notices import ENDS, Notice, Status
from core.program import Program
from core.records.run import Run
from tests.support.synthetic import synthetic_run

LIMIT_S = 20


class Told:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []

    def tell(self, notice: Notice) -> None:
        self.notices.append(notice)

    def began(self, recorded: Recorded) -> None:
        raise AssertionError("no run was asked for")

    def ended(self, runs: Sequence[Run]) -> Sequence[Run]:
        raise AssertionError("no run was asked for")

    @property
    def kinds(self) -> list[str]:
        return [notice.kind for notice in self.notices]


class Toy(Job):
    """Does what it is given."""

    kind = "toy"

    def __init__(self, work: Callable[[JobContext], None]) -> None:
        self._work = work
        self.skipped = 0

    def status(self, state: str) -> Status | None:
        return Status(state, (of_text("toying"),), 0.5)

    def skip_warm_up(self) -> None:
        self.skipped += 1

    def carry_out(self, context: JobContext) -> None:
        self._work(context)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def carrier(told: Told) -> Iterator[LocalCarrier]:
    carrier = LocalCarrier(Gate(), told)
    yield carrier
    assert carrier.close(LIMIT_S)


def refused(_: JobContext) -> None:
    raise Refusal("There is no such toy; choose another.")


def broken(_: JobContext) -> None:
    raise RuntimeError("a wheel came off")


def broken_while_it_measured(context: JobContext) -> None:
    context.started(of_text("Toying."))
    context.ended("failed", of_text("It failed; what was measured until then is kept."))
    raise RuntimeError("a wheel came off")


@pytest.mark.parametrize(
    ("work", "kinds"),
    [
        (lambda _: None, ["job_finished"]),
        (lambda context: context.ended("finished", of_text("Done."), 7), ["job_finished"]),
        (refused, ["refused"]),
        (broken, ["failed"]),
        (broken_while_it_measured, ["job_started", "job_failed", "failed"]),
    ],
)
def test_each_end_is_told_once_with_the_kind_of_job(
    carrier: LocalCarrier, told: Told, work: Callable[[JobContext], None], kinds: list[str]
) -> None:
    carrier.carry(Toy(work))
    assert carrier.join(LIMIT_S)
    assert told.kinds == kinds
    assert {notice.job for notice in told.notices} == {"toy"}
    assert not carrier.busy
    assert carrier.status.state == "idle"


def test_a_cancel_reaches_the_job_that_runs_and_those_that_wait(carrier: LocalCarrier, told: Told) -> None:
    inside, ran = threading.Event(), []

    def long(context: JobContext) -> None:
        context.started(of_text("Toying."))
        inside.set()
        context.progress.cancelled.wait(LIMIT_S)
        context.ended("cancelled", of_text("Cancelled; what was measured is kept."))
        context.progress.check()

    carrier.carry(Toy(long))
    carrier.carry(Toy(lambda _: ran.append(1)))
    assert inside.wait(LIMIT_S)
    assert (carrier.status.state, carrier.status.text, carrier.busy) == ("running", "toying", True)
    carrier.cancel()
    assert carrier.join(LIMIT_S)
    assert told.kinds == ["job_started", "job_cancelled", "cancelled"]  # the second never began
    assert ran == []


def test_what_can_be_skipped_is_told_to_the_job_that_runs(carrier: LocalCarrier) -> None:
    inside, go = threading.Event(), threading.Event()

    def long(_: JobContext) -> None:
        inside.set()
        go.wait(LIMIT_S)

    job = Toy(long)
    carrier.skip_warm_up()
    carrier.carry(job)
    assert inside.wait(LIMIT_S)
    carrier.skip_warm_up()
    go.set()
    assert carrier.join(LIMIT_S)
    assert job.skipped == 1


def test_a_kind_of_job_is_one_registration(carrier: LocalCarrier, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a carrier can be asked for, here or over a link, is what registered itself."""

    @dataclass(frozen=True)
    class ToyConfig:
        says: str

    def make(config: ToyConfig) -> Job:
        return Toy(lambda context: context.ended("finished", of_text(config.says)))

    assert {kind.id for kind in job_kinds} >= {"load", "unload", "run", "ab_test"}
    monkeypatch.setattr(job_kinds, "_items", dict(job_kinds._items))
    job_kinds.register(lambda: JobKind("toy", ToyConfig, make))
    carrier.do("toy", ToyConfig("Toyed."))
    assert carrier.join(LIMIT_S)
    assert [notice.text for notice in told.notices] == ["Toyed."]
    with pytest.raises(Refusal, match="no kind of job 'other'"):
        carrier.do("other", UnloadConfig())


def test_an_export_waits_its_turn_and_is_a_job_like_any_other(tmp_path: Path) -> None:
    program = Program(tmp_path / "it.tickscope")
    try:
        run = synthetic_run(repeats=1, blocks=1)
        program.export([run], "json", tmp_path / "out.json")
        assert program.join(LIMIT_S)
        program.export([run], "json", tmp_path / "none" / "out.json")
        assert program.join(LIMIT_S)
        notices = [program.notices.get_nowait() for _ in range(program.notices.qsize())]
    finally:
        assert program.close(LIMIT_S)
    assert [(notice.kind, notice.job) for notice in notices] == [("job_finished", "export"), ("refused", "export")]
    assert (tmp_path / "out.json").stat().st_size > 100
    assert not any(notice.ends_measuring for notice in notices if notice.kind in ENDS)


def test_an_export_that_was_cancelled_leaves_nothing_behind(tmp_path: Path) -> None:
    program = Program(tmp_path / "it.tickscope")
    try:
        inside = threading.Event()

        def long(context: JobContext) -> None:
            inside.set()
            context.progress.cancelled.wait(LIMIT_S)
            context.progress.check()

        program._local.carry(Toy(long))
        program.export([synthetic_run(repeats=1, blocks=1)], "json", tmp_path / "out.json")
        assert inside.wait(LIMIT_S)
        program.cancel()
        assert program.join(LIMIT_S)
        notices = [program.notices.get_nowait() for _ in range(program.notices.qsize())]
    finally:
        assert program.close(LIMIT_S)
    assert [(notice.kind, notice.job) for notice in notices] == [("cancelled", "toy"), ("cancelled", "export")]
    assert list(tmp_path.iterdir()) == []


def test_an_export_waits_for_what_another_process_measures(tmp_path: Path) -> None:
    program = Program(tmp_path / "x.tickscope", executor="child")
    other = program._carriers["child"]
    assert isinstance(other, ChildCarrier)
    other._jobs[1] = _Asked("run", None)
    written, cancelled = tmp_path / "first.json", tmp_path / "second.json"
    program.export([synthetic_run()], "json", written)
    assert not program._local.join(2.0)
    assert not written.exists()

    def over() -> None:
        with other._changed:
            other._jobs.clear()
            other._changed.notify_all()

    over()
    assert program.join(LIMIT_S)
    assert written.exists()
    other._jobs[2] = _Asked("run", None)
    program.export([synthetic_run()], "json", cancelled)
    program.cancel()
    assert program._local.join(LIMIT_S)
    assert not cancelled.exists()
    over()
    assert program.close()


def test_what_goes_on_is_shown_wherever_it_is(tmp_path: Path) -> None:
    program = Program(tmp_path / "x.tickscope", executor="child")
    going, over = threading.Event(), threading.Event()

    def work(context: JobContext) -> None:
        context.stage("loading")
        going.set()
        assert over.wait(LIMIT_S)

    program._local.carry(Toy(work))
    assert going.wait(LIMIT_S)
    assert program.status.state == "loading"
    over.set()
    assert program.join(LIMIT_S)
    assert program.status.state == "idle"
    assert program.close()
