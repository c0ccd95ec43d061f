"""Lets one column of a table take what room is left, within limits: names stay readable, and numbers stay near them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from PySide6.QtCore import QEvent, QObject
from PySide6.QtWidgets import QHeaderView, QTableView, QTreeView

LEAST_NAME = 160  # of a table; shorter names cannot be told apart
NEAR = 480  # a name column wider than this only takes the numbers away from their names
MOST_SPREAD = 1.6  # how much wider the other columns get before room is left free at the right


class StretchingColumn(QObject):
    """Qt's own stretched sections have no least width, so names shrank to ``la…``, and no most, so numbers stood 900 px away.

    ``most``: what is left beyond it goes to the other columns; None: this one takes all. ``giving``: columns that become
    narrower, down to so many pixels, where there is too little room.
    """

    def __init__(
        self,
        view: QTreeView | QTableView,
        column: int,
        least: int,
        most: int | None = None,
        giving: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__(view)
        self._header = view.header() if isinstance(view, QTreeView) else view.horizontalHeader()
        self._viewport = view.viewport()
        self._column, self._least, self._most = column, least, most
        self._giving = dict(giving or {})
        self._own: dict[int, int] = {}  # widths of the other columns before they were spread
        self._needed: dict[int, int] = {}
        self._drawn: set[int] = set()  # columns that someone drew to a width
        self._fitting = False
        self._header.setSectionResizeMode(column, QHeaderView.ResizeMode.Interactive)
        self._header.sectionResized.connect(self._on_resized)
        self._viewport.installEventFilter(self)

    def fit(self) -> None:
        """To be called when other columns were hidden or shown."""
        header, room = self._header, self._viewport.width()
        shown = [n for n in range(header.count()) if n != self._column and not header.isSectionHidden(n)]
        own = {number: self._own.setdefault(number, header.sectionSize(number)) for number in shown}
        own = {number: max(width, self._needs(number)) for number, width in own.items()}
        own = self._given(own, sum(own.values()) + self._least - room)
        others = sum(own.values())
        width = max(self._least, room - others)
        if self._most is not None:
            width = min(width, max(self._least, self._most))
        spread = min(MOST_SPREAD, max(1.0, (room - width) / others)) if self._most is not None and others else 1.0
        self._fitting = True
        for number, natural in own.items():
            header.resizeSection(number, int(natural * spread))
        header.resizeSection(self._column, width)
        self._fitting = False

    def need(self, column: int, width: int) -> None:
        """What a column has to show takes so many pixels; from the next ``fit`` on it has them."""
        self._needed[column] = max(width, self._needed.get(column, 0))

    def _needs(self, column: int) -> int:
        return 0 if column in self._drawn else self._needed.get(column, 0)

    def _given(self, own: dict[int, int], missing: int) -> dict[int, int]:
        """The widths with what is missing taken from those that give, as much from each as it can spare."""
        spare = {n: max(0, own[n] - least) for n, least in self._giving.items() if n in own and n not in self._drawn}
        share = min(1.0, max(0, missing) / max(1, sum(spare.values())))
        return {number: width - math.ceil(spare.get(number, 0) * share) for number, width in own.items()}

    def _on_resized(self, column: int, before: int, width: int) -> None:
        """Someone drew a column to a width: that is its own from now on. (0: it was or is hidden.)"""
        if not self._fitting and column != self._column and width > 0 and before > 0:
            self._own[column] = width
            self._drawn.add(column)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Resize:
            self.fit()
        return False
