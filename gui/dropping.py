"""Files dropped on the window."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QEvent, QObject
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QWidget


class FileDrop(QObject):
    """Calls ``opened(path)`` with the first local file that is dropped on ``target``."""

    def __init__(self, target: QWidget, opened: Callable[[Path], None]) -> None:
        super().__init__(target)
        self._opened = opened
        target.setAcceptDrops(True)
        target.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if isinstance(event, QDropEvent):  # a drag that enters is one as well
            path = next((Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()), None)
            if path is None:
                return False
            event.acceptProposedAction()
            if not isinstance(event, QDragEnterEvent) and event.type() == QEvent.Type.Drop:
                self._opened(path)
            return True
        return False
