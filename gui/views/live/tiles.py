"""The tiles above the charts: the headline numbers of a run, each with what it is, how sure it is, or why it is missing."""

from __future__ import annotations

import re

from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QFont, QFontInfo, QFontMetrics, QResizeEvent
from PySide6.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from core import units
from core.notices import Status
from core.records.run import Run
from gui.plain import Label, markup, unbroken
from gui.theme import Palette, scaled
from gui.views.live.tile_readings import FIRST, IMPORTED, NO_RUN, Json, Reading, Spec, missing, specs

TILE_WIDTH = 104  # ten of them stand side by side in a window of 1440, most important first
SUB_LINES, REASON_LINES = 2, 4
CLAUSE = re.compile(r"[;,(:]")  # where a sentence may end early
WARM_UP = "warm-up"
TOO_LONG = "not measured; hover for the reason"
VALUE_SCALE, LEAST_VALUE_SCALE = 1.72, 1.1


class Tile(QFrame):
    """One headline number."""

    def __init__(self, spec: Spec, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.spec = spec
        self.reading = Reading("", "", "")
        self.setObjectName(spec.name)
        self.setProperty("card", True)
        self.setAccessibleName(spec.label)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.label = Label(spec.label, self)
        self.label.setProperty("role", "muted")
        self.value = Label(self)
        self.unit = Label(self)
        self.unit.setProperty("role", "muted")
        self.sub = Label(self)
        self.sub.setProperty("role", "muted")
        self.reason = Label(self)  # instead of value and line below: as many lines as those two are high
        self.reason.setProperty("role", "muted")
        self.reason.setTextFormat(Qt.TextFormat.PlainText)
        self.reason.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self.sub.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        for label in (self.label, self.sub, self.reason):
            label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        line = QHBoxLayout()
        line.setSpacing(5)
        line.addWidget(self.value, 0, Qt.AlignmentFlag.AlignBottom)
        line.addWidget(self.unit, 1, Qt.AlignmentFlag.AlignBottom)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 4, 5)
        layout.setSpacing(1)
        layout.addWidget(self.label)
        layout.addLayout(line)
        layout.addWidget(self.reason)
        layout.addWidget(self.sub)
        layout.addStretch(1)
        self._palette: Palette | None = None
        self._value_pixels = 0
        self.setMinimumWidth(TILE_WIDTH)
        self.show_reading(missing(NO_RUN))

    def show_summary(self, summary: Json | None, run: Run | None = None) -> None:
        """The tile's number from a run and its summary; None: there is no run."""
        reading = missing(NO_RUN) if summary is None else self.spec.read(summary)
        if run is not None and self.spec.of_run is not None:
            reading = self.spec.of_run(run)
        if summary is not None and summary.get("status") == "imported" and reading.value == units.DASH:
            reading = missing(IMPORTED)
        self.show_reading(reading)

    def show_reading(self, reading: Reading) -> None:
        """Put a reading on the tile; costs nothing while it stays the same."""
        if reading == self.reading:
            return
        tone_changed = reading.tone != self.reading.tone
        self.reading = reading
        self.value.setText(reading.value)
        self.unit.setText(reading.unit)
        absent = reading.value == units.DASH
        for label in (self.value, self.unit):
            label.setVisible(not absent)
        self.sub.setVisible(not absent or bool(reading.why))
        self.reason.setVisible(absent)
        self._fit_sub()
        said = f"{reading.value} {reading.unit}".strip() if not absent else "not measured"
        if reading.provisional:
            said += f" ({WARM_UP}: not what counts)"
        below = "; ".join(text for text in (reading.detail or reading.why, reading.sub) if text)
        self.setAccessibleDescription(f"{said}, {below}. {self.spec.definition}")
        self.setToolTip(markup("<b>{}</b>: {}<br>{}<br><br>{}", self.spec.label, said, below, self.spec.definition))
        if tone_changed or self.property("provisional") != reading.provisional:
            self.setProperty("provisional", reading.provisional)
            self._colour()

    def set_palette(self, palette: Palette) -> None:
        self._palette = palette
        font = scaled(self.font(), VALUE_SCALE)
        font.setBold(True)
        self.value.setFont(font)
        self._colour()
        self._fit_sub()

    def _base_pixels(self) -> float:
        return QFontInfo(self.font()).pixelSize()

    def _colour(self) -> None:
        palette = self._palette
        if palette is not None:
            colour = {"good": palette.good, "warn": palette.warn}.get(self.reading.tone, palette.text)
            if self.reading.provisional:
                colour = palette.muted
            size = self._value_pixels or round(self._base_pixels() * VALUE_SCALE)
            self.value.setStyleSheet(f"color: {colour}; font-size: {size}px; font-weight: 600;")

    def _fit_value(self, room: int) -> None:
        """A value too wide for its tile is written smaller rather than cut."""
        font = QFont(self.value.font())
        font.setWeight(QFont.Weight.DemiBold)
        most, least = round(self._base_pixels() * VALUE_SCALE), round(self._base_pixels() * LEAST_VALUE_SCALE)
        beside = self.unit.sizeHint().width() + 6 if self.reading.unit else 0
        for size in range(most, least - 1, -1):
            font.setPixelSize(size)
            if QFontMetrics(font).horizontalAdvance(self.reading.value) + beside <= room:
                break
        if size != self._value_pixels:
            self._value_pixels = size
            self._colour()

    def _fit_sub(self) -> None:
        """The line below, shortened where it does not fit; the whole of it is in the tooltip."""
        room = max(20, self.width() - 14)
        self._fit_value(room)
        metrics = self.sub.fontMetrics()
        line = metrics.height()
        why, below = self.reading.why or self.reading.sub, bool(self.reading.why)
        told = f"{WARM_UP} · {self.reading.sub}" if self.reading.provisional else self.reading.sub
        self.sub.setText(in_parts(told, metrics, room, 1 if below else SUB_LINES))
        # As high as what it stands for, so that a tile does not change its height with its first number.
        height = max(self.value.sizeHint().height() + 1 + SUB_LINES * line, REASON_LINES * line)
        self.reason.setFixedHeight(height - (1 + line if below else 0))
        self.setMinimumHeight(self.label.sizeHint().height() + 1 + height + 13)
        reason = wrapped(f"{units.DASH} {why}", metrics, room, REASON_LINES - below)
        if reason.endswith("…"):
            reason = wrapped(f"{units.DASH} {TOO_LONG}", metrics, room, REASON_LINES - below)
        self.reason.setText(reason)

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange) and hasattr(self, "_palette"):
            self._fit_sub()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit_sub()


class Tiles(QWidget):
    """All tiles in as many columns as fit."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.tiles = [Tile(spec, self) for spec in specs()]
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(5)
        self._columns = 0
        self.arrange(len(self.tiles))

    def fit_width(self, width: int) -> None:
        """Lay the tiles out in as many columns as fit ``width``, no row much shorter than the others."""
        room = (width + self._grid.horizontalSpacing()) // (TILE_WIDTH + self._grid.horizontalSpacing())
        rows = -(-len(self.tiles) // max(1, room))
        self.arrange(-(-len(self.tiles) // rows))

    def arrange(self, columns: int) -> None:
        """Lay the tiles out in so many columns."""
        columns = max(1, min(columns, len(self.tiles)))
        if columns == self._columns:
            return
        for column in range(self._columns):
            self._grid.setColumnStretch(column, 0)
        self._columns = columns
        for order, tile in enumerate(self.tiles):
            self._grid.addWidget(tile, order // columns, order % columns)
        for column in range(columns):
            self._grid.setColumnStretch(column, 1)

    def say_status(self, status: Status) -> None:
        """Where there is no number yet: that one is to come."""
        why = NO_RUN if status.state in ("idle", "ready", "loading") else FIRST
        for tile in self.tiles:
            if tile.reading in (missing(NO_RUN), missing(FIRST)):
                tile.show_reading(missing(why))

    def show_summary(self, summary: Json | None, run: Run | None = None) -> None:
        """The numbers of a run, or none."""
        for tile in self.tiles:
            tile.show_summary(summary, run)

    def set_palette(self, palette: Palette) -> None:
        for tile in self.tiles:
            tile.set_palette(palette)


def in_parts(text: str, metrics: QFontMetrics, width: int, most_lines: int) -> str:
    """``text`` broken between its parts ("a · b"), which stay whole as long as they can; what has no room is left out."""
    lines: list[str] = []
    for part in text.split(" · "):
        longer = f"{lines[-1]} · {part}" if lines else part
        if lines and metrics.horizontalAdvance(longer) <= width:
            lines[-1] = longer
        elif not lines and metrics.horizontalAdvance(part) > width:
            lines = wrapped(part, metrics, width, most_lines).split("\n")
        elif len(lines) < most_lines and metrics.horizontalAdvance(part) <= width:
            lines.append(part)
        else:
            break  # the first say most, and all of it is in the tooltip
    return "\n".join(lines)


def wrapped(text: str, metrics: QFontMetrics, width: int, most_lines: int) -> str:
    """``text`` in lines that fit ``width``. Where there are too many it ends after a clause, or else in dots."""
    shown = _broken(text, metrics, width, most_lines)
    ends = [found.start() for found in CLAUSE.finditer(text)]
    ends = [end for end in ends if text.count("(", 0, end) == text.count(")", 0, end)]  # none within brackets
    while shown.endswith("…") and ends:
        shorter = _broken(text[: ends.pop()].rstrip(), metrics, width, most_lines)
        shown = shown if shorter.endswith("…") else shorter
    return shown


def _broken(text: str, metrics: QFontMetrics, width: int, most_lines: int) -> str:
    lines: list[str] = []
    words = unbroken(text).split(" ")
    while words:
        if len(lines) == most_lines - 1:
            return "\n".join([*lines, metrics.elidedText(" ".join(words), Qt.TextElideMode.ElideRight, width)])
        taken = 1
        while taken < len(words) and metrics.horizontalAdvance(" ".join(words[: taken + 1])) <= width:
            taken += 1
        line = " ".join(words[:taken])
        lines.append(line if taken > 1 else metrics.elidedText(line, Qt.TextElideMode.ElideRight, width))
        words = words[taken:]
    return "\n".join(lines)
