"""The compare view: A/B tests, two runs side by side, and all runs by speed and quality."""

from __future__ import annotations

from gui.views.base import View, ViewContext, ViewSpec, views


def make(context: ViewContext) -> View:
    """Imported when it is made: the window is on the screen before charts and tables are."""
    from gui.views.compare.view import CompareView

    return CompareView(context)


@views.register
def compare() -> ViewSpec:
    """Its tab."""
    return ViewSpec("compare", "Compare", 30, make)
