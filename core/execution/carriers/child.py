"""The carrier of a process of its own: what happens there costs the run at worst, never the window."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import msgspec

from core.analysis.verdict import SideVerdict
from core.clock.gate import Gate
from core.config import ABTestConfig, RunConfig
from core.error_text import named
from core.errors import Cancelled, Refusal
from core.execution import outcome
from core.execution.ab_test_state import ABTestState
from core.execution.carriers.child_ending import Ending
from core.execution.carriers.worker_process import CLOSE_S, WorkerProcess
from core.execution.jobs.base import Listener
from core.execution.link import LinkError
from core.execution.mirror import Mirror
from core.messages.reason import Reason, of_text
from core.models.base import ModelFacts
from core.notices import STATES, STATUS_REASONS, Notice, Status
from core.pass_api.options import read_run
from core.records.deltas import Delta
from core.records.run import Group, Run, RunFacts, status_said
from core.session import codec

GRACE_S = 5.0
"""After a cancel, until the process is killed."""


@dataclass(frozen=True)
class _Asked:
    """A job of that kind, which the other process was asked to do."""

    kind: str
    config: Any


class _ABTestMessage(msgspec.Struct):
    """Where an A/B test stands, as the other process tells it: its sides by key, and whose turn it was each time."""

    keys: list[int]
    order: list[int]
    floors: dict[str, float]


class ChildCarrier:
    """See ``Carrier``. The process is started with the first command, or ahead, and again after its end.

    Args:
        gate: of this process: who may come in while the other one waits.
        listener: is told on a thread of this carrier's.
    """

    id = "child"

    def __init__(self, gate: Gate, listener: Listener) -> None:
        self._gate = gate
        self._listener = listener
        self._changed = threading.Condition()
        self._jobs: dict[int, _Asked] = {}  # by number; asked and not done
        self._asked = 0
        self._process: WorkerProcess | None = None
        self._reader: threading.Thread | None = None
        self._closing = False
        self._ahead = False  # a process is to be there before anybody asks for it
        self._cancelled = False
        self._status = Status()
        self._mirrors: dict[int, Mirror] = {}
        self._shown = 0
        self._perturbed: dict[str, list[int]] = {}  # rows of moments that were painted in, by key, since the last pause
        self._unwanted: set[int] = set()  # keys of runs that could not be kept
        self._numbers: dict[int, int] = {}  # in the session, by key
        self._ab_test: dict[str, Any] | None = None
        self._last_ab_test: ABTestState | None = None
        self.loaded: ModelFacts | None = None
        self.load_ns: int | None = None

    # -- any thread -------------------------------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        if self._cancelled and self.busy:
            return replace(self._status, state="cancelling")
        if self.busy and self._status.state in ("idle", "ready"):
            return replace(self._status, state="loading", said=(Reason("execution.starting-process"),))
        return self._status

    @property
    def busy(self) -> bool:
        return bool(self._jobs)

    @property
    def shown(self) -> Mirror | None:
        return self._mirrors.get(self._shown) or next(reversed(list(self._mirrors.values())), None)

    @property
    def ab_test(self) -> ABTestState | None:
        return self._ab_test_state() or self._last_ab_test

    @property
    def _under_way(self) -> _Asked | None:
        """The job that is being carried out: jobs are, in the order in which they were asked."""
        return next(iter(list(self._jobs.values())), None)

    @property
    def process(self) -> int | None:
        """The number of the process, None while there is none."""
        process = self._process
        return process.number if process is not None else None

    def do(self, kind: str, config: Any) -> None:
        self._started()
        with self._changed:
            self._asked += 1
            number = self._asked
            self._jobs[number] = _Asked(kind, config)
            self._cancelled = False
        self._send("do", job=number, kind=kind, config=codec.to_json(config))

    def cancel(self) -> None:
        if not self.busy or self._cancelled:
            return
        self._cancelled = True
        self._send("cancel")
        threading.Thread(target=self._insist, args=(self._process,), name="tickscope-child-cancel", daemon=True).start()

    def skip_warm_up(self) -> None:
        self._send("skip_warm_up")

    def import_ahead(self) -> None:
        self._ahead = True
        self._started()
        self._send("import_ahead")

    def join(self, timeout_s: float | None = None) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs, timeout_s)

    def close(self, limit_s: float | None = None) -> bool:
        self._closing = True
        process, reader = self._process, self._reader
        if process is None or reader is None:
            return True
        if self.busy:
            self.cancel()
            self.join(GRACE_S + CLOSE_S if limit_s is None else limit_s)
        self._send("close")
        reader.join(CLOSE_S)
        if reader.is_alive():
            process.kill()
            reader.join(CLOSE_S)
        return True

    def give_up(self) -> None:
        process = self._process
        if process is not None:
            process.kill()

    # -- asking -----------------------------------------------------------------------------------------------------------

    def _started(self) -> None:
        with self._changed:
            if self._process is None and not self._closing:
                self._process = process = WorkerProcess()
                self._reader = threading.Thread(target=self._read, args=(process,), name="tickscope-child", daemon=True)
                self._reader.start()

    def _send(self, what: str, **values: Any) -> None:
        process = self._process
        if process is not None:
            process.send(what, **values)

    def _insist(self, process: WorkerProcess | None) -> None:
        """What was cancelled has to end."""
        if not self.join(GRACE_S) and process is not None and process is self._process and self._cancelled:
            process.kill()

    # -- the reader's thread ----------------------------------------------------------------------------------------------

    def _read(self, process: WorkerProcess) -> None:
        trouble: Reason | None = None
        try:
            while (frame := process.link.receive()) is not None:
                if isinstance(frame, dict):
                    self._hear(frame)
                else:
                    self._take(*frame)
        except Exception as error:  # noqa: BLE001 - a stranger's code may be sending: whatever it is costs the run alone
            trouble = of_text(named(error))
            process.kill()
        self._gate.clock_runs = False
        ending = Ending(process.ended(), tuple(process.said), process.kills_before, trouble)
        try:
            self._end(ending)
        except Exception as error:  # noqa: BLE001 - whoever waits must not wait for ever
            self._listener.tell(outcome.of_error(error))
        finally:
            self._forget()
            if self._ahead and not self._closing:  # the next run should not wait for what this one has broken
                self.import_ahead()

    def _hear(self, message: dict[str, Any]) -> None:
        heard: dict[str, Callable[[dict[str, Any]], None]] = {
            "pause": self._pause,
            "status": self._on_status,
            "facts": self._on_facts,
            "began": self._on_began,
            "ended": self._on_ended,
            "notice": self._on_notice,
            "ab_test": self._on_ab_test,
            "done": self._on_done,
        }
        heard[message["what"]](message)

    def _take(self, key: int, delta: Delta) -> None:
        if key in self._unwanted:
            return
        mirror = self._mirrors.get(key)
        if mirror is None:
            raise LinkError(f"rows of a run {key} that never began")
        rows = mirror.take(delta, self._gate.paintings())
        if rows:
            self._perturbed.setdefault(str(key), []).extend(rows)

    def _pause(self, _: dict[str, Any]) -> None:
        """The other process waits between two moments: paint and write, then let it go on."""
        self._gate.clock_runs = False
        self._gate.pause()
        perturbed, self._perturbed = self._perturbed, {}
        self._gate.take_disturbance()
        self._gate.clock_runs = True
        process = self._process
        if process is not None:
            with contextlib.suppress(OSError, ValueError):  # it is gone, and this thread learns it from the next frame
                process.link.send("go", perturbed=perturbed)  # at once: the model waits for it

    def _on_status(self, message: dict[str, Any]) -> None:
        known = {one.name: message[one.name] for one in fields(Status)}
        reasons: dict[str, Any] = {name: tuple(map(Reason.from_json, known.pop(name))) for name in STATUS_REASONS}
        status = replace(msgspec.convert(known, Status), **reasons)
        if status.state not in STATES:
            raise LinkError(f"a state {status.state[:40]!r}")
        self._status = status
        self._shown = int(message["shown"])
        shown = self.shown
        if shown is not None:
            shown.recorder.live_text = str(message["live_text"])

    def _on_began(self, message: dict[str, Any]) -> None:
        config = read_run(codec.structured(message["config"], RunConfig))
        facts = codec.structured(message["facts"], RunFacts)
        mirror = Mirror(int(message["key"]), str(message["name"]), str(message["created"]), config, facts)
        mirror.group, mirror.role = self._group(message), int(message["role"])
        mirror.recorder.origin_ns = int(message["origin_ns"])
        self._perturbed = {}
        try:
            self._listener.began(mirror)
        except Refusal as refusal:
            self._unwanted.add(mirror.key)
            self._send("cancel")
            self._listener.tell(outcome.of_error(refusal))
            return
        self._numbers[mirror.key] = mirror.number
        self._mirrors[mirror.key] = mirror
        self._shown = mirror.key
        self._gate.clock_runs = True

    def _group(self, message: dict[str, Any]) -> Group | None:
        """What was asked of all of a group is known here, so it is not taken from the other process."""
        told = [str(one) for one in message["group"]]
        asked = self._under_way
        config = asked.config if asked is not None and isinstance(asked.config, ABTestConfig) else None
        return Group(told[0], told[1], told[2], config) if told else None

    def _on_facts(self, message: dict[str, Any]) -> None:
        if int(message["key"]) in self._unwanted:
            return
        mirror = self._mirrors[int(message["key"])]
        mirror.name = str(message["name"])
        mirror.facts = codec.structured(message["facts"], RunFacts)

    def _on_ended(self, message: dict[str, Any]) -> None:
        self._gate.clock_runs = False
        over = [self._mirrors[int(key)] for key in message["keys"] if int(key) not in self._unwanted]
        if over:
            self._settle(over)

    def _settle(self, over: list[Mirror]) -> Sequence[Run]:
        kept = self._listener.ended([mirror.run() for mirror in over])
        state = self._ab_test_state()
        for mirror, run in zip(over, kept, strict=True):
            self._numbers[mirror.key] = run.id
        if state is not None:
            self._last_ab_test = replace(state, runs=tuple(kept))
            self._ab_test = None
        for mirror in over:
            self._mirrors.pop(mirror.key, None)
        return kept

    def _on_notice(self, message: dict[str, Any]) -> None:
        run = message["run"]
        self._listener.tell(
            Notice(
                str(message["kind"]),
                None if message["said"] is None else Reason.from_json(message["said"]),
                str(message["detail"]),
                None if run is None else self._numbers.get(int(run), int(run)),
                bool(message["can_override"]),
                str(message["job"]),
            )
        )

    def _on_ab_test(self, message: dict[str, Any]) -> None:
        stopped = message["stopped"] and Reason.from_json(message["stopped"])
        verdicts = codec.structured(message["verdicts"], tuple[SideVerdict, ...])
        known = msgspec.convert(message, _ABTestMessage)
        if known.order and not 0 <= min(known.order) <= max(known.order) < len(known.keys):
            raise LinkError("turns of sides that there are not")
        self._ab_test = {
            "keys": known.keys,
            "order": known.order,
            "floors": known.floors,
            "verdicts": verdicts,
            "stopped": stopped,
        }
        self._last_ab_test = None

    def _on_done(self, message: dict[str, Any]) -> None:
        self.loaded = None if message["loaded"] is None else codec.structured(message["loaded"], ModelFacts)
        self.load_ns = msgspec.convert(message["load_ns"], int | None)
        with self._changed:
            self._jobs.pop(int(message["job"]), None)
            if not self._jobs:
                self._cancelled = False
            self._changed.notify_all()

    def _ab_test_state(self) -> ABTestState | None:
        known, asked = self._ab_test, self._under_way
        if known is None or asked is None or not isinstance(asked.config, ABTestConfig):
            return None
        sides = [self._mirrors[key].run() for key in known["keys"] if key in self._mirrors]
        if len(sides) != len(known["keys"]):
            return None
        return ABTestState(
            asked.config, tuple(sides), tuple(known["order"]), known["verdicts"], known["floors"], known["stopped"]
        )

    def _end(self, ending: Ending) -> None:
        """The process is gone: what it measured is kept, with the reason why there is no more of it."""
        cancelled, expected = self._cancelled, self._closing and not self.busy
        job = self._under_way.kind if self._under_way is not None else ""
        over = list(self._mirrors.values())
        status = "cancelled" if cancelled else "failed"
        sentence = outcome.KILLED if cancelled else ending.sentence(over[-1].recorder.moments.count if over else 0)
        if over:
            for mirror in over:
                mirror.fail(sentence, status)
            kept = self._settle(over)
            single = len(kept) == 1
            said = outcome.of_run(kept[0]) if single else outcome.of_ab_test(status, status_said(status))
            self._listener.tell(Notice(f"job_{status}", said, run=kept[0].id if single else None, job=job))
        elif cancelled:
            self._listener.tell(outcome.of_error(Cancelled(), job))
        if not cancelled and (over or (self.busy and not expected)):
            self._listener.tell(Notice("failed", sentence, ending.detail, job=job))

    def _forget(self) -> None:
        """Whatever was known of the process that is gone."""
        with self._changed:
            self._process = self._reader = None
            self._cancelled = False
            self._mirrors.clear()
            self._unwanted.clear()
            self._numbers.clear()
            self._perturbed.clear()
            self._ab_test = None
            self.loaded, self.load_ns, self._status = None, None, Status()
            self._jobs.clear()
            self._changed.notify_all()
