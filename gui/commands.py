"""The menus: every command with its keys. Number keys and letters do not act while someone types into a field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gui.header import Command, theme_commands

if TYPE_CHECKING:
    from gui.main_window import MainWindow


def commands(window: MainWindow, views: Sequence[str]) -> list[Command]:
    """All menu entries, in order."""
    files = window.files
    file_menu = [
        Command("File", "newSession", "New session", files.new_session, ("Ctrl+N",)),
        Command("File", "openSession", "Open session…", files.open_session, ("Ctrl+O",)),
        Command("File", "saveSessionAs", "Save session as…", files.save_session_as, ("Ctrl+Shift+S",)),
        Command("File", "exportRun", "Export run…", files.export_run, ("Ctrl+E",), separated=True),
        Command("File", "quit", "Quit", window.close, ("Ctrl+Q",), separated=True),
    ]
    run_menu = [
        Command("Run", "loadModel", "Load", window.work.load, ("Ctrl+L",)),
        Command("Run", "unloadModel", "Unload", window.work.unload, ("Ctrl+U",)),
        Command("Run", "startRun", "Run", window.work.start, ("F5",), separated=True),
        Command("Run", "cancelRun", "Cancel", window.work.cancel, ("Esc",)),
    ]
    view_menu = [
        Command("View", f"view{number}", view, lambda n=number: window.switch_view(n - 1), (str(number),), group="views")  # type: ignore[misc]  # mypy cannot infer a lambda's default
        for number, view in enumerate(views, 1)
    ]
    log = Command("View", "toggleLog", "Log", window.toggle_log, ("Ctrl+J",), checkable=True, separated=True)
    help_menu = [
        Command("Help", "schema", "Session file schema", window.show_schema, ("F1",)),
        Command("Help", "about", "About Tickscope", window.show_about),
    ]
    return [*file_menu, *run_menu, *view_menu, *theme_commands(window.set_theme), log, *help_menu]
