"""The window: lays out header, sidebar, views, log and status bar, and connects them to the bridge."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent, QGuiApplication
from PySide6.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QMainWindow,
    QMessageBox,
    QSplitter,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from core import units
from core.config import ModelConfig
from core.engine.notice import Notice, Status
from core.session.run import Run
from gui import theme
from gui.about import show_about, show_schema
from gui.banner import Banner
from gui.bridge import ENDS, STARTS, Bridge
from gui.commands import commands
from gui.files import Files
from gui.header import Header
from gui.log_panel import LogPanel
from gui.saved_strip import SavedStrip
from gui.settings import Settings
from gui.setup.model_picker import STARTER
from gui.setup.sidebar import BUSY, Choices, Sidebar
from gui.status_bar import StatusBar
from gui.view_state import ViewState
from gui.wiring import wire
from gui.work import Work

if TYPE_CHECKING:
    from core.program import Program

VIEWS = ("Live", "Layers", "Compare", "Sessions")
SIZE = (1440, 900)
LEAST = (980, 600)
WHEN_IDLE = ("loadModel", "startRun", "runTrial", "runFloor", "newSession", "openSession", "saveSessionAs", "importTrace")


class View(Protocol):
    """What the window knows of a view (a widget)."""

    def show_run(self, run: Run | None) -> None: ...

    def show_slow(self, run: Run | None, summary: dict[str, Any] | None) -> None: ...

    def set_palette(self, palette: theme.Palette) -> None: ...


MakeViews = Callable[[ViewState, Any], Sequence[QWidget]]
"""Makes the four views from the view state and the program."""


def ask(parent: QWidget, title: str, question: str) -> bool:
    """A yes-or-no question. Tests replace it: a modal dialog would hang them."""
    return QMessageBox.question(parent, title, question) == QMessageBox.StandardButton.Yes


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
        self._make_views = make_views
        self._colours = theme.DARK
        self._closed = False
        self.setObjectName("mainWindow")
        self.setAcceptDrops(True)
        self.setMinimumSize(*LEAST)
        self.resize(*SIZE)
        self.sidebar = Sidebar(choices, self.bridge.in_background)
        self.work = Work(program, self.bridge, self.sidebar)
        self.header = Header(VIEWS, commands(self, VIEWS), self)
        self.banner = Banner()
        self.saved = SavedStrip()
        self.stack = QStackedWidget()
        self.log = LogPanel()
        self.status_bar = StatusBar()
        self._lay_out()
        self._connect()
        self._restore(choices)
        self._apply_theme()
        self._show_session()
        self._on_status(program.status)
        self.sidebar.run.setFocus()

    # -- what the menus do ------------------------------------------------------------------------------------------------

    def switch_view(self, number: int) -> None:
        """Show a view by its number, from 0."""
        self.header.tabs.setCurrentIndex(number)

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

    def show_schema(self) -> None:
        """The tables of the session file, in a window of its own."""
        show_schema(self)

    def show_about(self) -> None:
        """What this is."""
        show_about(self)

    # -- building ---------------------------------------------------------------------------------------------------------

    def build_views(self) -> None:
        """Make the views: pyqtgraph and the charts take longer than the rest of the window, so it can be shown before them."""
        if self.views:
            return
        self.views = list(self._make_views(self.state, self.program))
        for view in self.views:
            self.stack.addWidget(view)
            view.set_palette(self._colours)
            wire(view, self)
        self._show_store()
        self.switch_view(min(self.settings.view, len(VIEWS) - 1))
        self._on_view(self.header.tabs.currentIndex())

    def _lay_out(self) -> None:
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        self._banner_room = QWidget()
        room = QVBoxLayout(self._banner_room)
        room.setContentsMargins(12, 12, 12, 0)
        room.addWidget(self.banner)
        room.addWidget(self.saved)
        self._banner_room.hide()
        column.addWidget(self._banner_room)
        column.addWidget(self.stack, 1)
        upper = QWidget()
        row = QHBoxLayout(upper)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addWidget(self.sidebar)
        row.addWidget(content, 1)
        self.splitter = QSplitter(Qt.Orientation.Vertical)
        self.splitter.setChildrenCollapsible(False)
        self.splitter.setHandleWidth(1)
        self.splitter.addWidget(upper)
        self.splitter.addWidget(self.log)
        self.splitter.setStretchFactor(0, 1)
        self.splitter.setSizes([700, 180])
        self.log.hide()
        whole = QWidget()
        outer = QVBoxLayout(whole)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(0)
        outer.addWidget(self.header)
        outer.addWidget(self.splitter, 1)
        outer.addWidget(self.status_bar)
        self.setCentralWidget(whole)

    def _connect(self) -> None:
        self.sidebar.load_asked.connect(self.work.load)
        self.sidebar.unload_asked.connect(self.work.unload)
        self.sidebar.run_asked.connect(self.work.start)
        self.sidebar.cancel_asked.connect(self.work.cancel)
        self.banner.dismissed.connect(self._make_room)
        self.saved.back_asked.connect(self.state.follow)
        self.banner.load_anyway.connect(self.work.load_anyway)
        self.status_bar.log.toggled.connect(self._on_log)
        self.header.tabs.currentChanged.connect(self._on_view)
        self.state.theme_changed.connect(self._on_theme)
        self.state.run_changed.connect(self._on_run_changed)
        QGuiApplication.styleHints().colorSchemeChanged.connect(self._on_system_theme)
        self.bridge.notice.connect(self._on_notice)
        self.bridge.status.connect(self._on_status)
        self.bridge.live_text.connect(lambda text: self._call_view("show_text", text))
        self.bridge.add_fast(lambda run: self._call_view("show_run", run))
        self.bridge.add_slow(lambda run, summary: self._call_view("show_slow", run, summary))
        self.bridge.add_trial(lambda state: self._call_view("show_trial", state))
        self.bridge.add_poll(self._poll)

    def _restore(self, choices: Choices) -> None:
        if not self.settings.geometry.isEmpty():
            self.restoreGeometry(self.settings.geometry)
        if not self.settings.splitter.isEmpty():
            self.splitter.restoreState(self.settings.splitter)
        remembered = self.settings.model
        if isinstance(remembered.get("spec"), str):
            try:
                self.sidebar.model.show_config(ModelConfig(remembered["spec"], remembered.get("dtype", "float32")))
            except ValueError:
                self.settings.model = {}  # from another version; the next choice replaces it
        self.status_bar.show_cores(next((facts.threads for facts in choices.targets if facts.id == "cpu"), None))

    # -- what the bridge tells --------------------------------------------------------------------------------------------

    def _on_notice(self, notice: Notice) -> None:
        if notice.text:
            self.log.add(notice)
        self.banner.follow(notice)
        if notice.kind in STARTS:
            self.sidebar.show_reports(())
        elif notice.kind == "session_changed":
            self._show_session()
        elif notice.kind == "imported":
            run = self.program.live()
            self.switch_view(VIEWS.index("Live" if run is not None and len(run.trace.moments["kind"]) else "Layers"))
        if notice.kind in ENDS:
            run, trial = self.program.live(), self.program.trial
            in_trial = trial is not None and notice.kind.startswith("trial")
            self.sidebar.show_outcome(trial.runs if trial is not None and in_trial else [run] if run is not None else [])
        if notice.kind in (*STARTS, *ENDS, "session_changed", "imported"):
            self._show_store()
        self._make_room()
        self._on_status(self.program.status)

    def _on_status(self, status: Status) -> None:
        loaded = self.program.loaded
        self.sidebar.show_status(status, loaded)
        name = ""
        if loaded is not None:
            took = f"loaded in {units.duration(self.program.load_ns)}" if self.program.load_ns else ""
            name = " · ".join(part for part in (loaded.name, loaded.dtype, took) if part)
        self.status_bar.show_status(status, name)
        busy = status.state in BUSY
        actions = self.header.actions_by_name
        for command in WHEN_IDLE:
            actions[command].setEnabled(not busy)
        for view in self.views:
            if hasattr(view, "show_status"):
                view.show_status(status)
        actions["unloadModel"].setEnabled(not busy and loaded is not None)
        actions["cancelRun"].setEnabled(busy)

    def tell(self, sentence: str) -> None:
        """A view has something to say that is no failure of the program: for the log, and the banner if it is open anyway."""
        self._on_notice(Notice("told", sentence))

    def _make_room(self) -> None:
        """The room above the views is there only while something stands in it."""
        self._banner_room.setVisible(not self.banner.isHidden() or not self.saved.isHidden())

    def _on_run_changed(self, run: Run | None) -> None:
        self.saved.show_run(run if not self.state.live else None)
        self._make_room()
        if self.state.current_run is None:
            self._call_view("show_run", None)
            self._call_view("show_slow", None, None)

    def _poll(self) -> None:
        self.status_bar.refresh_machine()
        for view in self.views:
            if hasattr(view, "poll"):
                view.poll()

    # -- views, theme, session --------------------------------------------------------------------------------------------

    def _call_view(self, method: str, *arguments: object) -> None:
        """Only the view on show is kept up to date; the others are when they are switched to."""
        view = self.stack.currentWidget()
        call = getattr(view, method, None)
        if call is not None:
            call(*arguments)

    def _on_view(self, number: int) -> None:
        if 0 <= number < self.stack.count():
            self.stack.setCurrentIndex(number)
            self.header.actions_by_name[f"view{number + 1}"].setChecked(True)
            self.bridge.canvas = self.stack.currentWidget()
            self._show_store()
            self.bridge.refresh()

    def _on_log(self, is_open: bool) -> None:
        self.log.setVisible(is_open)
        self.header.actions_by_name["toggleLog"].setChecked(is_open)

    def _on_theme(self, name: str) -> None:
        self.settings.theme = name
        self._apply_theme()

    def _on_system_theme(self) -> None:
        if self.state.theme == "system" and not self._closed:
            app = QApplication.instance()
            assert isinstance(app, QApplication)
            if theme.resolve(app, "system") != self._colours.name:
                self._apply_theme()

    def _apply_theme(self) -> None:
        app = QApplication.instance()
        assert isinstance(app, QApplication)
        self._colours = theme.apply(app, self.state.theme)
        self.header.show_theme(self.state.theme)
        self.sidebar.set_palette(self._colours)
        for view in self.views:
            view.set_palette(self._colours)

    def _show_session(self) -> None:
        store = self.program.store
        name = store.path.name if store is not None else "no session yet"
        hint = str(store.path) if store is not None else "A session file is made with the first run"
        self.header.show_session(name, hint)
        self.setWindowTitle(f"{name} · Tickscope" if store is not None else "Tickscope")

    def _show_store(self) -> None:
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

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        path = next((Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()), None)
        if path is not None:
            self.open_path(path)
            event.acceptProposedAction()

    def open_path(self, path: Path) -> None:
        """What was dropped, or named when the program was started."""
        self.files.open_dropped(path, self.sidebar.model.choose_spec)

    def closeEvent(self, event: QCloseEvent) -> None:
        if self._closed:
            event.accept()
            return
        running = self.program.status.state in ("preparing", "running")
        if running and not self.ask(self, "Run in progress", "Cancel the run and close? What was measured is kept."):
            event.ignore()
            return
        self._closed = True
        self._remember()
        self.hide()  # at once: ending the worker may take a moment
        self.sidebar.model.stop()
        self.bridge.close()
        self.program.close()
        event.accept()

    def _remember(self) -> None:
        self.settings.geometry = self.saveGeometry()
        self.settings.splitter = self.splitter.saveState()
        self.settings.view = max(0, self.header.tabs.currentIndex())
        try:
            model = asdict(self.sidebar.model_config())
        except ValueError:
            model = {}
        self.settings.model = {name: model[name] for name in ("spec", "dtype") if name in model}
        self.settings.save()
