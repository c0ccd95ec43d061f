"""The sessions view: the runs of the open session."""

from __future__ import annotations

from gui.views.base import View, ViewContext, ViewSpec, views


def make(context: ViewContext) -> View:
    """Imported when it is made: the window is on the screen before charts and tables are."""
    from gui.views.sessions.view import SessionsView

    return SessionsView(context)


@views.register
def sessions() -> ViewSpec:
    """Its tab."""
    return ViewSpec("sessions", "Sessions", 40, make)
