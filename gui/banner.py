"""The inline banner above the views: a sentence, its details, and what can be done about it."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QFontDatabase, QIcon
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QPlainTextEdit,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

import resources
from core.messages.reason import Reason
from core.notices import Notice
from gui.plain import Label

BESIDE = ("warning", "busy")
"""What goes on all the same, but people should know."""


DEAF = "execution.deaf-to-cancel"


class Banner(QFrame):
    """Hidden until there is something to say; the newest notice replaces the one before it (all are in the log)."""

    load_anyway = Signal()
    taken_up = Signal()  # what was offered
    dismissed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("errorBanner")
        self.text = _sentence()
        self.details = _button("bannerDetails", "Details")
        self.details.setCheckable(True)
        self.anyway = _button("loadAnyway", "Load anyway")
        self.offered = _button("bannerOffer", "")
        self.dismiss = QToolButton()
        self.dismiss.setObjectName("bannerDismiss")
        self.dismiss.setIcon(QIcon(resources.path("icons/close.svg")))
        self.dismiss.setToolTip("Dismiss")
        self.dismiss.setAccessibleName("Dismiss")
        self.detail = _traceback()
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self.text, 1)
        for button in (self.offered, self.anyway, self.details, self.dismiss):
            row.addWidget(button, 0, Qt.AlignmentFlag.AlignTop)
        column = QVBoxLayout(self)
        column.setContentsMargins(12, 8, 8, 8)
        column.addLayout(row)
        column.addWidget(self.detail)
        self.details.toggled.connect(self.detail.setVisible)
        self.dismiss.clicked.connect(self._on_dismiss)
        self.anyway.clicked.connect(self._on_anyway)
        self.offered.clicked.connect(self._on_taken_up)
        for hidden in (self.detail, self.offered, self):
            hidden.hide()
        self._busy = False  # "busy" came, and what it was about is not over yet
        self._deaf = False  # what goes on does not react to a cancel

    def follow(self, notice: Notice) -> None:
        """Show what people must see. That the machine is too busy comes just before a run begins, and stays beside it."""
        if (notice.is_trouble or notice.kind in BESIDE) and notice.text:
            self.show_notice(notice)
            self._busy = notice.kind == "busy"
            self._deaf = isinstance(notice.said, Reason) and notice.said.code == DEAF
        elif notice.kind == "loaded" or notice.starts_measuring:
            if not self._busy:
                self.hide()
        elif notice.ends_measuring:
            self._busy = False

    def follow_status(self, *, busy: bool) -> None:
        """That something does not react to a cancel is said until it has ended after all; its run may end before it."""
        if self._deaf and not busy:
            self._deaf = False
            self.hide()

    def show_notice(self, notice: Notice) -> None:
        """Say it, with a Details button where there is a traceback and "Load anyway" where that is allowed."""
        kind = {"warning": "warning", "busy": "warning", "refused": "refused"}.get(notice.kind, "failed")
        if self.property("kind") != kind:
            self.setProperty("kind", kind)
            self.style().unpolish(self)
            self.style().polish(self)
        self.text.setText(notice.text)
        self.setAccessibleName(notice.text)
        self.detail.setPlainText(notice.detail)
        self.details.setChecked(False)
        self.details.setVisible(bool(notice.detail))
        self.anyway.setVisible(notice.can_override)
        self.offered.hide()
        self.show()

    def offer(self, notice: Notice, label: str) -> None:
        """Say it, with a button for what can be done about it; ``taken_up`` tells that it was pressed."""
        self.show_notice(notice)
        self.offered.setText(label)
        self.offered.show()

    def _on_dismiss(self) -> None:
        self.hide()
        self.dismissed.emit()

    def _on_taken_up(self) -> None:
        self._on_dismiss()
        self.taken_up.emit()

    def _on_anyway(self) -> None:
        self._on_dismiss()
        self.load_anyway.emit()


def _sentence() -> Label:
    text = Label()
    text.setObjectName("bannerText")
    text.setWordWrap(True)
    text.setTextFormat(Qt.TextFormat.PlainText)
    text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard)
    text.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
    return text


def _button(name: str, text: str) -> QPushButton:
    button = QPushButton(text)
    button.setObjectName(name)
    return button


def _traceback() -> QPlainTextEdit:
    detail = QPlainTextEdit()
    detail.setObjectName("bannerDetail")
    detail.setAccessibleName("Details")
    detail.setReadOnly(True)
    detail.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
    detail.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
    detail.setFixedHeight(160)
    return detail
