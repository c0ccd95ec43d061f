"""The views behind their tabs: made from what registered itself, one on show, each asked for by its id or by what it can do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QAbstractSpinBox, QApplication, QLineEdit, QStackedWidget, QTabBar, QTextEdit, QWidget

from gui.views.base import Request, View, ViewContext, ViewSpec

TYPED_INTO = (QLineEdit, QAbstractSpinBox, QTextEdit)


class ViewStack(QObject):
    """Iterates over the views in the order of their tabs; there are none until ``build``."""

    shown = Signal(str)  # id of the view that came up

    def __init__(self, specs: Sequence[ViewSpec], tabs: QTabBar, stack: QStackedWidget, parent: QObject) -> None:
        super().__init__(parent)
        self.specs = tuple(specs)
        self._views: dict[str, View] = {}
        self._tabs, self._stack = tabs, stack
        tabs.currentChanged.connect(self._on_tab)

    def build(self, context: ViewContext, first: str) -> None:
        """Make every view, and show ``first`` (or the first there is, where none has that id)."""
        for spec in self.specs:
            view = self._views[spec.id] = spec.make(context)
            self._stack.addWidget(view)
        before = self._tabs.currentIndex()
        self.show(first)
        if self._tabs.currentIndex() == before:
            self._on_tab(before)

    def __len__(self) -> int:
        return len(self._views)

    def __iter__(self) -> Iterator[View]:
        return iter(self._views.values())

    def __getitem__(self, view_id: str) -> View:
        return self._views[view_id]

    @property
    def current(self) -> str:
        """Id of the view on show, "" before there are any tabs."""
        number = self._tabs.currentIndex()
        return self.specs[number].id if 0 <= number < len(self.specs) else ""

    @property
    def on_show(self) -> tuple[View, ...]:
        """The view on show: only that one is kept up to date. Empty until there is one."""
        return (self._views[self.current],) if self.current in self._views else ()

    def show(self, view_id: str) -> None:
        """Turn to the view of that id; to none where there is none."""
        for number, spec in enumerate(self.specs):
            if spec.id == view_id:
                self._tabs.setCurrentIndex(number)

    def ask(self, request: Request) -> bool:
        """Bring the first view forward that can do it, and have it done."""
        for view_id, view in self._views.items():
            if view.can(request):
                self.show(view_id)
                view.do(request)
                return True
        return False

    def _on_tab(self, number: int) -> None:
        if 0 <= number < len(self._views):
            before = QApplication.focusWidget()
            self._stack.setCurrentIndex(number)
            self._keep_from_typing(before)
            self.shown.emit(self.specs[number].id)

    def _keep_from_typing(self, before: QWidget | None) -> None:
        """Qt gives the focus of a hidden view to the first field of the next, where 3 is typed and turns to no view."""
        now = QApplication.focusWidget()
        if now is not before and isinstance(now, TYPED_INTO) and self._stack.isAncestorOf(now):
            self._tabs.setFocus()
