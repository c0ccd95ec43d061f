"""A word with an arrow that shows or hides what is seldom needed."""

from __future__ import annotations

from PySide6.QtWidgets import QToolButton, QWidget

from gui.plain import plain_tip
from gui.setup.section import CLOSED, OPEN


class Disclosure(QToolButton):
    """``hidden`` shows while the button is down. Whoever owns ``parent`` puts it in its place, and shows it there."""

    def __init__(self, object_name: str, word: str, explanation: str, hidden: QWidget, parent: QWidget) -> None:
        super().__init__(parent)
        self.hide()
        self._word, self._hidden = word, hidden
        self.setObjectName(object_name)
        self.setToolTip(plain_tip(explanation))
        self.setAccessibleDescription(explanation)
        self.setCheckable(True)
        self.setProperty("disclosure", True)
        self.toggled.connect(self._show)
        self._show()

    def say(self, word: str) -> None:
        """Another word on the button."""
        self._word = word
        self._show()

    def _show(self) -> None:
        is_open = self.isChecked()
        self.setText(f"{self._word} {OPEN if is_open else CLOSED}")
        self.setAccessibleName(self._word)
        self._hidden.setVisible(is_open)
