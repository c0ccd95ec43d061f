"""The program without a face: what the window and the command line both drive."""

from __future__ import annotations

import queue
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core import paths
from core.clock.gate import Gate
from core.config import ABTestConfig, LoadConfig, ModelConfig, RunConfig, TargetConfig, UnloadConfig
from core.ending import LIMIT_S, hanging, within
from core.execution.ab_test_state import ABTestState
from core.execution.carriers.base import Carrier
from core.execution.carriers.local import LocalCarrier
from core.execution.executors.base import DEFAULT, listed
from core.execution.jobs.base import Recorded
from core.execution.jobs.export_runs import ExportRuns
from core.execution.jobs.import_trace import ImportTrace
from core.execution.tried import note_tried
from core.machine_cache import sweep_once
from core.messages.reason import Reason
from core.models.base import ModelFacts
from core.notices import Notice, Status, Warnings
from core.records.noise_floors import NoiseFloors
from core.records.run import Run
from core.session.current import CurrentSession
from core.targets.base import TargetFacts, targets

if TYPE_CHECKING:  # DuckDB takes 85 ms to import, which the window should not wait for
    from core.execution.foresight import Foresight
    from core.session.store import SessionStore


LOOK_S = 0.5
"""How often what waits for another process looks whether it was cancelled."""


class Program:
    """The window's half: session, notices, and the carrier that does the work. Every method returns at once unless it says
    otherwise.

    What happens where the model is comes through ``notices``; where it stands, through ``status``.
    """

    def __init__(self, session_path: Path | None = None, *, keep_session: bool = True, executor: str = DEFAULT) -> None:
        self.gate = Gate()
        self.notices: queue.SimpleQueue[Notice] = queue.SimpleQueue()
        self._session = CurrentSession(session_path, keep_session, self.gate, self.notices.put)
        self._last: Run | None = None
        self.abandoned = False
        self._warnings = Warnings(self._warn)
        self._carriers: dict[str, Carrier] = {one.id: one.make(self.gate, self) for one in listed()}
        local = self._carriers[DEFAULT]
        assert isinstance(local, LocalCarrier)
        self._local = local
        self._carrier: Carrier = local
        self._tested: Carrier = local  # the last A/B test
        self.use(executor)
        self._local.aside(sweep_once)
        self._local.aside(NoiseFloors().sweep)
        if session_path is not None and paths.is_there(session_path):
            self.open_session(session_path)

    # -- what the faces read ----------------------------------------------------------------------------------------------

    @property
    def store(self) -> SessionStore | None:
        """The open session; None until the first run."""
        return self._session.store

    @property
    def status(self) -> Status:
        """What is going on, as of now, wherever that is; cheap enough for every tick."""
        busy = (
            self._carrier if self._carrier.busy else next((one for one in self._carriers.values() if one.busy), self._carrier)
        )
        return busy.status

    @property
    def busy(self) -> bool:
        """Whether there is something to do that somebody waits for, wherever it was begun."""
        return any(carrier.busy for carrier in self._carriers.values())

    @property
    def executor(self) -> str:
        """Where runs are carried out, of ``executors``."""
        return self._carrier.id

    @property
    def loaded(self) -> ModelFacts | None:
        """The model that is in memory where runs are carried out."""
        return self._carrier.loaded

    @property
    def load_ns(self) -> int | None:
        """How long loading it took."""
        return self._carrier.load_ns

    @property
    def process(self) -> int | None:
        """The number of the process that the model is in, where that is not this one."""
        return self._carrier.process

    @property
    def foresight(self) -> Foresight:
        """Predicted gains of passes, for a model that is loaded in this process."""
        return self._local.foresight

    def live(self) -> Run | None:
        """The run under way with a fresh snapshot, or the last one; in an A/B test, that of its last side."""
        shown = self._carrier.shown
        return shown.run() if shown is not None else self._last

    @property
    def live_text(self) -> str:
        """The text of the request under way, as of the last pause."""
        shown = self._carrier.shown
        return shown.recorder.live_text if shown is not None else ""

    @property
    def trial(self) -> ABTestState | None:
        """The A/B test under way with fresh snapshots, or the last one."""
        return self._tested.ab_test

    def probe_targets(self) -> list[TargetFacts]:
        """All targets, with the reason where one is absent (as much as is known before torch is loaded)."""
        return [target.probe() for target in targets]

    # -- what people ask for ----------------------------------------------------------------------------------------------

    def use(self, executor: str) -> None:
        """Carry out runs there from now on; the model that is loaded elsewhere is let go. ``ValueError`` where it is none."""
        if executor not in self._carriers:
            raise ValueError(Reason("program.no-executor", executor=executor, known=tuple(self._carriers)))
        carrier = self._carriers[executor]
        if carrier is not self._carrier:
            self.unload()
            self._carrier = carrier

    def load(self, model: ModelConfig, target: TargetConfig) -> None:
        """Load a model onto a target."""
        self._carrier.do("load", LoadConfig(model, target))

    def unload(self) -> None:
        """Let the model go, if there is one."""
        if self._carrier.loaded is not None or self._carrier.busy:
            self._carrier.do("unload", UnloadConfig())

    def start(self, config: RunConfig) -> None:
        """Carry out a run, loading its model first where needed."""
        self._carrier.do("run", config)

    def start_trial(self, config: ABTestConfig) -> None:
        """Carry out an A/B test; its sides become runs of the session."""
        self._tested = self._carrier
        self._tested.do("ab_test", config)

    def import_trace(self, path: Path) -> None:
        """Read a Kineto or Chrome trace into a run of the session, in this process."""
        self._local.carry(ImportTrace(path, self._add))

    def export(self, runs: Sequence[Run], format_id: str, path: Path) -> None:
        """Write runs in another format, in this process, once nothing is measured any more."""
        self._local.carry(ExportRuns(runs, format_id, path, self._rests))

    def cancel(self) -> None:
        """Cancel what is going on; what was measured is kept."""
        for carrier in self._carriers.values():
            carrier.cancel()

    def skip_warm_up(self) -> None:
        """Let what is under way measure as soon as it can; nothing where nothing warms up."""
        self._carrier.skip_warm_up()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until there is nothing to do; False if ``timeout_s`` passed first."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self.busy:
            for carrier in self._carriers.values():
                if not carrier.join(None if deadline is None else max(0.0, deadline - time.monotonic())):
                    return False
        return True

    def open_session(self, path: Path) -> None:
        """Close the session and open another; ``Refusal`` if that cannot be opened (the present one then stays). Waits."""
        self._session.change(path, create=False)

    def new_session(self, path: Path | None = None) -> None:
        """Close the session and begin another, at ``path`` or (with the first run) in the user's data folder. Waits."""
        if path is None:
            self._session.leave()
        else:
            self._session.change(path, create=True)

    def close(self, limit_s: float | None = None) -> bool:
        """Cancel what is going on, write everything, and end all threads. Waits, for a carrier no longer than ``limit_s``.

        Returns whether all threads ended; if not, what was measured was written without them, and the process has to end.
        """
        self.cancel()
        for carrier in self._carriers.values():
            if carrier is not self._local:
                carrier.close(limit_s)
        if not self.abandoned:
            if self._local.close(limit_s):
                self._session.close()
            else:
                self.abandon()
        self._warnings.close()
        return not self.abandoned

    def abandon(self) -> None:
        """What goes on does not end: write what was measured, as cancelled, close the session. Waits ``LIMIT_S`` at most."""
        if self.abandoned:
            return
        self.abandoned = True
        hanging.set()

        def write() -> None:
            self._carrier.give_up()
            self._session.close()

        if not within(LIMIT_S, write):
            self.notices.put(Notice("warning", Reason("program.last-second-lost")))

    def import_ahead(self) -> None:
        """Get ready, while nobody waits, for the first model."""
        self._carrier.import_ahead()

    # -- told by the carriers, on threads of theirs -------------------------------------------------------------------------

    def tell(self, notice: Notice) -> None:
        """See ``Listener``."""
        self.notices.put(notice)

    def began(self, recorded: Recorded) -> None:
        """See ``Listener``: the run goes into the session file from its first row on."""
        self._session.follow(recorded)
        self._last = None

    def ended(self, runs: Sequence[Run]) -> Sequence[Run]:
        """See ``Listener``."""
        kept = self._session.settle(runs)
        self._last = kept[-1]
        for run in kept:
            if run.facts.status == "finished":
                note_tried(run.config)
        return kept

    def _rests(self) -> bool:
        """Waits a moment for other processes; whether none of them measures any more."""
        return all(carrier.join(LOOK_S) for carrier in self._carriers.values() if carrier is not self._local)

    def _add(self, run: Run) -> Run:
        self._last = run = self._session.add(run)
        return run

    def _warn(self, sentence: Reason) -> None:
        self.notices.put(Notice("warning", sentence))
