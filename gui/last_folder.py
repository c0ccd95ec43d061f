"""The folder that something was last saved to or opened from, kept on the application so that every dialog begins there."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QCoreApplication

PROPERTY = "lastFolder"


def last_folder() -> str:
    """The folder, "" while nothing was saved or opened, or it is gone."""
    app = QCoreApplication.instance()
    folder = str(app.property(PROPERTY) or "") if app is not None else ""
    return folder if folder and Path(folder).is_dir() else ""


def within(name: str) -> str:
    """``name`` in that folder, or as it is."""
    folder = last_folder()
    return str(Path(folder) / name) if folder else name


def use_folder(folder: str | Path) -> None:
    """Begin there from now on."""
    app = QCoreApplication.instance()
    if app is not None:
        app.setProperty(PROPERTY, str(folder))


def short_path(path: Path) -> str:
    """The path with ~ for the user's own folder."""
    try:
        return f"~/{path.relative_to(Path.home()).as_posix()}"
    except ValueError:
        return str(path)
