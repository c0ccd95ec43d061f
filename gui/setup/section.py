"""A part of the sidebar below a head line that folds it away and then says in few words what is set in it."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QLayout, QToolButton, QVBoxLayout, QWidget

from gui.elided import Elided
from gui.plain import plain_tip

OPEN, CLOSED = "▾", "▸"  # behind the word: the button's own arrow would push it out of line


class Section(QWidget):
    """``note`` stands at the right of the head line; ``summary`` there while the section is folded."""

    folded = Signal(bool)

    def __init__(self, name: str, title: str, explanation: str = "", *, tight: bool = False) -> None:
        super().__init__()
        self.name = name
        self._title = title
        self._note = self._summary = ""
        self._corner: QWidget | None = None
        self.toggle = QToolButton(self)
        self.toggle.setObjectName(f"{name}Toggle")
        self.toggle.setAccessibleName(title)
        self.toggle.setProperty("role", "section")
        self.toggle.setToolTip(plain_tip(explanation))
        self.toggle.setCheckable(True)
        self.toggle.toggled.connect(self._on_toggled)
        self.note = Elided(self, side=Qt.AlignmentFlag.AlignRight)
        self.note.setProperty("role", "muted")
        self._head = head = QHBoxLayout()
        head.setSpacing(8)
        head.setContentsMargins(-7, 0, 0, 0)  # what the button keeps free before its text
        head.addWidget(self.toggle)
        head.addWidget(self.note, 1)
        self.body = QWidget(self)
        self._inside = QVBoxLayout(self.body)
        self._inside.setContentsMargins(0, 0, 0, 0)
        self._inside.setSpacing(6)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(head)
        column.addWidget(self.body)
        if tight:  # no taller than what is in it, also where there is room to share
            for layout in (column, self._inside):
                layout.setSizeConstraint(QLayout.SizeConstraint.SetMinAndMaxSize)
        self.set_open(True)

    @property
    def is_open(self) -> bool:
        """Whether what is in it shows."""
        return self.toggle.isChecked()

    def add(self, widget: QWidget) -> None:
        """One more widget, below the others."""
        self._inside.addWidget(widget)

    def put_in_head(self, widget: QWidget) -> None:
        """A widget at the right of the head line, while the section is unfolded."""
        self._corner = widget
        self._head.addWidget(widget)
        widget.setVisible(self.is_open)

    def set_open(self, is_open: bool) -> None:
        """Fold or unfold."""
        self.toggle.setChecked(is_open)

    def say(self, note: str, summary: str = "") -> None:
        """What stands beside the title, and what stands there while the section is folded (the same if not given)."""
        self._note, self._summary = note, summary or note
        shown = self._note if self.is_open else self._summary
        self.note.setText(shown)
        self.toggle.setAccessibleDescription(shown)

    def _on_toggled(self, is_open: bool) -> None:
        self.toggle.setText(f"{self._title} {OPEN if is_open else CLOSED}")
        self.body.setVisible(is_open)
        if self._corner is not None:
            self._corner.setVisible(is_open)
        self.say(self._note, self._summary)
        self.folded.emit(not is_open)
