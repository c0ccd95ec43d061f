"""A card that shows its content, or, while there is none, a hint in its middle."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QStackedLayout, QWidget

from core.notices import Status
from gui.charts.card import start_hint
from gui.plain import Label


class HintedCard(QFrame):
    """``stack`` has the hint first and the content second."""

    def __init__(self, content: QWidget, hint: str, parent: QWidget) -> None:
        super().__init__(parent)
        self.setProperty("card", True)
        self._hint = self.start = hint  # what it says at first, and what it says instead as things stand
        self.hint = Label(hint, self)
        self.hint.setProperty("role", "hint")
        self.hint.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.hint.setWordWrap(True)
        self.stack = QStackedLayout(self)
        self.stack.setContentsMargins(8, 6, 8, 8)
        self.stack.addWidget(self.hint)
        self.stack.addWidget(content)

    def say_status(self, status: Status) -> None:
        """Where it says how to start: as things stand now."""
        start = start_hint(self._hint, status)
        if self.hint.text() == self.start:
            self.hint.setText(start)
        self.start = start
