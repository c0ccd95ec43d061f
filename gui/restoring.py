"""What the window looks like is kept when it closes, and found again when it opens."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from core.config import ModelConfig

if TYPE_CHECKING:
    from gui.main_window import MainWindow


def restore(window: MainWindow) -> None:
    """Size, splitters and model as they were; what another version wrote and this one cannot read is as if never set."""
    settings = window.settings
    if not settings.geometry.isEmpty():
        window.restoreGeometry(settings.geometry)
    if not settings.splitter.isEmpty():
        window.splitter.restoreState(settings.splitter)
    remembered = settings.model
    if isinstance(remembered.get("spec"), str):
        try:
            window.sidebar.model.show_config(ModelConfig(remembered["spec"], remembered.get("dtype", "float32")))
        except ValueError:
            settings.model = {}  # the next choice replaces it


def remember(window: MainWindow) -> None:
    """Keep them. Never the switches that let foreign code run."""
    settings = window.settings
    settings.geometry = window.saveGeometry()
    settings.splitter = window.splitter.saveState()
    settings.view = max(0, window.header.tabs.currentIndex())
    try:
        model = asdict(window.sidebar.model_config())
    except ValueError:
        model = {}
    settings.model = {name: model[name] for name in ("spec", "dtype") if name in model}
    settings.save()
