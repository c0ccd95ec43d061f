"""Where everything stands: header on top, sidebar beside the views, the log below them, the status bar at the bottom."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QStackedWidget, QVBoxLayout, QWidget

from gui.header import Header
from gui.log_panel import LogPanel
from gui.setup.sidebar import WIDTH, Sidebar
from gui.splitter import Splitter
from gui.status_bar import StatusBar
from gui.theme import Palette

LEAST_CONTENT = 400


class Frame(QWidget):
    """Lays out panels that others made; ``stack`` is empty until the views are there."""

    def __init__(
        self, header: Header, sidebar: Sidebar, strips: Sequence[QWidget], log: LogPanel, status_bar: StatusBar
    ) -> None:
        super().__init__()
        self._strips = strips  # above the views, each there only while it has something to say
        self.stack = QStackedWidget()
        self.across = Splitter(Qt.Orientation.Horizontal)
        self.across.setChildrenCollapsible(False)
        self.across.addWidget(sidebar)
        self.across.addWidget(self._build_content())
        self.across.setStretchFactor(1, 1)
        self.across.setSizes([WIDTH, 1140])
        self.splitter = Splitter(Qt.Orientation.Vertical)
        self.splitter.setChildrenCollapsible(False)
        self.splitter.addWidget(self.across)
        self.splitter.addWidget(log)
        self.splitter.setStretchFactor(0, 1)
        self.splitter.setSizes([700, 180])
        log.hide()
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(0)
        outer.addWidget(header)
        outer.addWidget(self.splitter, 1)
        outer.addWidget(status_bar)

    def set_palette(self, palette: Palette) -> None:
        """Paint the lines between the panels in other colours."""
        self.splitter.set_colours(palette)
        self.across.set_colours(palette)

    def make_room(self) -> None:
        """The room above the views is there only while something stands in it."""
        self._above.setVisible(any(not strip.isHidden() for strip in self._strips))

    def _build_content(self) -> QWidget:
        content = QWidget()
        content.setMinimumWidth(LEAST_CONTENT)
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        self._above = QWidget()
        room = QVBoxLayout(self._above)
        room.setContentsMargins(12, 12, 12, 0)
        for strip in self._strips:
            room.addWidget(strip)
        self._above.hide()
        column.addWidget(self._above)
        column.addWidget(self.stack, 1)
        return content
