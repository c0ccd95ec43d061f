"""The card that says what an A/B test has found so far: one large sentence a side, and each metric with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtGui import QFont
from PySide6.QtWidgets import QGridLayout, QSizePolicy, QVBoxLayout, QWidget

from core.analysis import metrics
from core.analysis.word import Word
from gui.plain import Label, plain_tip
from gui.theme import Palette, scaled
from gui.views import ab_test_text, quality_text
from gui.views.ab_test_text import NAMES
from gui.views.fitted import FittedCard

if TYPE_CHECKING:
    from core.analysis.verdict import SideVerdict, Verdict
    from core.execution.ab_test_state import ABTestState

COLOURS = {Word.FASTER: "good", Word.SLOWER: "warn", Word.UNDECIDED: "muted"}
HEADS = ("", "Time, side ÷ A (95 %)", "Verdict", "Pairs")
PAIR = (
    "A pair is one round in which this side and A were both measured clean. For TPOT a long request gives a pair for each "
    "stretch of its tokens, so there can be more pairs than rounds; rounds that were traced or disturbed give none."
)


class VerdictCard(FittedCard):
    """Words first: colours only repeat what signs and words say."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("trialVerdict")
        self.palette_in_use: Palette | None = None
        self._state: ABTestState | None = None
        self.headlines = [_label(self, name=f"trialHeadline{name}", wrap=True) for name in NAMES[1:4]]
        self.details = [_label(self, "muted", f"trialDetail{name}", wrap=True) for name in NAMES[1:4]]
        self.progress = _label(self, "muted", "trialProgress", wrap=True)
        self.sides = _label(self, "muted", "trialSides", wrap=True)
        self.floor = _label(self, "muted", "trialFloor", wrap=True)
        self.why = _label(self, "muted", "trialWhy", wrap=True)
        self.quality = _label(self, "muted", "trialQuality", wrap=True)
        self._grid = QGridLayout()
        self._grid.setHorizontalSpacing(14)
        self._grid.setVerticalSpacing(3)
        self._grid.setColumnStretch(2, 1)
        self._cells: list[list[Label]] = []
        column = QVBoxLayout(self)
        column.setContentsMargins(14, 10, 12, 12)
        column.setSpacing(4)
        for head, detail in zip(self.headlines, self.details, strict=True):
            column.addWidget(head)
            column.addWidget(detail)
        for label in (self.progress, self.sides):
            column.addWidget(label)
        column.addSpacing(4)
        column.addLayout(self._grid)
        column.addSpacing(4)
        for label in (self.floor, self.quality, self.why):
            column.addWidget(label)
        column.addStretch(1)

    def show_trial(self, state: ABTestState) -> None:
        """Say what is known now. Labels change only where their text does."""
        self._state = state
        heads = ab_test_text.headlines(state)
        for number, (label, detail) in enumerate(zip(self.headlines, self.details, strict=True)):
            head = heads[number] if number < len(heads) else None
            label.setVisible(head is not None)
            detail.setVisible(head is not None and bool(head.detail))
            if head is not None:
                _set(label, head.text)
                _set(detail, head.detail)
                self._colour(label, head.word)
        size = 1.7 if len(heads) == 1 and len(heads[0].text) < 34 else 1.25
        for label in self.headlines:
            _scale(label, self.font(), size)
        _set(self.progress, ab_test_text.progress(state))
        _set(self.sides, "\n".join(ab_test_text.side_lines(state.config.sides)))
        _set(self.floor, ab_test_text.floor_text(state))
        main = [verdict.main for verdict in state.verdicts]
        why = [f"{NAMES[number]}: {one.why}" for number, one in enumerate(main, 1) if one is not None]
        _set(self.why, "" if state.config.same else "\n".join(why))
        self.why.setVisible(bool(self.why.text()))
        _set(self.quality, ab_test_text.quality_costs(state))
        self.quality.setToolTip(quality_text.DEFINITION)
        self.quality.setVisible(not state.config.same)
        self._show_metrics(state)
        self.fit()
        self.setAccessibleName(". ".join(text for head in heads for text in (head.text, head.detail) if text))

    def set_palette(self, palette: Palette) -> None:
        """Repaint in other colours."""
        self.palette_in_use = palette
        if self._state is not None:
            self.show_trial(self._state)

    def rows(self) -> list[list[str]]:
        """The texts of the metric table as they stand, for tests and readers of screens."""
        return [[cell.text() for cell in row] for row in self._cells if not row[0].isHidden()]

    def _show_metrics(self, state: ABTestState) -> None:
        rows: list[tuple[tuple[str, ...], Word | None, str]] = [(HEADS, None, "")]
        for side in state.verdicts:
            rows += [self._row(state, side, one) for one in side.metrics.values()]
        if len(rows) == 1:
            rows = []
        while len(self._cells) < len(rows):
            made = [_label(self, "muted" if not self._cells or not at else "") for at in range(len(HEADS))]
            for at, cell in enumerate(made):
                self._grid.addWidget(cell, len(self._cells), at)
            self._cells.append(made)
        for number, cells in enumerate(self._cells):
            for at, cell in enumerate(cells):
                cell.setVisible(number < len(rows))
                if number < len(rows):
                    texts, word, tip = rows[number]
                    _set(cell, texts[at])
                    cell.setToolTip(plain_tip(PAIR if HEADS[at] == "Pairs" else tip))
                    if at == 2 and number:
                        self._colour(cell, word)

    def _row(self, state: ABTestState, side: SideVerdict, verdict: Verdict) -> tuple[tuple[str, ...], Word | None, str]:
        name = metrics.title(verdict.metric)
        if len(state.config.sides) > 2:
            name = f"{NAMES[side.side]}  {name}"
        texts = (name, ab_test_text.interval(verdict), ab_test_text.judged(verdict), str(verdict.n))
        return texts, verdict.word, f"{metrics.explained(verdict.metric)} {verdict.why}"

    def _colour(self, label: Label, word: Word | None) -> None:
        if self.palette_in_use is not None:
            wanted = getattr(self.palette_in_use, COLOURS[word] if word is not None else "text")
            if label.property("wordColour") != wanted:
                label.setProperty("wordColour", wanted)
                label.setStyleSheet(f"color: {wanted};")


def _label(parent: QWidget, role: str = "", name: str = "", *, wrap: bool = False) -> Label:
    label = Label(parent)
    label.setObjectName(name)
    label.setProperty("role", role)
    label.setWordWrap(wrap)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
    return label


def _set(label: Label, text: str) -> None:
    if label.text() != text:
        label.setText(text)


def _scale(label: Label, base: QFont, factor: float) -> None:
    font = scaled(base, factor)
    font.setWeight(QFont.Weight.DemiBold)
    if label.font() != font:
        label.setFont(font)
