"""Lets one column of a table take what room is left, but never less than its text needs: below that the table scrolls."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject
from PySide6.QtWidgets import QHeaderView, QTreeView


class StretchingColumn(QObject):
    """Qt's own stretched sections have no least width of their own, so names of layers shrank to ``la…``."""

    def __init__(self, tree: QTreeView, column: int, least: int) -> None:
        super().__init__(tree)
        self._tree, self._column, self._least = tree, column, least
        tree.header().setSectionResizeMode(column, QHeaderView.ResizeMode.Interactive)
        tree.viewport().installEventFilter(self)

    def fit(self) -> None:
        """To be called when other columns were hidden or shown."""
        header = self._tree.header()
        others = sum(header.sectionSize(number) for number in range(header.count()) if number != self._column)
        header.resizeSection(self._column, max(self._least, self._tree.viewport().width() - others))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Resize:
            self.fit()
        return False
