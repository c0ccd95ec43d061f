"""After a start that follows a crash: offers to carry runs out in a process of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from core.execution.executors.base import executors, survivor
from core.notices import Notice

if TYPE_CHECKING:
    from core.program import Program
    from gui.banner import Banner
    from gui.settings import Settings
    from gui.setup.target_picker import TargetPicker

CRASHED = (
    "Tickscope ended in the middle of a run last time; what was measured is in its session. In a process of its own, such a "
    "run ends alone."
)
LABEL = "Use its own process"


class CrashOffer:
    """Remembers in the settings that a run is going on in the window's process, until it has ended."""

    def __init__(
        self, program: Program, settings: Settings, target: TargetPicker, banner: Banner, make_room: Callable[[], None]
    ) -> None:
        self._program, self._settings = program, settings
        self._target, self._banner = target, banner
        self._make_room = make_room
        banner.taken_up.connect(self._take_up)

    def greet(self) -> None:
        """Offer it, if the last window ended within a run."""
        settings = self._settings
        if settings.under_way:
            settings.under_way = False
            settings.save()
            if not executors.get(self._target.where()).survives:
                self._banner.offer(Notice("warning", CRASHED), LABEL)
                self._make_room()

    def follow(self, notice: Notice) -> None:
        """A run begins or ends."""
        if notice.starts_measuring or notice.ends_measuring:
            self._settings.under_way = notice.starts_measuring and not executors.get(self._program.executor).survives
            self._settings.save()

    def _take_up(self) -> None:
        self._target.set_where(survivor())
