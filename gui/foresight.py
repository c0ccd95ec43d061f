"""Predicted gains in the window: asked for when the model is there and nothing is going on, shown in the list of passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, QTimer

from core.config import PassConfig, RunConfig
from core.notices import Notice

if TYPE_CHECKING:
    from core.program import Program
    from gui.bridge import Bridge
    from gui.setup.sidebar import Sidebar

SETTLED_MS = 700
"""So long nothing must have been changed in the sidebar: predicting takes the processor."""


class ForesightInWindow(QObject):
    """Predicts for the setup that the sidebar has, anew when it changes, and never beside a job."""

    def __init__(self, program: Program, sidebar: Sidebar, bridge: Bridge) -> None:
        super().__init__(sidebar)
        self._program = program
        self._sidebar = sidebar
        self._asked: tuple[RunConfig, tuple[PassConfig, ...]] | None = None
        self._shown: Any = None
        self._settled = QTimer(self)
        self._settled.setSingleShot(True)
        self._settled.setInterval(SETTLED_MS)
        self._settled.timeout.connect(self.ask)
        sidebar.changed.connect(self._settled.start)
        bridge.notice.connect(self._on_notice)
        bridge.add_poll(self.show_found)

    def ask(self) -> None:
        """Have the gains predicted, if a model is loaded, the worker is idle and they are not predicted already."""
        wanted = self._wanted()
        if wanted is None or self._program.busy or self._known(wanted):
            return
        self._asked = wanted
        self._program.foresight.ask(*wanted)

    def show_found(self) -> None:
        """Show what is predicted by now, if it is for what is set."""
        seen = self._program.foresight.seen
        if seen is self._shown:
            return
        self._shown = seen
        if seen is not None and (seen.config, seen.choices) == self._asked and seen.found:
            self._sidebar.passes.show_predictions(seen.found)

    def _on_notice(self, notice: Notice) -> None:
        if notice.kind == "unloaded":
            self._asked = None
            self._sidebar.passes.show_predictions({})
        elif notice.kind == "loaded" or notice.ends_measuring:
            self._settled.start()

    def _wanted(self) -> tuple[RunConfig, tuple[PassConfig, ...]] | None:
        """What there is to predict for: model, target and workload without passes, and every pass as it is set."""
        setup = self._sidebar.setup()
        if self._program.loaded is None or setup is None:
            return None
        return RunConfig(setup.model, (), setup.target, setup.workload, ()), tuple(self._sidebar.all_passes())

    def _known(self, wanted: tuple[RunConfig, tuple[PassConfig, ...]]) -> bool:
        seen = self._program.foresight.seen
        return seen is not None and seen.done and (seen.config, seen.choices) == wanted and not seen.why
