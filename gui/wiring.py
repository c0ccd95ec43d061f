"""Gives each view what it asks for by having a place for it, so that no view knows the window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gui.main_window import MainWindow


def wire(view: Any, window: MainWindow) -> None:
    """Connect a view's signals, and fill the places it leaves open (``notify``, ``in_background`` and the like)."""
    if hasattr(view, "set_paint_meter"):
        view.set_paint_meter(window.bridge.painted)
    if hasattr(view, "notify"):
        view.notify = window.tell
    if hasattr(view, "in_background"):
        view.in_background = window.bridge.in_background
    if hasattr(view, "opened"):
        view.opened.connect(lambda _run: window.switch_view(0))
    if hasattr(view, "setup_asked"):
        view.setup_asked.connect(window.use_setup)
    if hasattr(view, "compared"):
        view.compared.connect(lambda _pair: window.show_compare(saved=True))
        view.group_opened.connect(lambda state: window.show_compare(saved=False).reopen(state))
    if hasattr(view, "trial_asked"):
        view.trial_asked.connect(window.work.start_trial)
    if hasattr(view, "follow_sidebar"):
        view.follow_sidebar(window.sidebar.run_config)
        window.sidebar.changed.connect(lambda: view.follow_sidebar(window.sidebar.run_config))
    if hasattr(view, "show_status"):
        view.show_status(window.program.status)
