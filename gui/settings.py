"""What the window remembers from one start to the next: layout, theme and the last setup."""

from __future__ import annotations

import json
from pathlib import Path

from PySide6.QtCore import QByteArray, QSettings

from gui.theme import THEMES

NUMBERED = ("live", "layers", "compare", "sessions")
"""The views that settings named by their number, in the order that they had."""


class Settings:
    """A small INI file of the user, or the file at ``path``. What cannot be read counts as never set."""

    def __init__(self, path: Path | None = None) -> None:
        ini = QSettings.Format.IniFormat
        if path is None:
            self._file = QSettings(ini, QSettings.Scope.UserScope, "tickscope", "tickscope")
        else:
            self._file = QSettings(str(path), ini)

    @property
    def theme(self) -> str:
        """The chosen theme, "system" at first."""
        theme = self._file.value("theme", "system")
        return theme if theme in THEMES else "system"

    @theme.setter
    def theme(self, name: str) -> None:
        self._file.setValue("theme", name)

    @property
    def geometry(self) -> QByteArray:
        """Of the window; empty if never stored."""
        value = self._file.value("geometry")
        return value if isinstance(value, QByteArray) else QByteArray()

    @geometry.setter
    def geometry(self, value: QByteArray) -> None:
        self._file.setValue("geometry", value)

    @property
    def splitter(self) -> QByteArray:
        """Of the log's splitter; empty if never stored."""
        value = self._file.value("splitter")
        return value if isinstance(value, QByteArray) else QByteArray()

    @splitter.setter
    def splitter(self, value: QByteArray) -> None:
        self._file.setValue("splitter", value)

    @property
    def sidebar(self) -> QByteArray:
        """Of the splitter between the sidebar and the views; empty if never stored."""
        value = self._file.value("sidebar")
        return value if isinstance(value, QByteArray) else QByteArray()

    @sidebar.setter
    def sidebar(self, value: QByteArray) -> None:
        self._file.setValue("sidebar", value)

    @property
    def sidebar_open(self) -> bool:
        """Whether the sidebar was on show; it is at first."""
        return str(self._file.value("sidebarOpen", "true")).lower() != "false"

    @sidebar_open.setter
    def sidebar_open(self, value: bool) -> None:
        self._file.setValue("sidebarOpen", value)

    @property
    def folded(self) -> list[str] | None:
        """Names of the sidebar's sections that were folded; None if never stored."""
        value = self._file.value("folded")
        return value.split() if isinstance(value, str) else None

    @folded.setter
    def folded(self, names: list[str]) -> None:
        self._file.setValue("folded", " ".join(names))

    @property
    def folder(self) -> str:
        """The folder that something was last saved to or opened from, "" for none."""
        return str(self._file.value("folder", ""))

    @folder.setter
    def folder(self, value: str) -> None:
        self._file.setValue("folder", value)

    @property
    def view(self) -> str:
        """Id of the view that was on show, "" for never stored. Until 0.4.0 it was its number, from 0."""
        value = str(self._file.value("view", ""))
        return dict(enumerate(NUMBERED)).get(int(value), "") if value.isdecimal() else value

    @view.setter
    def view(self, value: str) -> None:
        self._file.setValue("view", value)

    @property
    def recent(self) -> list[str]:
        """Paths of the sessions that were open last, the newest first."""
        try:
            value = json.loads(str(self._file.value("recent", "[]")))
        except ValueError:
            return []
        return [path for path in value if isinstance(path, str)] if isinstance(value, list) else []

    @recent.setter
    def recent(self, paths: list[str]) -> None:
        self._file.setValue("recent", json.dumps(paths))

    @property
    def setup(self) -> str:
        """The last setup as JSON of a ``RunConfig`` (never the switches that let foreign code run); "" if there was none."""
        return str(self._file.value("setup", ""))

    @setup.setter
    def setup(self, text: str) -> None:
        self._file.setValue("setup", text)

    @property
    def executor(self) -> str:
        """Where runs are carried out, "" for never chosen."""
        return str(self._file.value("executor", ""))

    @executor.setter
    def executor(self, name: str) -> None:
        self._file.setValue("executor", name)

    @property
    def under_way(self) -> bool:
        """Whether a run was going on in the window's own process when this was last written."""
        return str(self._file.value("underWay", "false")).lower() == "true"

    @under_way.setter
    def under_way(self, value: bool) -> None:
        self._file.setValue("underWay", value)

    def save(self) -> None:
        """Write the file now."""
        self._file.sync()
