"""What the program tells, brought to the panels it concerns: notices, the status, and that another session is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core import units
from core.notices import Notice, Status
from gui.setup.sidebar import BUSY
from gui.views.base import ShowRun

if TYPE_CHECKING:
    from gui.main_window import MainWindow

WHEN_IDLE = ("loadModel", "startRun", "runTrial", "runFloor", "newSession", "openSession", "saveSessionAs", "importTrace")


class NoticeRouter:
    """Panels do not know the program's words; this knows which panel wants which."""

    def __init__(self, window: MainWindow) -> None:
        self._window = window

    def on_notice(self, notice: Notice) -> None:
        """For the log, the banner, and whatever the notice is about."""
        window = self._window
        if notice.text:
            window.log.add(notice)
        window.banner.follow(notice)
        window.crash_offer.follow(notice)
        window.feedback.follow(notice, window.program.store.path if window.program.store is not None else None)
        if notice.starts_measuring:
            window.sidebar.show_reports(())
            if notice.job == "run" and not all(view.follows_run for view in window.views.on_show):
                window.ask_views(ShowRun(None))
        elif notice.kind == "session_changed":
            self.show_session()
        elif notice.job == "export":
            window.files.follow(notice)
        elif notice.imported:
            window.ask_views(ShowRun(window.program.live()))
        if notice.ends_measuring:
            self._show_outcome(notice)
        if notice.starts_measuring or notice.ends_measuring or notice.imported or notice.kind == "session_changed":
            window.show_store()
        window.frame.make_room()
        self.on_status(window.program.status)

    def on_status(self, status: Status) -> None:
        """What is going on, and which commands can be given meanwhile."""
        window = self._window
        loaded = window.program.loaded
        window.sidebar.show_status(status, loaded)
        name = ""
        if loaded is not None:
            took = f"loaded in {units.duration(window.program.load_ns)}" if window.program.load_ns else ""
            name = " · ".join(part for part in (loaded.name, loaded.dtype, took) if part)
        window.status_bar.show_status(status, name)
        busy = status.state in BUSY
        window.feedback.follow_status(busy=busy)
        window.banner.follow_status(busy=busy)
        actions = window.header.actions_by_name
        for command in WHEN_IDLE:
            actions[command].setEnabled(not busy)
        for view in window.views:
            view.show_status(status)
        actions["unloadModel"].setEnabled(not busy and loaded is not None)
        actions["cancelRun"].setEnabled(busy)

    def show_session(self) -> None:
        """The session's name, in the header and in the window's title."""
        window = self._window
        store = window.program.store
        if store is not None:
            window.recent.remember(store.path)
        name = store.path.name if store is not None else "no session yet"
        hint = str(store.path) if store is not None else "A session file is made with the first run"
        window.header.show_session(name, hint)
        window.setWindowTitle(f"{name} · Tickscope" if store is not None else "Tickscope")

    def poll(self) -> None:
        """Now and then: what has no notice of its own."""
        self._window.status_bar.refresh_machine(self._window.program.process)
        for view in self._window.views:
            view.poll()

    def _show_outcome(self, notice: Notice) -> None:
        run, trial = self._window.program.live(), self._window.program.trial
        in_trial = trial is not None and notice.job == "ab_test"
        runs = trial.runs if trial is not None and in_trial else [run] if run is not None else []
        self._window.sidebar.show_outcome(runs)
