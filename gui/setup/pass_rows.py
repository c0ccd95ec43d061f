"""How the rows of the pass list are painted: headings that fold, badges, and a button where a package is missing."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QAbstractItemModel, QEvent, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontMetrics, QKeyEvent, QMouseEvent, QPainter
from PySide6.QtWidgets import QStyle, QStyleOptionViewItem, QWidget

from gui.setup.switch_list import ID, LINE, SECOND_LINE, SWITCH_WIDTH, Index, SwitchDelegate
from gui.theme import scaled

GROUP = ID + 2  # the title of the group that a heading is of
OPEN = ID + 3  # whether the group is unfolded
BADGE = ID + 4  # a word beside the title
BUTTON = ID + 5  # a word on a button that stands where the switch would be
TOGGLES = (Qt.Key.Key_Space, Qt.Key.Key_Select, Qt.Key.Key_Return, Qt.Key.Key_Enter)


class PassDelegate(SwitchDelegate):
    """Paints switches as ``SwitchDelegate`` does, and everything else that the pass list has.

    ``fold(group)`` and ``copy_command(pass id)`` are called when a heading or a button is pressed.
    """

    def __init__(self, passes: QWidget, fold: Callable[[str], None], copy_command: Callable[[str], None]) -> None:
        super().__init__(passes)
        self._fold, self._copy_command = fold, copy_command

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        if index.data(GROUP):
            self._paint_heading(painter, option, index)
        elif index.data(ID):
            super().paint(painter, option, index)

    def beside(self, index: Index) -> str:
        return str(index.data(BADGE) or "")

    def button_rect(self, row: QRect, option: QStyleOptionViewItem, text: str) -> QRect:
        """Where the button of a row is."""
        metrics = QFontMetrics(_small(option.font))
        width, height = metrics.horizontalAdvance(text) + 14, metrics.height() + 6
        return QRect(row.right() - width, row.center().y() - height // 2, width, height)

    def at_right(self, option: QStyleOptionViewItem, index: Index) -> int:
        text = index.data(BUTTON)
        return self.button_rect(option.rect, option, text).width() + 10 if text else SWITCH_WIDTH + 12

    def paint_right(self, painter: QPainter, option: QStyleOptionViewItem, index: Index, enabled: bool) -> None:
        text = index.data(BUTTON)
        if not text:
            super().paint_right(painter, option, index, enabled)
            return
        rect = self.button_rect(option.rect, option, text)
        painter.setFont(_small(option.font))
        painter.setPen(QColor(self.colours.border))
        painter.setBrush(QColor(self.colours.raised))
        painter.drawRoundedRect(QRectF(rect).adjusted(0.5, 0.5, -0.5, -0.5), 5, 5)
        painter.setPen(QColor(self.colours.text))
        painter.drawText(rect, Qt.AlignmentFlag.AlignCenter, text)

    def _paint_heading(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        """The group's name with an arrow at the left, and at the right what is on in it, or how many there are."""
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        row: QRect = option.rect
        if option.state & QStyle.StateFlag.State_HasFocus:
            painter.setPen(QColor(self.colours.accent))
            painter.drawRoundedRect(QRectF(row).adjusted(-3.5, 1.5, 2.5, -1.5), 5, 5)
        small = _small(option.font)
        bold = QFont(small)
        bold.setWeight(QFont.Weight.DemiBold)
        middle = Qt.AlignmentFlag.AlignVCenter
        painter.setFont(bold)
        painter.setPen(QColor(self.colours.text))
        arrow = "▾" if index.data(OPEN) else "▸"
        painter.drawText(row, Qt.AlignmentFlag.AlignLeft | middle, arrow)
        name = row.adjusted(15, 0, 0, 0)
        title = str(index.data(GROUP))
        painter.drawText(name, Qt.AlignmentFlag.AlignLeft | middle, title)
        painter.setFont(small)
        on = bool(index.data(BADGE))
        painter.setPen(QColor(self.colours.accent if on else self.colours.muted))
        room = name.adjusted(QFontMetrics(bold).horizontalAdvance(title) + 14, 0, 0, 0)
        shown = QFontMetrics(small).elidedText(str(index.data(LINE) or ""), Qt.TextElideMode.ElideRight, room.width())
        painter.drawText(room, Qt.AlignmentFlag.AlignRight | middle, shown)
        painter.restore()

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        if index.data(GROUP):
            return QSize(180, heading_height(QFontMetrics(option.font).height()))
        wanted = index.data(Qt.ItemDataRole.SizeHintRole)
        return wanted if wanted is not None else super().sizeHint(option, index)

    def editorEvent(self, event: QEvent, model: QAbstractItemModel, option: QStyleOptionViewItem, index: Index) -> bool:
        group, button = index.data(GROUP), index.data(BUTTON)
        if not group and not button:
            return super().editorEvent(event, model, option, index)
        if isinstance(event, QMouseEvent):
            inside = group or self.button_rect(option.rect, option, button).contains(event.position().toPoint())
            if not inside or event.button() != Qt.MouseButton.LeftButton or event.type() != QEvent.Type.MouseButtonRelease:
                return False
        elif not (isinstance(event, QKeyEvent) and event.key() in TOGGLES):
            return False
        if group:
            self._fold(group)
        else:
            self._copy_command(index.data(ID))
        return True


def heading_height(line: int) -> int:
    """How high a heading is, where a line of text is so high."""
    return line + 11


def _small(font: QFont) -> QFont:
    small = scaled(font, SECOND_LINE)
    small.setWeight(QFont.Weight.Normal)
    return small
