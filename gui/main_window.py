"""The window: makes the panels and connects them; where they stand is ``gui.frame``, what they are told ``gui.notices``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QEvent
from PySide6.QtGui import QCloseEvent
from PySide6.QtWidgets import QMainWindow, QWidget

from core.notices import Notice
from core.records.run import Run
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
from gui.view_stack import ViewStack
from gui.view_state import ViewState
from gui.views.base import Actions, MeasureFloor, Request, ShowRun, StartABTest, ViewContext, ViewSpec

if TYPE_CHECKING:
    from core.program import Program

SIZE = (1440, 900)
LEAST = (980, 600)


class MainWindow(QMainWindow):
    """Knows every panel; no panel knows another. Of the views it knows that they are ``View``s."""

    def __init__(self, program: Program, choices: Choices, settings: Settings, specs: Sequence[ViewSpec]) -> None:
        super().__init__()
        self.program = program
        self.settings = settings
        self.state = ViewState(settings.theme, self)
        self.bridge = Bridge(program, self.state, self)
        self.files = Files(program, self.bridge, self.state, self)
        self.ask: Callable[[QWidget, str, str], bool] = ask
        self.closed = False
        self.theme_switch = ThemeSwitch(self)
        self.close_limit_s: float | None = None  # how long closing waits; None: until all has ended
        self.setObjectName("mainWindow")
        self.setMinimumSize(*LEAST)
        self.resize(*SIZE)
        self.sidebar = Sidebar(choices, self.bridge.in_background)
        self.work = RunController(program, self.bridge, self.sidebar)
        self.header = Header(specs, commands(self, specs), self)
        self.banner = Banner()
        self.saved = SavedStrip()
        self.feedback = Feedback()
        self.log = LogPanel()
        self.status_bar = StatusBar()
        self.frame = Frame(self.header, self.sidebar, (self.banner, self.feedback, self.saved), self.log, self.status_bar)
        self.stack, self.splitter = self.frame.stack, self.frame.splitter
        self.views = ViewStack(specs, self.header.tabs, self.stack, self)
        self.setCentralWidget(self.frame)
        self.recent = RecentSessions(settings, self.header, self.files.open_session, self)
        self.router = NoticeRouter(self)
        FileDrop(self, self.open_path)
        self._connect()
        restore(self)
        self.crash_offer = CrashOffer(program, settings, self.sidebar.target, self.banner, self.frame.make_room)
        self.status_bar.show_cores(next((facts.threads for facts in choices.targets if facts.id == "cpu"), None))
        self.theme_switch.apply()
        self.router.show_session()
        self.router.on_status(program.status)
        self.sidebar.run.setFocus()
        self.crash_offer.greet()

    # -- what the menus do ------------------------------------------------------------------------------------------------

    def show_view(self, view_id: str) -> None:
        """Show a view."""
        self.views.show(view_id)

    def ask_views(self, request: Request) -> bool:
        """Have the view that can do it come forward and do it."""
        self.build_views()
        return self.views.ask(request)

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
        """Begin the A/B test whose sides are chosen, and show it."""
        self.ask_views(StartABTest())

    def start_floor(self) -> None:
        """Measure this machine's noise floor with an A/A test, and show it."""
        self.ask_views(MeasureFloor())

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
        actions = Actions(self.ask_views, self.use_setup, self.sidebar.run_config, self.work.start_trial)
        context = ViewContext(self.state, self.bridge.in_background, self.tell, self.bridge.painted, actions)
        self.views.build(context, self.settings.view)
        for view in self.views:
            view.show_status(self.program.status)

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
        self.views.shown.connect(self._on_view)
        self.sidebar.changed.connect(self._on_setup)
        self.state.run_changed.connect(self._on_run_changed)
        self.bridge.notice.connect(self.router.on_notice)
        self.bridge.status.connect(self.router.on_status)
        self.bridge.views = lambda: self.views.on_show
        self.bridge.add_poll(self.router.poll)
        self.foresight = ForesightInWindow(self.program, self.sidebar, self.bridge)
        self.files.opened = lambda run: self.ask_views(ShowRun(run))

    def tell(self, sentence: str, path: Path | None = None) -> None:
        """A view has something to say that is no failure of the program, perhaps about a file that it has made."""
        self.feedback.tell(sentence, path)
        self.router.on_notice(Notice("told", sentence if path is None else f"{sentence} ({path})"))

    def _on_run_changed(self, run: Run | None) -> None:
        self.saved.show_run(run if not self.state.live else None, self.program.live())
        self.frame.make_room()
        if self.state.current_run is None:
            for view in self.views.on_show:
                view.show_run(None)
                view.show_slow(None, None)

    # -- the view on show -------------------------------------------------------------------------------------------------

    def _on_view(self, view_id: str) -> None:
        self.theme_switch.show_view(self.views[view_id])
        self.header.show_view(view_id)
        self.bridge.canvas = self.views[view_id]
        self.show_store()
        self.bridge.refresh()

    def _on_setup(self) -> None:
        for view in self.views:
            view.setup_changed()

    def _on_log(self, is_open: bool) -> None:
        self.log.setVisible(is_open)
        self.header.actions_by_name["toggleLog"].setChecked(is_open)

    def show_store(self) -> None:
        """List the session's runs in the view on show that lists them (a query, so not for views that nobody sees)."""
        for view in self.views.on_show:
            view.set_store(self.program.store)

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
