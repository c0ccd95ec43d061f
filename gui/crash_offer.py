"""After a start that follows a crash: offers to carry runs out in a process of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.notices import Notice

if TYPE_CHECKING:
    from gui.main_window import MainWindow

CRASHED = (
    "Tickscope ended in the middle of a run last time; what was measured is in its session. In a process of its own, such a "
    "run ends alone."
)
LABEL = "Use its own process"


class CrashOffer:
    """Remembers in the settings that a run is going on in the window's process, until it has ended."""

    def __init__(self, window: MainWindow) -> None:
        self._window = window
        window.banner.taken_up.connect(self._take_up)

    def greet(self) -> None:
        """Offer it, if the last window ended within a run."""
        settings = self._window.settings
        if settings.under_way:
            settings.under_way = False
            settings.save()
            if self._window.sidebar.target.where() == "local":
                self._window.banner.offer(Notice("warning", CRASHED), LABEL)
                self._window.frame.make_room()

    def follow(self, notice: Notice) -> None:
        """A run begins or ends."""
        if notice.starts_measuring or notice.ends_measuring:
            self._window.settings.under_way = notice.starts_measuring and self._window.program.executor == "local"
            self._window.settings.save()

    def _take_up(self) -> None:
        self._window.sidebar.target.set_where("child")
