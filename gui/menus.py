"""The menus: every command with its keys. Number keys and letters do not act while someone types into a field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gui.header import Command, theme_commands, view_commands
from gui.help_menu import help_commands

if TYPE_CHECKING:
    from gui.main_window import MainWindow
    from gui.views.base import ViewSpec

IMPORT_HINT = "A trace of another profiler, as torch.profiler writes it, becomes a run of this session"
TRIAL_HINT = "The sides chosen in Compare take turns, request by request, until it is plain which is faster"
SETUP_HINT = "Fill the sidebar with what the run on show was asked to do"
SIDEBAR_HINT = "Model, passes and workload beside the views"
FLOOR_HINT = "Side A against itself: what differs then is this machine's noise, and smaller differences mean nothing"


def commands(window: MainWindow, views: Sequence[ViewSpec]) -> list[Command]:
    """All menu entries, in order."""
    files = window.files
    file_menu = [
        Command("File", "newSession", "New session", files.new_session, ("Ctrl+N",), hint="Its file comes with the first run"),
        Command("File", "openSession", "Open session…", files.open_session, ("Ctrl+O",)),
        Command("File", "saveSessionAs", "Save session as…", files.save_session_as, ("Ctrl+Shift+S",)),
        Command("File", "importTrace", "Import trace…", files.import_trace, ("Ctrl+I",), separated=True, hint=IMPORT_HINT),
        Command("File", "exportRun", "Export run…", files.export_run, ("Ctrl+E",), hint="Of the run on show"),
        Command("File", "quit", "Quit", window.close, ("Ctrl+Q",), separated=True),
    ]
    run_menu = [
        Command("Run", "loadModel", "Load", window.work.load, ("Ctrl+L",)),
        Command("Run", "unloadModel", "Unload", window.work.unload, ("Ctrl+U",)),
        Command("Run", "startRun", "Run", window.work.start, ("F5",), separated=True, hint="Measure what the sidebar says"),
        Command("Run", "useSetupOf", "Use this run's setup", window.use_setup, ("Ctrl+R",), hint=SETUP_HINT),
        Command("Run", "runTrial", "Start A/B", window.start_trial, ("Ctrl+F5",), hint=TRIAL_HINT),
        Command("Run", "runFloor", "Measure noise floor", window.start_floor, ("Ctrl+F6",), hint=FLOOR_HINT),
        Command("Run", "cancelRun", "Cancel", window.work.cancel, ("Esc",), separated=True, hint="What was measured is kept"),
    ]
    view_menu = view_commands(views, window.show_view)
    log = Command("View", "toggleLog", "Log", window.toggle_log, ("Ctrl+J",), checkable=True)
    sidebar = Command(
        "View",
        "toggleSidebar",
        "Sidebar",
        window.toggle_sidebar,
        ("Ctrl+B",),
        checkable=True,
        separated=True,
        hint=SIDEBAR_HINT,
    )
    return [*file_menu, *run_menu, *view_menu, *theme_commands(window.set_theme), sidebar, log, *help_commands(window)]
