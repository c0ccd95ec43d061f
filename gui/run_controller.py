"""What the buttons ask of the program: load, unload, run, try against each other, cancel, and "Load anyway"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from core.config import ABTestConfig, ModelConfig, RunConfig
from core.execution.executors.base import executors, survivor
from core.execution.tried import is_untried
from core.notices import Notice

if TYPE_CHECKING:
    from core.program import Program
    from gui.bridge import Bridge
    from gui.setup.sidebar import Sidebar


FIRST_TRY = (
    "This compiles, or hands the model to another engine, for the first time here; the run gets a process of its own for that."
)


class RunController:
    """Turns what the sidebar says into what the program does. Asked for twice, a thing is done once."""

    def __init__(self, program: Program, bridge: Bridge, sidebar: Sidebar) -> None:
        self._program = program
        self._bridge = bridge
        self._sidebar = sidebar
        self._again: Callable[[], None] | None = None  # what "Load anyway" repeats
        self._forced: ModelConfig | None = None

    @property
    def busy(self) -> bool:
        """Whether the program is at something."""
        return self._program.busy

    def load(self) -> None:
        """Load the chosen model."""
        self._load(force=False)

    def unload(self) -> None:
        """Give the model's memory back."""
        if not self.busy:
            self._program.unload()
            self._bridge.expect()

    def start(self) -> None:
        """Run what the sidebar says."""
        self._start(force=False)

    def start_trial(self, config: ABTestConfig) -> None:
        """Let the sides of an A/B test take turns."""
        self._start_trial(config, force=False)

    def skip_warm_up(self) -> None:
        """Let the run or A/B test under way measure at once."""
        self._program.skip_warm_up()

    def cancel(self) -> None:
        """Cancel what is going on."""
        if self.busy:
            self._program.cancel()
            self._bridge.expect()

    def load_anyway(self) -> None:
        """Do again, with force, what was refused because it does not seem to fit."""
        if self._again is not None:
            self._again()

    def _load(self, *, force: bool) -> None:
        if self.busy:
            return
        try:
            model, target = self._sidebar.model_config(), self._sidebar.target.config()
        except ValueError as problem:
            self._refuse(problem)
            return
        self._again = lambda: self._load(force=True)
        self._program.use(self._sidebar.target.where())
        self._program.load(self._perhaps_forced(model, force), target)
        self._bridge.expect()

    def _start(self, *, force: bool) -> None:
        if self.busy:
            return
        try:
            config = self._sidebar.run_config()
        except ValueError as problem:
            self._refuse(problem)
            return
        self._again = lambda: self._start(force=True)
        self._choose_where([config])
        self._program.start(replace(config, model=self._perhaps_forced(config.model, force)))
        self._bridge.expect()

    def _start_trial(self, config: ABTestConfig, *, force: bool) -> None:
        if self.busy:
            return
        self._again = lambda: self._start_trial(config, force=True)
        self._choose_where(config.sides)
        sides = tuple(replace(side, model=self._perhaps_forced(side.model, force)) for side in config.sides)
        self._program.start_trial(replace(config, sides=sides))
        self._bridge.expect()

    def _choose_where(self, configs: Sequence[RunConfig]) -> None:
        """Where the sidebar says, but what may abort and was never tried here does so in a process of its own."""
        where = self._sidebar.target.where()
        if not executors.get(where).survives and is_untried(configs):
            where = survivor()
            self._bridge.notice.emit(Notice("told", FIRST_TRY))
        self._program.use(where)

    def _perhaps_forced(self, model: ModelConfig, force: bool) -> ModelConfig:
        """Once "Load anyway" was said of a model it holds for it, or the next run would be refused again."""
        if force:
            self._forced = model
        forced = self._forced is not None and replace(model, force=False) == replace(self._forced, force=False)
        return replace(model, force=True) if forced else model

    def _refuse(self, problem: ValueError) -> None:
        self._sidebar.show_problem(str(problem))
        self._sidebar.focus_problem()
        self._bridge.notice.emit(Notice("refused", str(problem)))
