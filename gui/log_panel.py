"""The log: every notice with its time, and the traceback under it."""

from __future__ import annotations

from datetime import datetime

from PySide6.QtGui import QFontDatabase, QGuiApplication
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPlainTextEdit, QPushButton, QVBoxLayout, QWidget

from core.notices import Notice
from gui.banner import BESIDE
from gui.plain import Label

MOST_LINES = 5000


class LogPanel(QFrame):
    """Newest at the end; follows it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("logPanel")
        self.setMinimumHeight(90)
        title = Label("LOG")
        title.setProperty("role", "section")
        self.text = QPlainTextEdit()
        self.text.setObjectName("logText")
        self.text.setReadOnly(True)
        self.text.setMaximumBlockCount(MOST_LINES)
        self.text.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.text.setAccessibleName("Log")
        self.text.setPlaceholderText("Nothing has happened yet")
        copy = QPushButton("Copy")
        copy.setObjectName("logCopy")
        copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(self.text.toPlainText()))
        clear = QPushButton("Clear")
        clear.clicked.connect(self.text.clear)
        head = QHBoxLayout()
        head.addWidget(title)
        head.addStretch(1)
        head.addWidget(copy)
        head.addWidget(clear)
        column = QVBoxLayout(self)
        column.setContentsMargins(14, 6, 14, 6)
        column.setSpacing(4)
        column.addLayout(head)
        column.addWidget(self.text, 1)

    def add(self, notice: Notice) -> None:
        """One line, and the traceback indented under it."""
        mark = "! " if notice.is_trouble else "? " if notice.kind in BESIDE else ""
        lines = [f"{datetime.now():%H:%M:%S}  {mark}{notice.text}"]
        lines += [f"          {line}" for line in notice.detail.rstrip().splitlines()]
        self.text.appendPlainText("\n".join(lines))
