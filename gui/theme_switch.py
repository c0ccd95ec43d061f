"""Gives the application the chosen theme, and follows the desktop where that is the choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QObject
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication

from gui import theme

if TYPE_CHECKING:
    from gui.main_window import MainWindow


class ThemeSwitch(QObject):
    """``colours`` is the palette in use; panels are told when it changes."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self.colours = theme.DARK
        self._window = window
        window.state.theme_changed.connect(self._on_chosen)
        QGuiApplication.styleHints().colorSchemeChanged.connect(self._on_desktop)

    def apply(self) -> None:
        """Style the application, and tell every panel that paints in colours of its own."""
        window = self._window
        self.colours = theme.apply(_application(), window.state.theme)
        window.header.show_theme(window.state.theme)
        window.sidebar.set_palette(self.colours)
        for view in window.views:
            view.set_palette(self.colours)

    def _on_chosen(self, name: str) -> None:
        self._window.settings.theme = name
        self.apply()

    def _on_desktop(self) -> None:
        window = self._window
        if (
            window.state.theme == "system"
            and not window.closed
            and theme.resolve(_application(), "system") != self.colours.name
        ):
            self.apply()


def _application() -> QApplication:
    app = QApplication.instance()
    assert isinstance(app, QApplication)
    return app
