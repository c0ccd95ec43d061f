"""Gives the window the chosen theme, and follows the desktop where that is the choice.

Each panel has the style sheet, not the application: Qt polishes every widget under a changed sheet, and what is out of sight
can wait until it is looked at. That is the difference between 1.3 s and 0.1 s for a switch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QObject
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication, QWidget

from gui import theme
from gui.plain import SHEET
from gui.views.base import View

if TYPE_CHECKING:
    from gui.main_window import MainWindow


class ThemeSwitch(QObject):
    """``colours`` is the palette in use. Made before the panels, so that these begin with its fonts and colours."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window
        self._dressed: dict[View, str] = {}  # views, with the name of the palette that they were given
        self._take_up()
        window.state.theme_changed.connect(self._on_chosen)
        QGuiApplication.styleHints().colorSchemeChanged.connect(self._on_desktop)

    def apply(self) -> None:
        """Style the panels and the view on show; the others are when they are switched to (``show_view``)."""
        window = self._window
        window.header.show_theme(window.state.theme)
        popup = window.sidebar.model.names_popup  # a window of its own, which inherits nothing
        strips = (window.banner, window.feedback, window.saved)
        for panel in (window.header, window.sidebar, *strips, window.log, window.status_bar, popup):
            if panel is not None:
                self.dress(panel)
        window.sidebar.set_palette(self.colours)
        window.frame.set_palette(self.colours)
        for view in window.views.on_show:
            self.show_view(view)

    def show_view(self, view: View) -> None:
        """Bring a view up to date with the theme, if it is not."""
        if self._dressed.get(view) != self.colours.name:
            self._dressed[view] = self.colours.name
            view.setStyleSheet(self.sheet)
            view.set_palette(self.colours)

    def dress(self, page: QWidget) -> None:
        """Style a panel, or a page that is opened beside the window."""
        page.setStyleSheet(self.sheet)

    def _take_up(self) -> None:
        app = _application()
        self.colours = theme.apply(app, self._window.state.theme)
        self.sheet = theme.stylesheet(self.colours, theme.base_pixels(app))
        app.setProperty(SHEET, self.sheet)  # for questions, which no panel is the parent of

    def _on_chosen(self, name: str) -> None:
        self._window.settings.theme = name
        self._take_up()
        self.apply()

    def _on_desktop(self) -> None:
        follows = self._window.state.theme == "system" and not self._window.closed
        if follows and theme.resolve(_application(), "system") != self.colours.name:
            self._take_up()
            self.apply()


def _application() -> QApplication:
    app = QApplication.instance()
    assert isinstance(app, QApplication)
    return app
