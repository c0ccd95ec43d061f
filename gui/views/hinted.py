"""A card that shows its content, or, while there is none, a hint in its middle."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QStackedLayout, QWidget

from gui.plain import Label


class HintedCard(QFrame):
    """``stack`` has the hint first and the content second."""

    def __init__(self, content: QWidget, hint: str, parent: QWidget) -> None:
        super().__init__(parent)
        self.setProperty("card", True)
        self.hint = Label(hint, self)
        self.hint.setProperty("role", "hint")
        self.hint.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.hint.setWordWrap(True)
        self.stack = QStackedLayout(self)
        self.stack.setContentsMargins(8, 6, 8, 8)
        self.stack.addWidget(self.hint)
        self.stack.addWidget(content)
