"""A card that is as high as its texts need at its width."""

from __future__ import annotations

from PySide6.QtCore import QEvent
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QWidget


class FittedCard(QFrame):
    """Tells layouts a plain least height instead of a height for each width.

    A scroll area gives a page that has one such label its preferred height in all, and squeezes what cannot wrap.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setProperty("card", True)

    def fit(self) -> None:
        """After texts changed, or the width did."""
        layout = self.layout()
        if layout is not None and self.width() > 0:
            layout.activate()
            wraps = layout.hasHeightForWidth()
            needed = layout.totalHeightForWidth(self.width()) if wraps else layout.totalMinimumSize().height()
            if needed != self.minimumHeight():
                self.setMinimumHeight(needed)

    def hasHeightForWidth(self) -> bool:
        return False

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.fit()

    def event(self, event: QEvent) -> bool:
        answer = super().event(event)
        if event.type() == QEvent.Type.LayoutRequest:
            self.fit()
        return answer
