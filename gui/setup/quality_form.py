"""Whether and on what the quality cost of the passes is measured: a switch, and its texts folded away below it."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QCheckBox, QHBoxLayout, QVBoxLayout, QWidget

from core.config import QualityConfig
from gui.plain import plain_tip
from gui.setup.disclosure import Disclosure
from gui.setup.field_box import FieldBox, spin_box
from gui.setup.file_box import FileBox

EXPLAINED = "Compare the optimized model with the unoptimized one on a text, after the speed was measured; needs a while"
NOTHING = "Switch a pass on: without one nothing changes, and there is no cost to measure"
LEAST_TOKENS, MOST_TOKENS = 16, 1_000_000


class QualityForm(QWidget):
    """``config(has_passes)`` is None where nothing is to be measured."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.check = QCheckBox("Measure the quality cost")
        self.check.setObjectName("qualityCheck")
        self.check.setChecked(True)
        self._options = QWidget()
        self.more = Disclosure(
            "qualityMore", "Text", "The text, the labelled examples and how much of them", self._options, self
        )
        self.text = FileBox(
            "Text",
            "qualityText",
            "text file",
            "Text (*.txt *.md);;All files (*)",
            "the text that comes with Tickscope",
            "What both models read: plain text; empty takes the text that comes with Tickscope",
        )
        self.labels = FileBox(
            "Labelled examples",
            "qualityLabels",
            "labelled file",
            "Labelled examples (*.csv *.jsonl);;All files (*)",
            "none",
            "CSV or JSONL with a label for each example: gives the accuracy of classifiers",
        )
        self.tokens = spin_box("qualityTokensSpin", LEAST_TOKENS, MOST_TOKENS, QualityConfig.tokens)
        self._tokens_box = FieldBox("Most tokens", self.tokens, "How much of the text is read; more is surer and slower")
        head = QHBoxLayout()
        head.setSpacing(6)
        head.addWidget(self.check)
        head.addStretch(1)
        head.addWidget(self.more)
        self.more.show()
        inside = QVBoxLayout(self._options)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.setSpacing(6)
        for box in (self.text, self.labels, self._tokens_box):
            inside.addWidget(box)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(head)
        column.addWidget(self._options)
        self.check.toggled.connect(lambda _on: self.changed.emit())
        self.text.changed.connect(self.changed)
        self.labels.changed.connect(self.changed)
        self.tokens.valueChanged.connect(lambda _value: self.changed.emit())
        self.set_passes(False)

    def config(self, has_passes: bool) -> QualityConfig | None:
        """What to measure on; ``ValueError`` with a sentence where a file is not there."""
        if not has_passes or not self.check.isChecked():
            return None
        return QualityConfig(self.text.path(), self.labels.path(), self.tokens.value())

    def show_config(self, config: QualityConfig | None, has_passes: bool) -> None:
        """Fill the form; that a run without passes measured none says nothing about the next one."""
        if config is None:
            if has_passes:
                self.check.setChecked(False)
            return
        self.check.setChecked(True)
        self.text.show_path(config.text)
        self.labels.show_path(config.labels)
        self.tokens.setValue(config.tokens)

    def set_passes(self, has_passes: bool) -> None:
        """Without passes there is nothing to measure."""
        self.check.setEnabled(has_passes)
        said = EXPLAINED if has_passes else NOTHING
        self.check.setToolTip(plain_tip(said))
        self.check.setAccessibleDescription(said)
