"""The layers view: every layer with its times, and the operators that ran inside it."""

from __future__ import annotations

from gui.views.base import View, ViewContext, ViewSpec, views


def make(context: ViewContext) -> View:
    """Imported when it is made: the window is on the screen before charts and tables are."""
    from gui.views.layers.view import LayersView

    return LayersView(context)


@views.register
def layers() -> ViewSpec:
    """Its tab."""
    return ViewSpec("layers", "Layers", 20, make)
