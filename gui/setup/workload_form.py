"""What is asked of the model: prompt or token count, new tokens, batch, repeats and warm-up."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtGui import QFontMetrics
from PySide6.QtWidgets import QGridLayout, QPlainTextEdit, QVBoxLayout, QWidget

from core.config import WorkloadConfig
from gui.setup.field_box import FieldBox, spin_box

MOST_TOKENS = 1_000_000
AUTO_REPEATS, AUTO_WARMUP = 0, -1  # below what can be asked for: the spin boxes show them as "auto"
REPEATS_HINT = "How many measured requests; auto stops once the latency is known well enough, and says why it stopped"
WARMUP_HINT = "Requests before those that count; auto goes on until the last three agree within 5 %; 0 is none"


class PromptEdit(QPlainTextEdit):
    """Three lines of plain text; Tab leaves it."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("promptEdit")
        self.setTabChangesFocus(True)
        self.setPlaceholderText("What the model continues")
        self.document().setDocumentMargin(0)

    def fit_height(self) -> None:
        """Room for two lines of the text size in use."""
        self.setFixedHeight(2 * QFontMetrics(self.font()).lineSpacing() + 2)


class WorkloadForm(QWidget):
    """``config()`` gives the workload; ``ValueError`` with a sentence where it cannot be used."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        start = WorkloadConfig()
        self.prompt = PromptEdit()
        self.prompt.setPlainText(start.prompt)
        self.prompt_tokens = spin_box("promptTokensSpin", 0, MOST_TOKENS, 0, "prompt")
        self.new_tokens = spin_box("newTokensSpin", 1, MOST_TOKENS, start.new_tokens)
        self.batch = spin_box("batchSpin", 1, 4096, start.batch)
        self.repeats = spin_box("repeatsSpin", AUTO_REPEATS, 10_000, AUTO_REPEATS, "auto")
        self.warmup = spin_box("warmupSpin", AUTO_WARMUP, 1000, AUTO_WARMUP, "auto")
        self.prompt_box = FieldBox("Prompt", self.prompt, "The text that the model continues or encodes")
        boxes = (
            FieldBox("New tokens", self.new_tokens, "How many tokens to generate; encoders have no use for it"),
            FieldBox("Batch", self.batch, "How many sequences at once"),
            FieldBox("Repeats", self.repeats, REPEATS_HINT),
            FieldBox("Warm-up", self.warmup, WARMUP_HINT),
            FieldBox("Input tokens", self.prompt_tokens, "That many random tokens instead of the prompt; 0 uses the prompt"),
        )
        grid = QGridLayout()
        grid.setSpacing(6)
        for number, box in enumerate(boxes[:3]):
            grid.addWidget(box, 0, 2 * number, 1, 2)
        grid.addWidget(boxes[3], 1, 0, 1, 3)
        grid.addWidget(boxes[4], 1, 3, 1, 3)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(self.prompt_box)
        column.addLayout(grid)
        self.prompt.textChanged.connect(self._on_changed)
        for spin in (self.prompt_tokens, self.new_tokens, self.batch, self.repeats, self.warmup):
            spin.valueChanged.connect(self._on_changed)

    def config(self) -> WorkloadConfig:
        """The workload as written."""
        return WorkloadConfig(
            prompt=self.prompt.toPlainText(),
            prompt_tokens=self.prompt_tokens.value() or None,
            new_tokens=self.new_tokens.value(),
            batch=self.batch.value(),
            repeats=None if self.repeats.value() == AUTO_REPEATS else self.repeats.value(),
            warmup=None if self.warmup.value() == AUTO_WARMUP else self.warmup.value(),
        )

    def show_config(self, config: WorkloadConfig) -> None:
        """Fill the form."""
        self.prompt.setPlainText(config.prompt)
        self.prompt_tokens.setValue(config.prompt_tokens or 0)
        self.new_tokens.setValue(config.new_tokens)
        self.batch.setValue(config.batch)
        self.repeats.setValue(AUTO_REPEATS if config.repeats is None else config.repeats)
        self.warmup.setValue(AUTO_WARMUP if config.warmup is None else config.warmup)

    def set_generates(self, generates: bool) -> None:
        """Encoders have no new tokens."""
        self.new_tokens.setEnabled(generates)

    def _on_changed(self) -> None:
        self.prompt.setEnabled(self.prompt_tokens.value() == 0)
        self.prompt_box.set_invalid(self.prompt_tokens.value() == 0 and not self.prompt.toPlainText().strip())
        self.changed.emit()
