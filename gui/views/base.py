"""What a view is: its place among the tabs, what it is given, what it is told, and what views may ask of each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PySide6.QtWidgets import QWidget

from core.config import ABTestConfig, RunConfig
from core.notices import Status
from core.records.run import Run
from core.registry import Registry
from gui.background import InBackground
from gui.theme import Palette
from gui.view_state import ViewState

if TYPE_CHECKING:
    from core.execution.ab_test_state import ABTestState
    from gui.views.saved_runs import Store


@dataclass(frozen=True)
class ShowRun:
    """Come forward with the run on show; None: with the one that has just begun."""

    run: Run | None


@dataclass(frozen=True)
class ShowPair:
    """Lay two runs side by side."""

    pair: tuple[Run, Run]


@dataclass(frozen=True)
class ShowABTest:
    """Show how a saved A/B test ended."""

    state: ABTestState


@dataclass(frozen=True)
class StartABTest:
    """Begin the A/B test as its sides are chosen."""


@dataclass(frozen=True)
class MeasureFloor:
    """Measure the noise floor: one side against itself."""


Request = ShowRun | ShowPair | ShowABTest | StartABTest | MeasureFloor
"""What is asked of whichever view can do it, so that nobody asks for a view by its name."""


class Say(Protocol):
    """Tells people a sentence that is no failure, perhaps about a file that was made."""

    def __call__(self, sentence: str, path: Path | None = None, /) -> None: ...


@dataclass(frozen=True)
class Actions:
    """What a view can have done outside itself."""

    ask: Callable[[Request], bool]  # of the views; False: none of them can
    use_setup: Callable[[Run], None]  # fill the sidebar as the run had it
    read_setup: Callable[[], RunConfig]  # what the sidebar says; ``ValueError`` while it says nothing that can be run
    start_trial: Callable[[ABTestConfig], None]


@dataclass(frozen=True)
class ViewContext:
    """All that a view gets."""

    state: ViewState
    background: InBackground
    say: Say
    meter: Callable[[int], None]  # told how long each painting of a chart took, in ns
    actions: Actions


class View(QWidget):
    """A page of the window. What it does not want to be told it does not override.

    Only the view on show is told of runs, texts, A/B tests and the session; it is told anew when it comes up.
    """

    follows_run = True  # whether it shows something of a run under way; else the window turns to a view that does

    def __init__(self, context: ViewContext, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.context = context
        self.state = context.state

    def can(self, request: Request) -> bool:
        """Whether this is the view to ask that of; it is brought forward, and then asked."""
        return False

    def do(self, request: Request) -> None:
        """What was asked, where being on show is not all of it."""

    def show_run(self, run: Run | None) -> None:
        """A snapshot for each repaint: curves, nothing slow."""

    def show_slow(self, run: Run | None, summary: Mapping[str, Any] | None) -> None:
        """Numbers and texts, at most twice a second while a run is going."""

    def show_text(self, text: str) -> None:
        """What is being generated now."""

    def show_trial(self, state: ABTestState | None) -> None:
        """The A/B test under way, or the last one."""

    def set_store(self, store: Store | None) -> None:
        """Another session, or the same one after it changed."""

    def show_status(self, status: Status) -> None:
        """What the program is at; told to every view."""

    def setup_changed(self) -> None:
        """The sidebar says something else; told to every view."""

    def poll(self) -> None:
        """Now and then, at most twice a second while a run is going; told to every view."""

    def set_palette(self, palette: Palette) -> None:
        """Repaint in other colours."""


@dataclass(frozen=True)
class ViewSpec:
    """A view as it registers itself. ``make`` imports what is heavy: the tabs are there before the charts can be."""

    id: str  # what the settings remember
    title: str
    place: int  # among the tabs, the least first
    make: Callable[[ViewContext], View]


views: Registry[ViewSpec] = Registry("view", "gui.views")


def known_views() -> list[ViewSpec]:
    """Every view that a file or folder of ``gui/views`` registers, as the tabs have them."""
    return sorted(views, key=lambda spec: (spec.place, spec.id))
