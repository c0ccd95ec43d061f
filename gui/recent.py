"""File › Open recent: the sessions that were open last, the newest first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtWidgets import QMenu, QWidget

from core.plain_text import visible
from gui.header import Header
from gui.plain import plain_tip
from gui.settings import Settings

MOST = 10


class RecentSessions:
    """A submenu that is filled when it opens, so that files which went meanwhile are greyed."""

    def __init__(self, settings: Settings, header: Header, opened: Callable[[Path], None], parent: QWidget) -> None:
        self._settings, self._open = settings, opened
        self.menu = QMenu("Open recent", parent)
        self.menu.setObjectName("recentSessions")
        self.menu.setToolTipsVisible(True)
        self.menu.aboutToShow.connect(self._fill)
        before = header.actions_by_name["saveSessionAs"]
        header.menus["File"].insertMenu(before, self.menu)

    def remember(self, path: Path) -> None:
        """This session is open now."""
        settings = self._settings
        others = [known for known in settings.recent if known != str(path)]
        settings.recent = [str(path), *others][:MOST]

    def _fill(self) -> None:
        self.menu.clear()
        for known in self._settings.recent:
            path = Path(known)
            action = self.menu.addAction(visible(path.name).replace("&", "&&"))
            there = path.is_file()
            action.setEnabled(there)
            action.setToolTip(plain_tip(known if there else f"{known} is not there any more"))
            action.triggered.connect(lambda _on=False, chosen=path: self._open(chosen))
        if self.menu.isEmpty():
            self.menu.addAction("No session was open yet").setEnabled(False)
