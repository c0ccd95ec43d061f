"""A list with a switch on each row, a second line below the title, and rows that are greyed and say why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from PySide6.QtCore import (
    QAbstractItemModel,
    QEvent,
    QModelIndex,
    QPersistentModelIndex,
    QPoint,
    QRect,
    QRectF,
    QSize,
    Qt,
    Signal,
)
from PySide6.QtGui import QColor, QFont, QFontMetrics, QKeyEvent, QMouseEvent, QPainter, QShowEvent
from PySide6.QtWidgets import QListWidget, QListWidgetItem, QStyle, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from gui.elided import elided_words
from gui.plain import plain_tip
from gui.theme import DARK, Palette, scaled

ID = Qt.ItemDataRole.UserRole
LINE = Qt.ItemDataRole.UserRole + 1  # the second line of a row
SWITCH_WIDTH, SWITCH_HEIGHT = 30, 17
SECOND_LINE = 0.85  # of the title's size
Index = QModelIndex | QPersistentModelIndex


class SwitchDelegate(QStyledItemDelegate):
    """Paints title, second line and switch; a click on the row's right end, Space or Enter flips the switch."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.colours = DARK

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        enabled = bool(index.flags() & Qt.ItemFlag.ItemIsEnabled)
        row: QRect = option.rect
        self._paint_ground(painter, option, row, last=index.row() == index.model().rowCount() - 1)
        title = QFont(option.font)
        title.setWeight(title.Weight.Medium)
        room = row.adjusted(0, 0, -self.at_right(option, index), 0)
        small = scaled(option.font, SECOND_LINE)
        small.setWeight(small.Weight.Normal)
        top = QFontMetrics(title).height()
        gap = (row.height() - top - QFontMetrics(small).height()) // 2
        lines = (
            (title, self.colours.text, index.data(), room.top() + gap, top),
            (small, self.colours.muted, index.data(LINE), room.top() + gap + top, QFontMetrics(small).height()),
        )
        self._paint_badge(painter, small, self.beside(index), room.adjusted(0, gap, 0, 0), QFontMetrics(title), index.data())
        for font, colour, text, y, height in lines:
            painter.setFont(font)
            painter.setPen(QColor(colour if enabled else self.colours.disabled))
            shown = elided_words(QFontMetrics(font), str(text or ""), room.width())
            painter.drawText(QRect(room.left(), y, room.width(), height), Qt.AlignmentFlag.AlignVCenter, shown)
        self.paint_right(painter, option, index, enabled)
        painter.restore()

    def beside(self, index: Index) -> str:
        """A word in a frame right of the title, "" for none."""
        return ""

    def at_right(self, option: QStyleOptionViewItem, index: Index) -> int:
        """How much of the row's right end is taken."""
        return SWITCH_WIDTH + 12

    def paint_right(self, painter: QPainter, option: QStyleOptionViewItem, index: Index, enabled: bool) -> None:
        """What stands at the row's right end: the switch."""
        self._paint_switch(painter, self.switch_rect(option.rect), index.data(Qt.ItemDataRole.CheckStateRole), enabled)

    def _paint_badge(
        self, painter: QPainter, font: QFont, text: str, room: QRect, title_metrics: QFontMetrics, title: str
    ) -> None:
        """Only where the title leaves room for the whole word; the tooltip has it too."""
        metrics = QFontMetrics(font)
        width, left = metrics.horizontalAdvance(text) + 10, title_metrics.horizontalAdvance(title) + 8
        if not text or left + width > room.width():
            return
        frame = QRectF(
            room.left() + left, room.top() + (title_metrics.height() - metrics.height()) / 2, width, metrics.height()
        )
        painter.setFont(font)
        painter.setPen(QColor(self.colours.good))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRoundedRect(frame.adjusted(0.5, 0.5, -0.5, -0.5), 4, 4)
        painter.drawText(frame, Qt.AlignmentFlag.AlignCenter, text)

    @staticmethod
    def switch_rect(row: QRect) -> QRect:
        """Where the switch of a row is."""
        at = QPoint(row.right() - SWITCH_WIDTH, row.center().y() - SWITCH_HEIGHT // 2)
        return QRect(at, QSize(SWITCH_WIDTH, SWITCH_HEIGHT))

    def _paint_ground(self, painter: QPainter, option: QStyleOptionViewItem, row: QRect, *, last: bool) -> None:
        if option.state & QStyle.StateFlag.State_HasFocus:
            painter.setPen(QColor(self.colours.accent))
            painter.drawRoundedRect(QRectF(row).adjusted(-3.5, 1.5, 2.5, -2.5), 5, 5)
        if not last:
            painter.setPen(QColor(self.colours.border))
            painter.drawLine(row.bottomLeft(), row.bottomRight())

    def _paint_switch(self, painter: QPainter, rect: QRect, state: Any, enabled: bool) -> None:
        """On and off differ in place and colour; the knob keeps a rim so that it shows on white."""
        on = Qt.CheckState(state) == Qt.CheckState.Checked
        painter.setOpacity(1.0 if enabled else 0.45)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(self.colours.accent if on else self.colours.border))
        painter.drawRoundedRect(rect, SWITCH_HEIGHT / 2, SWITCH_HEIGHT / 2)
        knob = SWITCH_HEIGHT - 4
        left = rect.right() - knob - 1 if on else rect.left() + 2
        painter.setBrush(QColor("#ffffff"))
        painter.drawEllipse(QRectF(left, rect.top() + 2, knob, knob))

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        return QSize(180, row_height(QFontMetrics(option.font).height()))

    def editorEvent(self, event: QEvent, model: QAbstractItemModel, option: QStyleOptionViewItem, index: Index) -> bool:
        flags = index.flags()
        if not (flags & Qt.ItemFlag.ItemIsEnabled and flags & Qt.ItemFlag.ItemIsUserCheckable):
            return False
        if isinstance(event, QMouseEvent):
            left = event.button() == Qt.MouseButton.LeftButton
            near = self.switch_rect(option.rect).adjusted(-12, -12, 12, 12).contains(event.position().toPoint())
            if not (left and near):
                return False
            if event.type() != QEvent.Type.MouseButtonRelease:
                return event.type() == QEvent.Type.MouseButtonDblClick
        elif not (isinstance(event, QKeyEvent) and event.key() in (Qt.Key.Key_Space, Qt.Key.Key_Select, Qt.Key.Key_Return)):
            return False
        checked = Qt.CheckState(index.data(Qt.ItemDataRole.CheckStateRole)) == Qt.CheckState.Checked
        state = Qt.CheckState.Unchecked if checked else Qt.CheckState.Checked
        return model.setData(index, state.value, Qt.ItemDataRole.CheckStateRole)


def row_height(line: int) -> int:
    """How high a row is, where a line of text is so high."""
    return round(line * 2.0) + 8


class SwitchList(QListWidget):
    """One row per thing that can be switched on, known by the id in ``ID``. ``switched`` says that another set is on."""

    switched = Signal()

    def __init__(self, object_name: str, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName(object_name)
        self.setAccessibleName(name)
        self.delegate = SwitchDelegate(self)
        self.setItemDelegate(self.delegate)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMouseTracking(True)
        self._reasons: dict[str, str] = {}
        self._on: set[str] = set()
        self.itemChanged.connect(self._on_changed)

    def add(self, thing_id: str, title: str) -> None:
        """One more row, switched off."""
        blocked = self.blockSignals(True)
        item = QListWidgetItem(title, self)
        item.setData(ID, thing_id)
        item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsUserCheckable)
        item.setCheckState(Qt.CheckState.Unchecked)
        self.blockSignals(blocked)

    def chosen(self) -> tuple[str, ...]:
        """Ids of the rows that are on, in the list's order."""
        return tuple(item.data(ID) for item in self.rows() if item.checkState() == Qt.CheckState.Checked)

    def choose(self, ids: Iterable[str]) -> None:
        """Switch exactly these on."""
        wanted = set(ids)
        for item in self.rows():
            item.setCheckState(Qt.CheckState.Checked if item.data(ID) in wanted else Qt.CheckState.Unchecked)

    def item_of(self, thing_id: str) -> QListWidgetItem:
        """The row of that id."""
        return next(item for item in self.rows() if item.data(ID) == thing_id)

    def rows(self) -> list[QListWidgetItem]:
        """All rows from the top."""
        return [self.item(row) for row in range(self.count())]

    def line(self, thing_id: str, on: bool) -> str:
        """The second line of a row that nothing speaks against."""
        return ""

    def tip(self, thing_id: str, line: str) -> str:
        """The tooltip's text behind the title."""
        return line

    def forget(self, thing_id: str) -> None:
        """A row was switched: what was said of it before is over."""

    def describe(self) -> None:
        """Bring every row's second line, tooltip and reachability up to date, without saying that something was switched."""
        blocked = self.blockSignals(True)
        for item in self.rows():
            thing_id, title = item.data(ID), item.text()
            reason = self._reasons.get(thing_id)
            on = item.checkState() == Qt.CheckState.Checked
            flags = item.flags() | Qt.ItemFlag.ItemIsEnabled
            item.setFlags(flags & ~Qt.ItemFlag.ItemIsEnabled if reason and not on else flags)
            line = reason or self.line(thing_id, on)
            item.setData(LINE, line)
            item.setToolTip(plain_tip(f"{title}: {self.tip(thing_id, line)}"))
            item.setData(Qt.ItemDataRole.AccessibleTextRole, f"{title}, {'on' if on else 'off'}")
            item.setData(Qt.ItemDataRole.AccessibleDescriptionRole, f"Not available: {reason}" if reason else line)
        self.blockSignals(blocked)
        self.viewport().update()

    def set_palette(self, palette: Palette) -> None:
        """Paint in other colours."""
        self.delegate.colours = palette
        self.fit_height()
        self.viewport().update()

    def fit_height(self) -> None:
        """As tall as its rows: the sidebar scrolls, the list does not."""
        rows = sum(self.sizeHintForRow(row) for row in range(self.count()) if not self.isRowHidden(row))
        if rows + 2 * self.frameWidth() != self.height() or self.minimumHeight() != self.height():
            self.setFixedHeight(rows + 2 * self.frameWidth())

    def _on_changed(self, item: QListWidgetItem) -> None:
        thing_id = item.data(ID)
        if thing_id in self._reasons and item.checkState() == Qt.CheckState.Checked and thing_id not in self._on:
            blocked = self.blockSignals(True)
            item.setCheckState(Qt.CheckState.Unchecked)  # a script may try what the mouse cannot
            self.blockSignals(blocked)
        self._on = set(self.chosen())
        self.forget(thing_id)
        self.describe()
        self.switched.emit()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self.fit_height()

    def showEvent(self, event: QShowEvent) -> None:
        # What was hidden has its font, and with it the height of its rows, only now.
        super().showEvent(event)
        self.fit_height()
