"""The live view: tiles above a grid of charts, while a run is going and after it."""

from __future__ import annotations

from gui.views.base import View, ViewContext, ViewSpec, views


def make(context: ViewContext) -> View:
    """Imported when it is made: the window is on the screen before charts and tables are."""
    from gui.views.live.view import LiveView

    return LiveView(context)


@views.register
def live() -> ViewSpec:
    """Its tab."""
    return ViewSpec("live", "Live", 10, make)
