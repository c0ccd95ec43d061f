"""The window: makes the panels and connects them; where they stand is ``gui.frame``, what they are told ``gui.notices``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PySide6.QtCore import QEvent
from PySide6.QtGui import QCloseEvent
from PySide6.QtWidgets import QMainWindow, QWidget

from core.notices import Notice
from core.records.run import Run
from gui import theme
from gui.banner import Banner
from gui.bridge import Bridge
from gui.crash_offer import CrashOffer
from gui.dropping import FileDrop
from gui.feedback import Feedback
from gui.files import Files
from gui.foresight import ForesightInWindow
from gui.frame import Frame
from gui.header import Header
from gui.log_panel import LogPanel
from gui.menus import commands
from gui.notices import NoticeRouter
from gui.plain import ask
from gui.recent import RecentSessions
from gui.restoring import remember, restore
from gui.run_controller import RunController
from gui.saved_strip import SavedStrip
from gui.settings import Settings
from gui.setup.model_picker import STARTER
from gui.setup.sidebar import Choices, Sidebar
from gui.setup.take_over import take_over
from gui.status_bar import StatusBar
from gui.theme_switch import ThemeSwitch
from gui.view_state import ViewState
from gui.wiring import wire

if TYPE_CHECKING:
    from core.program import Program

VIEWS = ("Live", "Layers", "Compare", "Sessions")
SIZE = (1440, 900)
LEAST = (980, 600)


class View(Protocol):
    """What the window knows of a view (a widget)."""

    def show_run(self, run: Run | None) -> None: ...

    def show_slow(self, run: Run | None, summary: dict[str, Any] | None) -> None: ...

    def set_palette(self, palette: theme.Palette) -> None: ...


MakeViews = Callable[[ViewState, Any], Sequence[QWidget]]
"""Makes the four views from the view state and the program."""


class MainWindow(QMainWindow):
    """Knows every panel; no panel knows another."""

    def __init__(self, program: Program, choices: Choices, settings: Settings, make_views: MakeViews) -> None:
        super().__init__()
        self.program = program
        self.settings = settings
        self.state = ViewState(settings.theme, self)
        self.bridge = Bridge(program, self.state, self)
        self.files = Files(program, self.bridge, self.state, self)
        self.ask: Callable[[QWidget, str, str], bool] = ask
        self.views: list[Any] = []  # QWidgets that are Views
        self.closed = False
        self.theme_switch = ThemeSwitch(self)
        self.close_limit_s: float | None = None  # how long closing waits; None: until all has ended
        self._make_views = make_views
        self.setObjectName("mainWindow")
        self.setMinimumSize(*LEAST)
        self.resize(*SIZE)
        self.sidebar = Sidebar(choices, self.bridge.in_background)
        self.work = RunController(program, self.bridge, self.sidebar)
        self.header = Header(VIEWS, commands(self, VIEWS), self)
        self.banner = Banner()
        self.saved = SavedStrip()
        self.feedback = Feedback()
        self.log = LogPanel()
        self.status_bar = StatusBar()
        self.frame = Frame(self.header, self.sidebar, (self.banner, self.feedback, self.saved), self.log, self.status_bar)
        self.stack, self.splitter = self.frame.stack, self.frame.splitter
        self.setCentralWidget(self.frame)
        self.recent = RecentSessions(self)
        self.router = NoticeRouter(self)
        FileDrop(self, self.open_path)
        self._connect()
        restore(self)
        self.crash_offer = CrashOffer(self)
        self.status_bar.show_cores(next((facts.threads for facts in choices.targets if facts.id == "cpu"), None))
        self.theme_switch.apply()
        self.router.show_session()
        self.router.on_status(program.status)
        self.sidebar.run.setFocus()
        self.crash_offer.greet()

    # -- what the menus do ------------------------------------------------------------------------------------------------

    def switch_view(self, number: int) -> None:
        """Show a view by its number, from 0."""
        self.header.tabs.setCurrentIndex(number)

    def show_view(self, title: str) -> None:
        """Show a view by its title."""
        self.switch_view(VIEWS.index(title))

    def show_compare(self, *, saved: bool) -> Any:
        """The compare view, on its page of saved runs or of trials."""
        self.build_views()
        number = VIEWS.index("Compare")
        self.switch_view(number)
        self.views[number].show_saved(saved)
        return self.views[number]

    def set_theme(self, name: str) -> None:
        """Choose "system", "light" or "dark"."""
        self.state.set_theme(name)

    def toggle_log(self) -> None:
        """Open or close the log."""
        self.status_bar.log.toggle()

    def toggle_sidebar(self) -> None:
        """Give the views the sidebar's room, or take it back."""
        self.show_sidebar(self.sidebar.isHidden())

    def show_sidebar(self, wanted: bool) -> None:
        """Show or hide the setup at the left."""
        self.sidebar.setVisible(wanted)
        self.header.actions_by_name["toggleSidebar"].setChecked(wanted)

    def start_demo(self) -> None:
        """A short run of the starter model."""
        self.sidebar.model.choose_spec(STARTER)
        self.work.start()

    def start_trial(self) -> None:
        """Begin the trial that the compare view has chosen, and show it."""
        self.show_compare(saved=False).trial.setup.start()

    def start_floor(self) -> None:
        """Measure this machine's noise floor with an A/A trial, and show it."""
        self.show_compare(saved=False).trial.setup.start_floor()

    def use_setup(self, run: Run | None = None) -> None:
        """Fill the sidebar as a run had it: the one given, else the one on show."""
        chosen = run or self.state.current_run
        if chosen is None:
            self.tell("There is no run to take a setup from; make one, or open one in Sessions.")
        else:
            self.router.on_notice(take_over(self.sidebar, chosen, self.ask))

    def open_path(self, path: Path) -> None:
        """What was dropped, or named when the program was started."""
        self.files.open_dropped(path, self.sidebar.model.choose_spec)

    # -- building ---------------------------------------------------------------------------------------------------------

    def build_views(self) -> None:
        """Make the views: pyqtgraph and the charts take longer than the rest of the window, so it can be shown before them."""
        if self.views:
            return
        self.views = list(self._make_views(self.state, self.program))
        for view in self.views:
            self.stack.addWidget(view)
            wire(view, self)
        self.show_store()
        self.switch_view(min(self.settings.view, len(VIEWS) - 1))
        self._on_view(self.header.tabs.currentIndex())

    def _connect(self) -> None:
        self.sidebar.load_asked.connect(self.work.load)
        self.sidebar.unload_asked.connect(self.work.unload)
        self.sidebar.run_asked.connect(self.work.start)
        self.sidebar.cancel_asked.connect(self.work.cancel)
        self.status_bar.skip_asked.connect(self.work.skip_warm_up)
        self.banner.dismissed.connect(self.frame.make_room)
        self.feedback.changed.connect(self.frame.make_room)
        self.files.made = self.feedback.tell
        self.saved.back_asked.connect(self.state.follow)
        self.saved.setup_asked.connect(self.use_setup)
        self.banner.load_anyway.connect(self.work.load_anyway)
        self.status_bar.log.toggled.connect(self._on_log)
        self.header.tabs.currentChanged.connect(self._on_view)
        self.state.run_changed.connect(self._on_run_changed)
        self.bridge.notice.connect(self.router.on_notice)
        self.bridge.status.connect(self.router.on_status)
        self.bridge.live_text.connect(lambda text: self._call_view("show_text", text))
        self.bridge.add_fast(lambda run: self._call_view("show_run", run))
        self.bridge.add_slow(lambda run, summary: self._call_view("show_slow", run, summary))
        self.bridge.add_trial(lambda state: self._call_view("show_trial", state))
        self.bridge.add_poll(self.router.poll)
        self.foresight = ForesightInWindow(self.program, self.sidebar, self.bridge)
        self.files.opened = lambda: self.show_view("Live")

    def tell(self, sentence: str, path: Path | None = None) -> None:
        """A view has something to say that is no failure of the program, perhaps about a file that it has made."""
        self.feedback.tell(sentence, path)
        self.router.on_notice(Notice("told", sentence if path is None else f"{sentence} ({path})"))

    def _on_run_changed(self, run: Run | None) -> None:
        self.saved.show_run(run if not self.state.live else None)
        self.frame.make_room()
        if self.state.current_run is None:
            self._call_view("show_run", None)
            self._call_view("show_slow", None, None)

    # -- the view on show -------------------------------------------------------------------------------------------------

    def _call_view(self, method: str, *arguments: object) -> None:
        """Only the view on show is kept up to date; the others are when they are switched to."""
        view = self.stack.currentWidget()
        call = getattr(view, method, None)
        if call is not None:
            call(*arguments)

    def _on_view(self, number: int) -> None:
        if 0 <= number < self.stack.count():
            self.theme_switch.show_view(self.stack.widget(number))
            self.stack.setCurrentIndex(number)
            self.header.actions_by_name[f"view{number + 1}"].setChecked(True)
            self.bridge.canvas = self.stack.currentWidget()
            self.show_store()
            self.bridge.refresh()

    def _on_log(self, is_open: bool) -> None:
        self.log.setVisible(is_open)
        self.header.actions_by_name["toggleLog"].setChecked(is_open)

    def show_store(self) -> None:
        """List the session's runs in the view on show that lists them (a query, so not for views that nobody sees)."""
        self._call_view("set_store", self.program.store)

    # -- Qt ---------------------------------------------------------------------------------------------------------------

    def event(self, event: QEvent) -> bool:
        if event.type() != QEvent.Type.UpdateRequest:
            return super().event(event)
        # Everything in this window is painted in here, charts or not; the charts have already told their share.
        start_ns, told_ns = time.perf_counter_ns(), self.bridge.painted_ns
        answer = super().event(event)
        took = time.perf_counter_ns() - start_ns
        self.bridge.painted(max(0, took - (self.bridge.painted_ns - told_ns)))
        return answer

    def closeEvent(self, event: QCloseEvent) -> None:
        if self.closed:
            event.accept()
            return
        running = self.program.status.state in ("preparing", "running")
        if running and not self.ask(self, "Run in progress", "Cancel the run and close? What was measured is kept."):
            event.ignore()
            return
        self.closed = True
        remember(self)
        self.hide()  # at once: ending the worker may take a moment
        self.sidebar.model.stop()
        self.bridge.close(self.close_limit_s)
        self.program.close(self.close_limit_s)
        event.accept()
