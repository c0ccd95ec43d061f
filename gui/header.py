"""The top line: name, menus, the view tabs in the middle, and the session's file name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from PySide6.QtCore import QEvent, Qt, QTimer
from PySide6.QtGui import QAction, QActionGroup, QIcon, QKeyEvent, QKeySequence, QShortcut
from PySide6.QtWidgets import QApplication, QFrame, QGridLayout, QHBoxLayout, QMenu, QMenuBar, QTabBar, QToolButton, QWidget

import resources
from gui.plain import Label, plain_tip
from gui.theme import THEMES
from gui.views.base import ViewSpec

MOST_KEYS = 9
"""Views that have a number key."""


@dataclass(frozen=True)
class Command:
    """One menu entry. ``name`` is its object name, ``hint`` what it does; a group makes entries exclusive and checkable."""

    menu: str
    name: str
    text: str
    act: Callable[[], object]
    keys: Sequence[str] = field(default=())
    group: str = ""
    checkable: bool = False
    separated: bool = False
    hint: str = ""


class Header(QFrame):
    """Builds the menus from commands; ``actions_by_name`` has the actions."""

    def __init__(self, views: Sequence[ViewSpec], commands: Sequence[Command], parent: QWidget) -> None:
        super().__init__(parent)
        self.setObjectName("header")
        self.actions_by_name: dict[str, QAction] = {}
        self.menus: dict[str, QMenu] = {}
        self._menus: dict[str, str] = {}
        self._groups: dict[str, QActionGroup] = {}
        name = Label("Tickscope")
        name.setObjectName("appName")
        self.menu_bar = QMenuBar()
        self.menu_bar.setNativeMenuBar(False)
        self._fill_menus(commands, parent)
        self.tabs = QTabBar()
        self.tabs.setObjectName("viewTabs")
        self.tabs.setAccessibleName("Views")
        self.tabs.setDrawBase(False)
        self.tabs.setExpanding(False)
        self.tabs.setUsesScrollButtons(False)
        self._fill_tabs(views)
        frame = QFrame()
        frame.setObjectName("tabFrame")
        inside = QHBoxLayout(frame)
        inside.setContentsMargins(3, 3, 3, 3)
        inside.addWidget(self.tabs)
        self.session = Label()
        self.session.setObjectName("sessionName")
        self.session.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        left = QHBoxLayout()
        left.setSpacing(10)
        left.addWidget(self._sidebar_button())
        left.addWidget(name)
        left.addWidget(self.menu_bar, 0, Qt.AlignmentFlag.AlignVCenter)
        left.addStretch(1)
        grid = QGridLayout(self)
        grid.setContentsMargins(14, 4, 14, 4)
        grid.addLayout(left, 0, 0)
        grid.addWidget(frame, 0, 1)
        grid.addWidget(self.session, 0, 2)
        grid.setColumnStretch(0, 1)
        grid.setColumnStretch(2, 1)

    def _fill_tabs(self, views: Sequence[ViewSpec]) -> None:
        self._view_actions = {view.id: f"view{number}" for number, view in enumerate(views, 1)}
        for number, view in enumerate(views, 1):
            keyed = number <= MOST_KEYS
            index = self.tabs.addTab(f"{number} {view.title}" if keyed else view.title)
            self.tabs.setTabData(index, view.title)
            self.tabs.setTabToolTip(index, f"{view.title} (key {number})" if keyed else view.title)

    def show_view(self, view_id: str) -> None:
        """Mark the view on show in the menu."""
        self.actions_by_name[self._view_actions[view_id]].setChecked(True)

    def show_session(self, name: str, explanation: str = "") -> None:
        """The open session's file name."""
        self.session.setText(name)
        self.session.setToolTip(plain_tip(explanation))

    def show_theme(self, name: str) -> None:
        """Mark the theme in use in its menu."""
        self.actions_by_name[f"theme_{name}"].setChecked(True)

    def keys(self) -> list[tuple[str, str, str]]:
        """Menu, keys and name of each command that has keys."""
        return [
            (menu, "  or  ".join(key.toString() for key in action.shortcuts()), action.text().rstrip("…"))
            for menu, action in self.by_menu()
            if action.shortcuts()
        ]

    def by_menu(self) -> list[tuple[str, QAction]]:
        """Every action with the title of its menu."""
        return [(menu, self.actions_by_name[name]) for name, menu in self._menus.items()]

    def _sidebar_button(self) -> QToolButton:
        button = QToolButton()
        button.setObjectName("sidebarToggle")
        action = self.actions_by_name.get("toggleSidebar")
        button.setVisible(action is not None)
        if action is not None:
            action.setIcon(QIcon(resources.path("icons/sidebar.svg")))
            action.setIconVisibleInMenu(False)
            button.setDefaultAction(action)
            button.setToolTip(plain_tip(f"Show or hide the sidebar ({action.shortcut().toString()})"))
            button.setAccessibleName("Sidebar")
        return button

    def _fill_menus(self, commands: Sequence[Command], owner: QWidget) -> None:
        self.menus = {title: self._add_menu(title, owner) for title in dict.fromkeys(command.menu for command in commands)}
        for command in commands:
            menu = self.menus[command.menu]
            if command.separated:
                menu.addSeparator()
            action = QAction(command.text, owner)
            action.setObjectName(command.name)
            action.setShortcuts([QKeySequence(keys) for keys in command.keys])
            if command.hint:
                action.setToolTip(plain_tip(command.hint))
                action.setStatusTip(plain_tip(command.hint))
            action.setCheckable(bool(command.group) or command.checkable)
            if command.group:
                self._groups.setdefault(command.group, QActionGroup(owner)).addAction(action)
            action.triggered.connect(lambda _checked=False, act=command.act: act())
            menu.addAction(action)
            owner.addAction(action)  # its shortcut works wherever the focus is
            self.actions_by_name[command.name] = action
            self._menus[command.name] = command.menu

    def _add_menu(self, title: str, owner: QWidget) -> QMenu:
        """Alt and the first letter open it, without the underline that Fusion would always draw under a mnemonic."""
        menu = self.menu_bar.addMenu(title)
        menu.setToolTipsVisible(True)
        keys = QShortcut(QKeySequence(f"Alt+{title[0]}"), owner)
        keys.activated.connect(lambda: self.menu_bar.setActiveAction(menu.menuAction()))
        menu.aboutToHide.connect(lambda: QTimer.singleShot(0, self, self._leave_bar))
        return menu

    def _leave_bar(self) -> None:
        """Escape closes a menu and leaves the keyboard in the bar, where Qt takes the next Escape: it cancelled no run."""
        if QApplication.activePopupWidget() is None and self.menu_bar.activeAction() is not None:
            # The bar has no call for it; sent to it alone, the key is no shortcut.
            QApplication.sendEvent(
                self.menu_bar, QKeyEvent(QEvent.Type.KeyPress, Qt.Key.Key_Escape, Qt.KeyboardModifier.NoModifier)
            )


def view_commands(views: Sequence[ViewSpec], show: Callable[[str], None]) -> list[Command]:
    """One for each view, with its number for a key."""
    return [
        Command("View", f"view{n}", view.title, partial(show, view.id), (str(n),) if n <= MOST_KEYS else (), group="views")
        for n, view in enumerate(views, 1)
    ]


def theme_commands(set_theme: Callable[[str], None]) -> list[Command]:
    """The three themes."""
    return [
        Command(
            "View",
            f"theme_{name}",
            f"{name.capitalize()} theme",
            lambda name=name: set_theme(name),  # type: ignore[misc]  # mypy cannot infer a lambda's default
            group="theme",
            separated=name == THEMES[0],
        )
        for name in THEMES
    ]
