"""The command palette: type a few letters of anything that can be done, and press Enter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from PySide6.QtCore import QEvent, QObject, QSize, Qt
from PySide6.QtGui import QAction, QColor, QKeyEvent, QPainter
from PySide6.QtWidgets import (
    QDialog,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from gui.matching import ranked
from gui.setup.switch_list import LINE, Index
from gui.theme import Palette, scaled

if TYPE_CHECKING:
    from gui.setup.pass_list import PassList

WIDTH, MOST_ROWS = 560, 11
HINT = Qt.ItemDataRole.UserRole
KEYS = Qt.ItemDataRole.UserRole + 1


class Entry(NamedTuple):
    """One thing that can be done."""

    text: str  # "Run › Start A/B"
    hint: str
    keys: str
    act: Callable[[], object]
    enabled: bool = True


def open_palette(actions: Sequence[tuple[str, QAction]], passes: PassList, colours: Palette, parent: QWidget) -> CommandPalette:
    """Every command of the menus (the menu's title and the action), and every pass, in one list."""
    entries = [entry_of(action, menu) for menu, action in actions if action.objectName() != "palette"]
    for item in passes.rows():
        on = item.checkState() == Qt.CheckState.Checked
        usable = bool(item.flags() & Qt.ItemFlag.ItemIsEnabled)
        wanted = Qt.CheckState.Unchecked if on else Qt.CheckState.Checked
        text = f"{'Switch off' if on else 'Switch on'} › {item.text()}"
        entries.append(Entry(text, str(item.data(LINE) or ""), "", partial(item.setCheckState, wanted), usable))
    return CommandPalette(entries, colours, parent)


def entry_of(action: QAction, menu: str) -> Entry:
    """What a menu's action is in the palette."""
    keys = "  ".join(key.toString() for key in action.shortcuts())
    hint = action.statusTip() or ("" if action.isEnabled() else "not now")
    return Entry(f"{menu} › {action.text().rstrip('…')}", hint, keys, action.trigger, action.isEnabled())


class EntryDelegate(QStyledItemDelegate):
    """Text at the left, hint muted behind it, keys at the right."""

    def __init__(self, colours: Palette, parent: QWidget) -> None:
        super().__init__(parent)
        self._colours = colours

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        colours, row = self._colours, option.rect
        painter.save()
        if option.state & QStyle.StateFlag.State_Selected:
            painter.fillRect(row, QColor(colours.raised))
            painter.fillRect(row.left(), row.top(), 3, row.height(), QColor(colours.accent))
        enabled = bool(index.flags() & Qt.ItemFlag.ItemIsEnabled)
        inside = row.adjusted(14, 0, -12, 0)
        middle = Qt.AlignmentFlag.AlignVCenter
        small = scaled(option.font, 0.88)
        painter.setFont(small)
        painter.setPen(QColor(colours.muted))
        keys = painter.boundingRect(inside, Qt.AlignmentFlag.AlignRight | middle, str(index.data(KEYS) or ""))
        painter.drawText(inside, Qt.AlignmentFlag.AlignRight | middle, str(index.data(KEYS) or ""))
        painter.setFont(option.font)
        painter.setPen(QColor(colours.text if enabled else colours.disabled))
        text = str(index.data())
        painter.drawText(inside, Qt.AlignmentFlag.AlignLeft | middle, text)
        taken = painter.boundingRect(inside, Qt.AlignmentFlag.AlignLeft | middle, text).width() + 14
        room = inside.adjusted(taken, 0, -keys.width() - 14, 0)
        painter.setFont(small)
        painter.setPen(QColor(colours.muted if enabled else colours.disabled))
        hint = painter.fontMetrics().elidedText(str(index.data(HINT) or ""), Qt.TextElideMode.ElideRight, room.width())
        if room.width() > 40:
            painter.drawText(room, Qt.AlignmentFlag.AlignLeft | middle, hint)
        painter.restore()


class CommandPalette(QDialog):
    """Closes with Esc, a click elsewhere, or after what was chosen is begun."""

    def __init__(self, entries: Sequence[Entry], colours: Palette, parent: QWidget) -> None:
        super().__init__(parent, Qt.WindowType.Popup | Qt.WindowType.FramelessWindowHint)
        self.setObjectName("commandPalette")
        self.setAccessibleName("Command palette")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._entries = list(entries)
        self.shown: list[Entry] = []
        self.field = QLineEdit()
        self.field.setObjectName("paletteField")
        self.field.setPlaceholderText("What do you want to do?")
        self.field.setAccessibleName("Search commands")
        self.list = QListWidget()
        self.list.setObjectName("paletteList")
        self.list.setAccessibleName("Commands")
        self.list.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.list.setItemDelegate(EntryDelegate(colours, self.list))
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        column = QVBoxLayout(self)
        column.setContentsMargins(8, 8, 8, 8)
        column.setSpacing(6)
        column.addWidget(self.field)
        column.addWidget(self.list)
        self.field.textChanged.connect(self._fill)
        self.field.installEventFilter(self)
        self.list.itemClicked.connect(lambda _item: self._do())
        self._fill("")

    def open_over(self, window: QWidget) -> None:
        """Below the window's header, in its middle."""
        width = min(WIDTH, window.width() - 32)
        self.setFixedWidth(width)
        row = max(1, self.list.sizeHintForRow(0))
        self.list.setFixedHeight(min(MOST_ROWS * row + 4, max(120, window.height() - 160)))
        corner = window.mapToGlobal(window.rect().topLeft())
        self.move(corner.x() + (window.width() - width) // 2, corner.y() + 56)
        self.show()
        self.field.setFocus()

    def _fill(self, wanted: str) -> None:
        named = ranked(wanted, self._entries, lambda entry: entry.text)
        words = wanted.strip().lower()
        self.shown = named + [entry for entry in self._entries if words and entry not in named and words in entry.hint.lower()]
        self.list.clear()
        height = self.fontMetrics().height() + 12
        for entry in self.shown:
            item = QListWidgetItem(entry.text, self.list)
            item.setData(HINT, entry.hint)
            item.setData(KEYS, entry.keys)
            item.setSizeHint(QSize(0, height))
            said = ", ".join(part for part in (entry.text, entry.hint, entry.keys) if part)
            item.setData(Qt.ItemDataRole.AccessibleTextRole, said)
            if not entry.enabled:
                item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEnabled)
        first = next((row for row, entry in enumerate(self.shown) if entry.enabled), -1)
        self.list.setCurrentRow(first)

    def _do(self) -> None:
        row = self.list.currentRow()
        if 0 <= row < len(self.shown) and self.shown[row].enabled:
            act = self.shown[row].act
            self.close()
            act()

    def _move(self, steps: int) -> None:
        rows = [row for row, entry in enumerate(self.shown) if entry.enabled]
        if not rows:
            return
        at = rows.index(self.list.currentRow()) + steps if self.list.currentRow() in rows else 0
        around = at % len(rows) if abs(steps) == 1 else min(max(at, 0), len(rows) - 1)
        self.list.setCurrentRow(rows[around])

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.field and isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            steps = {Qt.Key.Key_Up: -1, Qt.Key.Key_Down: 1, Qt.Key.Key_PageUp: -MOST_ROWS, Qt.Key.Key_PageDown: MOST_ROWS}
            key = Qt.Key(event.key())
            if key in steps:
                self._move(steps[key])
                return True
            if key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self._do()
                return True
        return super().eventFilter(watched, event)
