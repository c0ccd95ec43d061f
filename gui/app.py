"""The composition root: makes the application, the program and the window, and hands each what it needs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QEvent, QObject, QTimer
from PySide6.QtGui import QGuiApplication, QIcon
from PySide6.QtWidgets import QApplication, QWidget

import resources
from core import error_text
from core.commands.following import GIVEN_UP, Stop, interrupts
from core.ending import LIMIT_S, hanging
from core.notices import Notice
from gui import theme
from gui.main_window import MainWindow
from gui.settings import Settings
from gui.views.base import known_views

if TYPE_CHECKING:
    from core.program import Program
    from gui.setup.model_picker import ModelKnowledge

SIGNALS_MS = 250

AHEAD_MS = 1500
"""After the window has been built: torch and transformers are then imported, unless something was begun."""

SOURCE_ORDER = ("package", "hub", "folder", "gguf", "arch")


def create(
    argv: list[str],
    *,
    program: Program | None = None,
    settings: Settings | None = None,
    knowledge: ModelKnowledge | None = None,
) -> tuple[QApplication, MainWindow]:
    """The whole window, without entering the event loop. ``argv`` may name a session file; torch is not imported."""
    app, window = _window(argv, program, settings, knowledge)
    window.build_views()
    if _session(argv) is not None:
        window.files.show_newest()
    return app, window


def main(argv: list[str] | None = None) -> int:
    """Show the window and run until it is closed; ``demo`` in ``argv`` begins a short run of the starter model."""
    arguments = sys.argv[1:] if argv is None else argv
    app, window = _window(arguments, None, None, None)
    sys.excepthook = _tell_in(window, sys.excepthook)

    def finish() -> None:
        window.build_views()
        if "demo" in arguments:
            window.start_demo()
        elif _session(arguments) is not None:  # who opens a session may only want to look
            window.files.show_newest()
        else:
            QTimer.singleShot(AHEAD_MS, window, window.program.import_ahead)

    # Only once the frame is on the screen: charts and pyqtgraph take longer than all the rest.
    window.installEventFilter(FirstPaint(finish, window))
    window.close_limit_s = LIMIT_S
    with interrupts() as stop:
        obey = QTimer(window, interval=SIGNALS_MS)  # Python hears of a signal only when it has something to do
        obey.timeout.connect(lambda: close_for(stop, window))
        obey.start()
        window.show()
        status = app.exec()
        obey.stop()
    if hanging.is_set():
        sys.stderr.write(f"{GIVEN_UP} What was measured is in the session.\n")
    return 128 + stop.number if stop.is_set() else status


def close_for(stop: Stop, window: MainWindow) -> None:
    """Close the window, without a question, once a signal has asked for it."""
    if stop.is_set() and not window.closed:
        window.ask = lambda *_: True
        window.close()


class FirstPaint(QObject):
    """Calls ``then()`` once, right after the widget it watches was first painted."""

    def __init__(self, then: Callable[[], None], parent: QWidget) -> None:
        super().__init__(parent)
        self._then = then

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Paint:
            watched.removeEventFilter(self)
            QTimer.singleShot(0, self, self._then)
        return False


def _window(
    argv: Sequence[str], program: Program | None, settings: Settings | None, knowledge: ModelKnowledge | None
) -> tuple[QApplication, MainWindow]:
    app = _application()
    trouble = ""
    if program is None:
        from core.program import Program

        path = _session(argv)
        try:
            program = Program(path)
        except ValueError as refusal:
            trouble, program = str(refusal), Program()
    window = MainWindow(program, _choices(program, knowledge), settings or Settings(), known_views())
    window.setWindowIcon(app.windowIcon())
    if trouble:
        program.notices.put(Notice("refused", trouble))
    return app, window


def _session(argv: Sequence[str]) -> Path | None:
    """The session file that was named, if one was."""
    return next((Path(given) for given in argv if given.endswith(".tickscope")), None)


def _application() -> QApplication:
    """The one application, made if there is none yet."""
    existing = QApplication.instance()
    if existing is None:
        QGuiApplication.setDesktopFileName("tickscope")
        existing = QApplication(["tickscope"])
    assert isinstance(existing, QApplication)
    existing.setApplicationName("Tickscope")
    existing.setStyle("Fusion")
    existing.setWindowIcon(QIcon(resources.path("icons/app.svg")))
    theme.load_fonts()
    font = existing.font()  # before any widget is made: those that are styled early would keep the system's
    font.setFamily(theme.FAMILY)
    existing.setFont(font)
    return existing


def _choices(program: Program, knowledge: ModelKnowledge | None) -> Any:
    from core.models.base import sources
    from core.pass_api.base import passes
    from core.planning import plan
    from gui.setup.model_picker import CatalogKnowledge
    from gui.setup.sidebar import Choices

    found = {source.id: source for source in sources}
    order = [*SOURCE_ORDER, *(source_id for source_id in found if source_id not in SOURCE_ORDER)]
    return Choices(
        sources=[found[source_id] for source_id in order if source_id in found],
        passes=list(passes),
        targets=program.probe_targets(),
        knowledge=knowledge or CatalogKnowledge(),
        reasons=plan.reasons,
    )


def _tell_in(window: MainWindow, before: Any) -> Any:
    """An error in a slot must not pass unseen: it goes to the banner and the log as well as to the terminal."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        before(kind, error, trace)
        window.program.notices.put(
            Notice("failed", f"Something in the window went wrong: {error_text.first_line(error)}", error_text.trace(error))
        )

    return hook
