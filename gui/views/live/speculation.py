"""How well tokens were guessed: the share that was accepted, and a small bar for each place in a guess."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QPainter
from PySide6.QtWidgets import QWidget

from core import units
from gui.charts.plot import Painted, small_font
from gui.plain import markup
from gui.theme import Palette

MOST_BARS = 16
BAR, GAP, HEIGHT = 16.0, 3.0, 26.0
DEFINITION = (
    "Accepted: guessed tokens that the model would have chosen itself, of all guessed ones. Tokens per check: how many tokens "
    "one forward of the model yielded, its own included; 1 would be no gain. Bars: the share of guesses that were right, by "
    "their place in the guess. Drafting: the share of the time that went into guessing."
)


class SpeculationStrip(Painted):
    """One line: words at the left, bars at the right; hidden where nothing was guessed."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("speculation")
        self.setToolTip(DEFINITION)
        self.texts: list[str] = []
        self.shares: list[float] = []
        self.palette_in_use: Palette | None = None
        self.setFixedHeight(round(HEIGHT) + 4)
        self.hide()

    def show_speculation(self, found: Mapping[str, Any] | None) -> None:
        """``summary["speculation"]``, or None."""
        accepted = None if found is None else found.get("accepted_share")
        self.setVisible(accepted is not None)
        if found is None or accepted is None:
            return
        texts = [f"Accepted {units.percent(accepted)} of guessed tokens"]
        if found.get("tokens_per_verify") is not None:
            texts.append(f"{found['tokens_per_verify']:.2f} tokens per check")
        if found.get("draft_share") is not None:
            texts.append(f"drafting {units.percent(found['draft_share'])} of the time")
        shares = _shares(found.get("by_position") or ())
        if (texts, shares) != (self.texts, self.shares):
            self.texts, self.shares = texts, shares
            self.setAccessibleName("Guessed tokens")
            by_place = ", ".join(f"{place}: {units.percent(one)}" for place, one in enumerate(shares, 1))
            self.setAccessibleDescription(f"{'; '.join(texts)}. By place in the guess: {by_place}")
            self.setToolTip(markup("{}<br><br>By place: {}", DEFINITION, by_place) if by_place else DEFINITION)
            self.update()

    def set_palette(self, palette: Palette) -> None:
        """Repaint in other colours."""
        self.palette_in_use = palette
        self.update()

    def draw(self, painter: QPainter) -> None:
        palette = self.palette_in_use
        if palette is None:
            return
        painter.setFont(small_font(self))
        metrics = QFontMetricsF(painter.font())
        bars = len(self.shares)
        taken = bars * (BAR + GAP) + 12 if bars else 0.0
        painter.setPen(QColor(palette.text))
        parts = list(self.texts)
        while len(parts) > 1 and metrics.horizontalAdvance(" · ".join(parts)) > self.width() - taken:
            parts.pop()
        line = QRectF(0, 0, self.width(), self.height())
        painter.drawText(line, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, " · ".join(parts))
        if metrics.horizontalAdvance(" · ".join(parts)) > self.width() - taken:
            return  # no room for both; the tooltip has the places
        left = self.width() - taken + 12
        base = self.height() - 3.0
        painter.setPen(Qt.PenStyle.NoPen)
        for place, one in enumerate(self.shares):
            at = left + place * (BAR + GAP)
            painter.setBrush(QColor(palette.grid))
            painter.drawRect(QRectF(at, base - HEIGHT + 2, BAR, HEIGHT - 2))
            painter.setBrush(QColor(palette.kinds["verify"]))
            painter.drawRect(QRectF(at, base - (HEIGHT - 2) * one, BAR, (HEIGHT - 2) * one))

    def sizeHint(self) -> QSize:
        return QSize(200, round(HEIGHT) + 4)


def _shares(values: Sequence[float | None]) -> list[float]:
    return [min(1.0, max(0.0, float(value or 0.0))) for value in values][:MOST_BARS]
