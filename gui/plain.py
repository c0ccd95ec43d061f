"""Labels, tooltips and questions that show text as it is: Qt takes text with a ``<`` for HTML, and HTML loads files."""

from __future__ import annotations

import html
import re

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QLabel, QMessageBox, QWidget

from core.plain_text import visible

SHEET = "styleSheetInUse"  # the application's property of the theme's style sheet, which each panel has for itself


class Label(QLabel):
    """A ``QLabel`` whose text is never markup. (One with markup of our own is a ``QLabel`` and escapes what it puts in.)"""

    def __init__(self, text: str | QWidget | None = "", parent: QWidget | None = None) -> None:
        super().__init__(text if isinstance(text, QWidget) else parent)  # a label may be made with its parent alone
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setText(text if isinstance(text, str) else "")

    def setText(self, text: str) -> None:
        super().setText(visible(text, lines=True))


def unbroken(text: str) -> str:
    """``text`` whose numbers stay on one line with the words they count or the units they are in."""
    return re.sub(r"(\d) (?=[A-Za-zµ%°/])", "\\1\N{NO-BREAK SPACE}", text)


def plain_tip(text: str) -> str:
    """A tooltip that shows ``text`` as it is."""
    shown = visible(text, lines=True)
    if "<" not in shown:  # what Qt takes for HTML has a tag
        return shown
    return f"<qt>{html.escape(shown, quote=False).replace(chr(10), '<br>')}</qt>"


def markup(template: str, *texts: str) -> str:
    """HTML of our own with ``texts`` in its places as they are."""
    return template.format(*(html.escape(visible(text, lines=True), quote=False) for text in texts))


def ask(parent: QWidget, title: str, question: str) -> bool:
    """A yes-or-no question. Tests replace it where it is used: a modal dialog would hang them."""
    box = QMessageBox(QMessageBox.Icon.Question, title, "", parent=parent)
    app = QApplication.instance()
    box.setStyleSheet(str((app.property(SHEET) if app is not None else None) or ""))
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setText(visible(question, lines=True))
    box.setStandardButtons(QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No)
    return box.exec() == QMessageBox.StandardButton.Yes
