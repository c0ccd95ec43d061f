"""The strip above the views that says what was just done: how long it took, and where it lies."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, QUrl, Signal
from PySide6.QtGui import QDesktopServices, QIcon
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPushButton, QToolButton, QWidget

import resources
from core import units
from gui.elided import Elided
from gui.last_folder import short_path
from gui.plain import plain_tip

if TYPE_CHECKING:
    from core.notices import Notice


NOTEWORTHY = 0.1
"""Preparing that takes more than this share of the whole is told."""


def show_folder(folder: Path) -> None:
    """Open the folder in the desktop's file manager. Tests replace it where it is used."""
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder)))


class Feedback(QFrame):
    """Hidden until there is something to tell; what begins next takes it away."""

    changed = Signal()  # it came or went

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("feedbackStrip")
        self.show_folder: Callable[[Path], None] = show_folder
        self.path: Path | None = None
        self._busy = False
        self._asked_ns = time.perf_counter_ns()  # when what goes on was begun: loading, passes and the reference are in it
        self._began_ns: int | None = None  # when its first request was
        self._sound = True  # nothing went wrong with keeping it since it began
        self.text = Elided(where=Qt.TextElideMode.ElideMiddle)  # the end of a path says more than its beginning
        self.text.setObjectName("feedbackText")
        self.folder = QPushButton("Show in folder")
        self.folder.setObjectName("showInFolder")
        self.folder.clicked.connect(self._on_folder)
        close = QToolButton()
        close.setIcon(QIcon(resources.path("icons/close.svg")))
        close.setToolTip("Dismiss")
        close.setAccessibleName("Dismiss")
        close.clicked.connect(self.dismiss)
        row = QHBoxLayout(self)
        row.setContentsMargins(12, 4, 6, 4)
        row.addWidget(self.text, 1)
        row.addWidget(self.folder)
        row.addWidget(close)
        self.hide()

    def follow(self, notice: Notice, kept_in: Path | None) -> None:
        """Time what goes on, and tell its end with the session file that it is kept in."""
        if notice.starts_measuring:
            self._began_ns, self._sound = time.perf_counter_ns(), True
            if not self._busy:
                self._asked_ns = self._began_ns
            self.hide()
        elif notice.kind in ("warning", "failed", "job_failed"):
            self._sound = False
        elif notice.ends_measuring:
            took = self._took()
            kept = kept_in if self._sound and kept_in is not None and kept_in.is_file() else None
            where = f" Kept in {short_path(kept)}." if kept is not None else ""
            self.tell(f"{notice.text}{took}{where}", kept)
        if notice.ends_measuring:
            self._began_ns, self._asked_ns = None, time.perf_counter_ns()  # what waited begins now

    def follow_status(self, *, busy: bool) -> None:
        """Whether something goes on: before the first notice of it a model is loaded and asked without its passes."""
        if busy and not self._busy:
            self._asked_ns = time.perf_counter_ns()
        self._busy = busy

    def _took(self) -> str:
        """How long all of it took, and how much of that was before anything was measured."""
        if self._began_ns is None:
            return ""
        whole, before = time.perf_counter_ns() - self._asked_ns, self._began_ns - self._asked_ns
        apart = f", {units.duration(before)} of it before the first request" if before > NOTEWORTHY * whole else ""
        return f" It took {units.duration(whole)} in all{apart}."

    def tell(self, sentence: str, path: Path | None = None) -> None:
        """Show a sentence, and a way to the file that it is about."""
        self.path = path
        self.text.setText(sentence)
        self.text.setToolTip(plain_tip(f"{sentence}\n{path}" if path is not None else sentence))
        self.setAccessibleName(sentence)
        self.folder.setVisible(path is not None)
        self.show()
        self.changed.emit()

    def dismiss(self) -> None:
        """Take it away."""
        self.hide()
        self.changed.emit()

    def _on_folder(self) -> None:
        if self.path is not None:
            self.show_folder(self.path.parent)
