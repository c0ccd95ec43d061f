"""Paints the bar behind a layer's share of the moment."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRectF, Qt
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import QStyledItemDelegate, QStyleOptionViewItem, QWidget

from gui.theme import Palette
from gui.views.layers.layer_model import BAR_ROLE


class ShareDelegate(QStyledItemDelegate):
    """A bar behind the number: solid for the layer's own share, pale for the share with everything inside it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.palette_in_use: Palette | None = None

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> None:
        super().paint(painter, option, index)
        palette = self.palette_in_use
        if palette is None:
            return
        own, total, stage = index.data(BAR_ROLE)
        colour = QColor(palette.stages.get(stage, palette.muted))
        room = option.rect.adjusted(8, 0, -66, 0)
        if room.width() < 10:
            return
        line = QRectF(room.left(), room.center().y() - 3, room.width(), 7)
        painter.save()
        painter.setPen(Qt.PenStyle.NoPen)
        for share, alpha in ((total, 70), (own, 255)):
            if share > 0:
                colour.setAlpha(alpha)
                painter.setBrush(colour)
                painter.drawRect(QRectF(line.left(), line.top(), max(1.0, line.width() * min(1.0, share)), line.height()))
        painter.restore()
