"""A field for a file: type or paste a path, or choose one; empty means that something made up or shipped is used."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Signal
from PySide6.QtGui import QAction, QIcon
from PySide6.QtWidgets import QFileDialog, QLineEdit

import resources
from core import paths
from core.errors import Refusal
from gui.plain import plain_tip
from gui.setup.field_box import FieldBox


class FileBox(FieldBox):
    """``path()`` is the file, None where the field is empty; ``Refusal`` where there is no such file."""

    changed = Signal()

    def __init__(self, label: str, object_name: str, what: str, filters: str, empty: str, explanation: str) -> None:
        self.line = QLineEdit()
        self.line.setObjectName(object_name)
        self.line.setPlaceholderText(empty)
        self.line.setTextMargins(-2, 0, 0, 0)
        super().__init__(label, self.line, explanation)
        self._what = what
        self.choose: Callable[[], str] = lambda: QFileDialog.getOpenFileName(self, f"Choose {what}", "", filters)[0]
        browse = QAction(QIcon(resources.path("icons/down.svg")), f"Choose {what}", self.line)
        browse.triggered.connect(self._on_browse)
        self.line.addAction(browse, QLineEdit.ActionPosition.TrailingPosition)
        self.line.textChanged.connect(self._on_text)

    def path(self) -> str | None:
        """The file as typed; ``Refusal`` with the remedy if it is not there."""
        text = self.line.text().strip()
        if text and not paths.is_file(text):
            raise Refusal(f"There is no {self._what} {paths.shown(text)}; choose another file, or leave the field empty.")
        return text or None

    def show_path(self, path: str | None) -> None:
        """Fill the field."""
        self.line.setText(path or "")
        self.line.setCursorPosition(0)

    @property
    def filled(self) -> bool:
        """Whether a file is named."""
        return bool(self.line.text().strip())

    def _on_browse(self) -> None:
        chosen = self.choose()
        if chosen:
            self.show_path(chosen)

    def _on_text(self, text: str) -> None:
        text = text.strip()
        self.set_invalid(bool(text) and not paths.is_file(text))
        self.line.setToolTip(plain_tip(text) or self.toolTip())
        self.changed.emit()
