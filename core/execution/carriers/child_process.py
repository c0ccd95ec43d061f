"""The worker's half in a process of its own: takes commands from the window's half over its stdin, and tells it what happens.

Started by ``carriers.child``. The worker thread sets the pace: between two moments, a while after the last time, it sends what
is new and waits until the window has painted and written. Nothing of this process computes while a moment is going on.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from core.clock.gate import Gate
from core.ending import break_off, leave
from core.execution.jobs.base import job_kinds
from core.execution.link import Link, LinkError
from core.messages.reason import as_reason
from core.notices import STATUS_REASONS, Notice, Status
from core.private_folders import process_mark, remove_folders_of
from core.records.deltas import Written, since
from core.records.run import Run, RunFacts
from core.session import codec
from profilers.trace import Tag

if TYPE_CHECKING:
    from core.execution.jobs.base import Recorded

FLUSH_NS = 200_000_000
"""Between two flushes: what a process that is killed has not sent."""

PAUSE_LIMIT_S = 0.4
"""How long the window may let this process wait between two moments; a painting and an append take at most 0.33 s."""

STATUS_S = 0.25
LONG_MOMENT_NS = 2_000_000_000
"""A moment that lasts longer is disturbed, so that counters and status reach the window."""


class LinkedGate(Gate):
    """The gate of a process whose window is elsewhere: it is wanted every now and then, and a pause is the other side's."""

    def __init__(self) -> None:
        super().__init__()
        self.pausing: Callable[[], int] = lambda: 0
        self.last_ns = 0

    @property
    def wanted(self) -> bool:
        """Whether the last pause is a while ago."""
        return time.perf_counter_ns() - self.last_ns >= FLUSH_NS

    @wanted.setter
    def wanted(self, value: bool) -> None:
        """The time alone decides."""

    def pause(self) -> int:
        """Send what is new and let the other side paint and write; returns the nanoseconds that were waited for it.

        Sending is bookkeeping as after any moment; only while this side waits do its processors and caches go to others.
        """
        waited_ns = self.pausing()
        self.last_ns = time.perf_counter_ns()
        return waited_ns


@dataclass
class _Followed:
    recorded: Recorded
    written: Written = field(default_factory=Written)
    facts: RunFacts | None = None  # as the other side has them


class Serving:
    """The listener of this process's carrier: whatever it is told goes over the link."""

    def __init__(self, link: Link) -> None:
        from core.execution.carriers.local import LocalCarrier

        self._link = link
        self._gate = LinkedGate()
        self._gate.pausing = self._pause
        self._go = threading.Event()
        self._flushing = threading.Lock()
        self._followed: dict[int, _Followed] = {}
        self._keys = 0
        self._status: tuple[Any, ...] = ()
        self._order = -1
        self._over = threading.Event()
        self._carrier = LocalCarrier(self._gate, self)

    # -- told by the carrier ----------------------------------------------------------------------------------------------

    def tell(self, notice: Notice) -> None:
        """Something that people should know."""
        said = None if notice.said is None else as_reason(notice.said).as_json()
        self._link.send("notice", **{**shallow(notice), "said": said})

    def began(self, recorded: Recorded) -> None:
        """A run is about to begin."""
        self._keys += 1
        recorded.number = self._keys
        recorded.facts = replace(recorded.facts, executor="child")
        run = recorded.run()
        with self._flushing:
            self._followed[recorded.number] = _Followed(recorded, facts=run.facts)
        self._link.send(
            "began",
            key=recorded.number,
            name=run.name,
            created=run.created,
            origin_ns=recorded.recorder.origin_ns,
            config=codec.to_json(run.config),
            facts=codec.to_json(run.facts),
            group=[] if run.group is None else [run.group.id, run.group.kind, run.group.created],
            role=run.role,
        )

    def ended(self, runs: Sequence[Run]) -> Sequence[Run]:
        """Runs are over."""
        self._flush()
        self._tell_ab_test(force=True)
        with self._flushing:
            for run in runs:
                self._followed.pop(run.id, None)
        self._link.send("ended", keys=[run.id for run in runs])
        return runs

    # -- commands ---------------------------------------------------------------------------------------------------------

    def serve(self) -> bool:
        """Do what the window's half says until it closes the link; returns whether this process can end in the usual way."""
        threading.Thread(target=self._watch, name="tickscope-status", daemon=True).start()
        while (command := self._link.receive()) is not None:
            if not isinstance(command, dict):
                raise LinkError("rows for the worker's half")
            what = command["what"]
            if what == "close":
                break
            self._obey(what, command)
        self._over.set()
        self._carrier.cancel()
        return self._carrier.close(limit_s=1.0)

    def _obey(self, what: str, command: dict[str, Any]) -> None:
        carrier = self._carrier
        if what == "go":
            self._perturb(command["perturbed"])
            self._go.set()
        elif what == "cancel":
            carrier.cancel()
        elif what == "skip_warm_up":
            carrier.skip_warm_up()
        elif what == "import_ahead":
            carrier.import_ahead()
        else:
            if what != "do":
                raise LinkError(f"no command {what[:40]!r}")
            kind = job_kinds.get(command["kind"])
            carrier.do(kind.id, codec.structured(command["config"], kind.config))
            carrier.aside(lambda: self._tell_done(int(command["job"])))

    def _tell_done(self, job: int) -> None:
        self._tell_status(force=True)
        loaded = self._carrier.loaded
        facts = None if loaded is None else codec.to_json(loaded)
        self._link.send("done", job=job, loaded=facts, load_ns=self._carrier.load_ns)

    # -- flushing ---------------------------------------------------------------------------------------------------------

    def _pause(self) -> int:
        """On the worker, between two moments; returns how long it waited, in ns."""
        self._flush()
        self._tell_ab_test()
        self._tell_status()
        self._go.clear()
        start = time.perf_counter_ns()
        self._link.send("pause")
        self._go.wait(PAUSE_LIMIT_S)
        return time.perf_counter_ns() - start

    def _flush(self) -> None:
        with self._flushing:
            for key, followed in self._followed.items():
                run = followed.recorded.run()
                delta, followed.written = since(run.trace, followed.written)
                self._link.send_rows(key, delta)
                if run.facts != followed.facts:
                    followed.facts = run.facts
                    self._link.send("facts", key=key, name=run.name, facts=codec.to_json(run.facts))

    def _perturb(self, rows: dict[str, list[int]]) -> None:
        """The window painted while these moments were going on."""
        with self._flushing:
            for key, perturbed in rows.items():
                followed = self._followed.get(int(key))
                if followed is None:
                    continue
                moments = followed.recorded.recorder.moments
                tags = moments.view()["tags"]
                for row in perturbed:
                    if 0 <= row < len(tags):
                        moments.set(row, tags=int(tags[row]) | Tag.PERTURBED)

    def _tell_ab_test(self, *, force: bool = False) -> None:
        state = self._carrier.ab_test
        if state is None or not {run.id for run in state.runs} <= self._followed.keys():
            return
        if len(state.order) == self._order and not force:
            return
        self._order = len(state.order)
        self._link.send(
            "ab_test",
            order=list(state.order),
            verdicts=codec.to_json(state.verdicts),
            floors=dict(state.floors),
            stopped=None if state.stopped is None else state.stopped.as_json(),
            keys=[run.id for run in state.runs],
        )

    def _tell_status(self, *, force: bool = False) -> None:
        shown, status = self._carrier.shown, self._carrier.status
        text = shown.recorder.live_text if shown is not None else ""
        key = shown.number if shown is not None else 0
        now = (status, text, key)
        if force or now != self._status:
            self._status = now
            self._link.send("status", **status_message(status), live_text=text, shown=key)

    def _watch(self) -> None:
        """Where no moment ends for long (loading, compiling, a prefill of minutes), say how far it is all the same."""
        while not self._over.wait(STATUS_S):
            beside = time.perf_counter_ns() - self._gate.last_ns > LONG_MOMENT_NS
            try:
                if not self._gate.clock_runs:
                    self._tell_status()
                elif beside:
                    start = time.perf_counter_ns()
                    self._flush()
                    self._tell_status()
                    self._gate.disturb(time.perf_counter_ns() - start)
            except OSError:  # the window has gone, and the main thread learns it too
                return


def status_message(status: Status) -> dict[str, Any]:
    """A status by field, its reasons as JSON."""
    reasons = {name: [one.as_json() for one in getattr(status, name)] for name in STATUS_REASONS}
    return {**shallow(status), **reasons}


def shallow(value: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, as they are."""
    return {one.name: getattr(value, one.name) for one in fields(value)}


def guard(lifeline: int, window: str, keep: Sequence[int] = ()) -> None:
    """Leave a process behind that ends this one, with all it has started, as soon as the window's process is gone.

    This process may hang in native code, where no thread of Python's runs, so it cannot be trusted to end itself. POSIX only.

    Args:
        lifeline: a pipe whose other end the window holds: it ends with it.
        window: the mark of the window's process, whose folder is removed too if it left one.
        keep: descriptors that must not be held open by the process left behind.
    """
    mark, group = process_mark(), os.getpid()
    if os.fork():
        os.close(lifeline)
        return
    try:
        os.setsid()
        for descriptor in (0, 1, 2, *keep):
            os.close(descriptor)
        said = os.read(lifeline, 1)  # a word where this process has ended and the window lives on
        _end_group(group)
        remove_folders_of(mark)
        if not said:
            remove_folders_of(window)
    finally:
        os._exit(0)


def _end_group(group: int) -> None:
    import signal
    from contextlib import suppress

    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def main(arguments: Sequence[str]) -> int:
    """``child_process LIFELINE WINDOW``: the number of the lifeline's descriptor (-1: none) and the mark of the window."""
    lifeline, window = int(arguments[0]), arguments[1]
    # what models, libraries and tqdm print must not get among the frames
    protocol = os.dup(1)
    os.dup2(2, 1)
    if lifeline >= 0:
        guard(lifeline, window, (protocol,))
    link = Link(os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(protocol, "wb", buffering=0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # nobody else reads the commands
    try:
        ended = Serving(link).serve()
    except (LinkError, OSError) as error:
        print(f"The link to the window broke: {error}", file=sys.stderr)  # noqa: T201
        ended = False
    return leave(0) if ended else break_off(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
