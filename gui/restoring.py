"""What the window looks like, and what the sidebar says, is kept when it closes and found again when it opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.config import RunConfig
from gui.setup.take_over import without_consent

if TYPE_CHECKING:
    from gui.main_window import MainWindow


def restore(window: MainWindow) -> None:
    """Size, splitters and setup as they were; what another version wrote and this one cannot read is as if never set."""
    settings = window.settings
    if not settings.geometry.isEmpty():
        window.restoreGeometry(settings.geometry)
    if not settings.splitter.isEmpty():
        window.splitter.restoreState(settings.splitter)
    config = _remembered(settings.setup)
    if config is not None:
        window.sidebar.show_config(config)


def remember(window: MainWindow) -> None:
    """Keep them. Never the switches that let foreign code run, and a setup that cannot be read leaves the last one standing."""
    from core.session.codec import to_json

    settings = window.settings
    settings.geometry = window.saveGeometry()
    settings.splitter = window.splitter.saveState()
    settings.view = max(0, window.header.tabs.currentIndex())
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
