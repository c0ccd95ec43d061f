"""The frame above two compared runs: their verdict, or why there is none, with the way to one."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QWidget

from core.analysis.compare import Comparison
from gui.plain import Label
from gui.theme import Palette
from gui.views.compare.differences import verdict_text

NEEDED = "A verdict needs both configurations run in turn (A B B A …): that is what the A/B test does."


class VerdictBadge(QWidget):
    """Says which it is in words and by its frame; ``trial_wanted`` is the wish to have it decided."""

    trial_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._palette: Palette | None = None
        self._refused = True
        self.label = Label(self)
        self.label.setObjectName("compareVerdict")
        self.label.setWordWrap(True)
        self.label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.label.setToolTip(NEEDED)
        self.decide = QPushButton("Decide with an A/B test", self)
        self.decide.setObjectName("decideByTrial")
        self.decide.setToolTip("Make the first run's setup side A and the second's side B, and turn to the A/B test")
        self.decide.clicked.connect(lambda: self.trial_wanted.emit())
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        row.addWidget(self.label, 1)
        row.addWidget(self.decide, 0, Qt.AlignmentFlag.AlignTop)

    def text(self) -> str:
        """What it says."""
        return self.label.text()

    def show_comparison(self, found: Comparison) -> None:
        """The verdicts of two sides of one A/B test, or why two runs get none."""
        self._refused = found.refused is not None
        said = "Second ÷ First: " + "   ".join(verdict_text(verdict) for verdict in found.verdicts)
        self.label.setText(str(found.refused or said))
        self.decide.setVisible(self._refused)
        self._frame()

    def set_palette(self, palette: Palette) -> None:
        """Repaint in other colours."""
        self._palette = palette
        self._frame()

    def _frame(self) -> None:
        """A verdict stands in a calm frame, a refusal in a warning one."""
        if self._palette is not None:
            colour = self._palette.warn if self._refused else self._palette.border
            text = self._palette.warn if self._refused else self._palette.text
            self.label.setStyleSheet(f"color: {text}; border: 1px solid {colour}; border-radius: 8px; padding: 5px 10px;")
