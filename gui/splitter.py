"""A line between two panels that can be dragged, and moved with the arrow keys."""

from __future__ import annotations

from PySide6.QtCore import QRect, Qt
from PySide6.QtGui import QColor, QEnterEvent, QFocusEvent, QKeyEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QSplitter, QSplitterHandle, QWidget

from gui.theme import DARK, Palette

GRIP = 5  # pixels that take the mouse; the line in them is one wide
STEP = 24


class Splitter(QSplitter):
    """Painted here and not by a style sheet, which would restyle everything inside with each theme."""

    def __init__(self, orientation: Qt.Orientation, parent: QWidget | None = None) -> None:
        super().__init__(orientation, parent)
        self.colours = DARK
        self.setHandleWidth(GRIP)

    def set_colours(self, palette: Palette) -> None:
        """Paint the line in other colours."""
        self.colours = palette
        for number in range(1, self.count()):
            self.handle(number).update()

    def createHandle(self) -> QSplitterHandle:
        return Handle(self.orientation(), self)


class Handle(QSplitterHandle):
    """Lights up under the mouse and while it has the focus."""

    def __init__(self, orientation: Qt.Orientation, parent: Splitter) -> None:
        super().__init__(orientation, parent)
        self._splitter = parent
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setAccessibleName("Divider; arrow keys move it")

    def paintEvent(self, event: QPaintEvent) -> None:
        colours = self._splitter.colours
        lit = self.underMouse() or self.hasFocus()
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(colours.background))
        upright = self.orientation() == Qt.Orientation.Horizontal  # of the splitter: its line stands
        middle = self.rect().center()
        thick = 3 if lit else 1
        at = middle.x() - thick // 2 if upright else middle.y() - thick // 2
        line = QRect(at, 0, thick, self.height()) if upright else QRect(0, at, self.width(), thick)
        painter.fillRect(line, QColor(colours.accent if lit else colours.border))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        steps = {Qt.Key.Key_Left: -STEP, Qt.Key.Key_Up: -STEP, Qt.Key.Key_Right: STEP, Qt.Key.Key_Down: STEP}
        if event.key() not in steps:
            super().keyPressEvent(event)
            return
        place = self.x() if self.orientation() == Qt.Orientation.Horizontal else self.y()
        self.moveSplitter(place + steps[Qt.Key(event.key())])

    def enterEvent(self, event: QEnterEvent) -> None:
        super().enterEvent(event)
        self.update()

    def leaveEvent(self, event: object) -> None:
        super().leaveEvent(event)  # type: ignore[arg-type]
        self.update()

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        self.update()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self.update()
