"""What the window looks like, and what the sidebar says, is kept when it closes and found again when it opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QSize, Qt

from core.config import RunConfig
from gui.last_folder import last_folder, use_folder
from gui.setup.take_over import without_consent

if TYPE_CHECKING:
    from gui.main_window import MainWindow

TITLE_BAR, EDGE = 40, 8  # what a desktop puts around a window; it says so only once the window is shown


def restore(window: MainWindow) -> None:
    """Size, splitters and setup as they were; what another version wrote and this one cannot read is as if never set."""
    settings = window.settings
    known = not settings.geometry.isEmpty() and window.restoreGeometry(settings.geometry)
    fit_screen(window, maximized=not known)
    if not settings.splitter.isEmpty():
        window.splitter.restoreState(settings.splitter)
    if not settings.sidebar.isEmpty():
        window.frame.across.restoreState(settings.sidebar)
    window.show_sidebar(settings.sidebar_open)
    use_folder(settings.folder)
    if settings.folded is not None:
        window.sidebar.fold(settings.folded)
    window.sidebar.target.set_where(settings.executor)
    window.program.use(window.sidebar.target.where())
    config = _remembered(settings.setup)
    if config is not None:
        window.sidebar.show_config(config)


def fit_screen(window: MainWindow, *, maximized: bool) -> None:
    """No larger than the screen it opens on, title bar included; ``maximized`` where the usual size leaves no room around it.

    At 150 % a laptop's screen has 960 × 600 of our pixels, fewer than the window would like to have at least.
    """
    room = window.screen().availableGeometry().size()
    inside = QSize(room.width() - 2 * EDGE, room.height() - TITLE_BAR - EDGE)
    window.setMinimumSize(window.minimumSize().boundedTo(inside))
    if window.width() > inside.width() or window.height() > inside.height():
        window.resize(window.size().boundedTo(inside))
        if maximized:
            window.setWindowState(window.windowState() | Qt.WindowState.WindowMaximized)


def remember(window: MainWindow) -> None:
    """Keep them. Never the switches that let foreign code run, and a setup that cannot be read leaves the last one standing."""
    from core.session.codec import to_json

    settings = window.settings
    settings.geometry = window.saveGeometry()
    settings.splitter = window.splitter.saveState()
    settings.sidebar = window.frame.across.saveState()
    settings.sidebar_open = not window.sidebar.isHidden()
    settings.folder = last_folder()
    settings.folded = window.sidebar.folded()
    settings.view = window.views.current
    settings.under_way = False
    settings.executor = window.sidebar.target.where()
    setup = window.sidebar.setup()
    if setup is not None:
        settings.setup = to_json(without_consent(setup))
    settings.save()


def _remembered(text: str) -> RunConfig | None:
    from core.session.codec import config_from_json

    if not text:
        return None
    try:
        return without_consent(config_from_json(text))
    except Exception:  # noqa: BLE001 - whatever is wrong with the user's settings file, the window opens
        return None
