"""The text as it is generated: the prompt in a quiet colour, what the model adds in the colour of text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PySide6.QtGui import QColor, QFont, QFontDatabase, QTextCharFormat, QTextCursor
from PySide6.QtWidgets import QTextEdit, QWidget

from core.models.base import TASKS, generates
from core.notices import Status
from core.records.run import Run
from gui.charts.card import START_HINT, Card, start_hint
from gui.theme import Palette, scaled
from gui.views.live.speculation import SpeculationStrip
from profilers.trace import Tag

MOST_CHARACTERS = 200_000
CARET = "▌"
NEAR_END = 4  # pixels
STARTS = f"{START_HINT}: the generated text appears here."
IMPORTED = "An imported trace has times and operators, but no text."


class OutputCard(Card):
    """Appends only what is new, so that a long text costs no more than a short one."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Output", "outputCard", parent)
        self.text = QTextEdit(self)
        self.text.setObjectName("outputText")
        self.text.setAccessibleName("Generated text")
        self.text.setReadOnly(True)
        self.text.setUndoRedoEnabled(False)
        self.text.setFrameShape(QTextEdit.Shape.NoFrame)
        self.text.setStyleSheet("QTextEdit { background: transparent; border: none; padding: 0; }")
        self.text.document().setDocumentMargin(0)
        self.text.setTabChangesFocus(True)
        self._hint = STARTS
        self.text.setPlaceholderText(STARTS)
        self._follows = True  # until someone scrolls up: the answer stays in sight, also where the card gets lower
        self.text.verticalScrollBar().valueChanged.connect(self._on_scrolled)
        self.text.verticalScrollBar().rangeChanged.connect(self._on_range)
        self.speculation = SpeculationStrip(self)
        self.box.addWidget(self.text, 1)
        self.box.addWidget(self.speculation)
        self._prompt = ""
        self._generated = ""
        self._caret = False
        self._quiet = QTextCharFormat()
        self._loud = QTextCharFormat()

    @property
    def generated(self) -> str:
        """What the model said, as it is on show."""
        return self._generated

    def say_status(self, status: Status) -> None:
        """Nobody is told to load a model while one is loaded, or to run it while it runs."""
        self._hint = start_hint(STARTS, status) if status.state in ("idle", "ready") else ""
        self.text.setPlaceholderText(self._hint)

    def show_run(self, run: Run | None, live_text: str | None = None) -> None:
        """The latest output of the run, or ``live_text`` while one is being generated."""
        if run is None:
            self._write("", "", False)
            self.set_note("")
            return
        running = run.facts.status == "running"
        self.text.setPlaceholderText(IMPORTED if run.facts.status == "imported" else self._hint)
        self._write(_prompt(run), _said(run) if live_text is None else live_text, running)
        self.set_note(progress_text(run))

    def show_speculation(self, found: Mapping[str, Any] | None) -> None:
        """How well tokens were guessed, below the text; None: none were."""
        self.speculation.show_speculation(found)

    def set_palette(self, palette: Palette) -> None:
        self.speculation.set_palette(palette)
        family = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont).family()
        font = QFont(family)
        font.setStyleHint(QFont.StyleHint.Monospace)
        font.setPixelSize(scaled(self.font(), 0.92, least=10).pixelSize())
        self._quiet.setForeground(QColor(palette.muted))
        self._loud.setForeground(QColor(palette.text))
        self._loud.setFont(font)
        prompt, generated, caret = self._prompt, self._generated, self._caret
        self._write("", "", False)
        self._write(prompt, generated, caret)

    def _write(self, prompt: str, generated: str, caret: bool) -> None:
        generated = generated[-MOST_CHARACTERS:]
        if (prompt, generated, caret) == (self._prompt, self._generated, self._caret):
            return
        cursor = QTextCursor(self.text.document())
        cursor.movePosition(QTextCursor.MoveOperation.End)
        if self._caret:
            cursor.deletePreviousChar()
        if prompt == self._prompt and generated.startswith(self._generated):
            cursor.insertText(generated[len(self._generated) :], self._loud)
        else:
            cursor.select(QTextCursor.SelectionType.Document)
            cursor.removeSelectedText()
            cursor.insertText(prompt, self._quiet)
            cursor.insertText(generated, self._loud)
        if caret:
            cursor.insertText(CARET, self._loud)
        self._prompt, self._generated, self._caret = prompt, generated, caret

    def _on_scrolled(self, value: int) -> None:
        self._follows = value >= self.text.verticalScrollBar().maximum() - NEAR_END

    def _on_range(self, _least: int, most: int) -> None:
        if self._follows:
            self.text.verticalScrollBar().setValue(most)


def progress_text(run: Run) -> str:
    """``repeat 4 · 41 of 64 tokens``, or how the last request ended."""
    requests, moments = run.trace.requests, run.trace.moments
    count = len(requests["tags"])
    if not count or run.facts.status == "imported":
        return ""
    warmups = int(((requests["tags"] & int(Tag.WARMUP)) != 0).sum())
    tags = int(requests["tags"][-1])
    if tags & int(Tag.PROFILED):
        if run.facts.status == "running" or count == 1:
            return "profiled request"
        count -= 1  # the text is that of the request before
        tags = int(requests["tags"][count - 1])
    name = f"warm-up {count}" if tags & int(Tag.WARMUP) else f"repeat {count - warmups}"
    encoder = run.facts.model is not None and not generates(run.facts.model.task)
    if encoder:
        planned = run.config.workload.repeats
        return name if planned is None else f"{name} of {planned}"
    done = int(((moments["request"] == count - 1) & (moments["latency_ns"] >= 0)).sum())
    return f"{name} · {done} of {run.config.workload.new_tokens} tokens"


def _prompt(run: Run) -> str:
    workload = run.config.workload
    if run.facts.status == "imported":
        return ""
    task = TASKS.get(run.facts.model.task) if run.facts.model is not None else None
    modality = "text" if task is None else task.modality
    text = workload.prompt if workload.prompt_tokens is None else f"[{workload.prompt_tokens} random tokens]"
    if run.facts.given:  # as it reached the model: in its chat template, or several prompts
        numbered = (f"{number}: {one}" for number, one in enumerate(run.facts.given, 1))
        text = run.facts.given[0] if len(run.facts.given) == 1 else "\n".join(numbered) + "\n"
    image = f"[{Path(workload.image).name if workload.image else 'made-up image'}]"
    sound = f"[{Path(workload.audio).name if workload.audio else 'made-up sound'}]"
    given = {"image": image, "image-text": f"{image}\n{text}", "speech": sound, "tensors": "[made-up tensors]"}
    return given.get(modality, text)


def _continues(run: Run) -> bool:
    """Whether the output is the rest of the prompt, and not an answer to what was given."""
    return run.facts.model is None or run.facts.model.task == "text-generation"


def _said(run: Run) -> str:
    """What the latest finished request produced: text, or token numbers, or an encoder's values."""
    if not run.trace.outputs:
        return ""
    output = run.trace.outputs[-1]
    if output.text is not None and (output.text or not output.values):
        return output.text if _continues(run) else f"\n{output.text}"
    if output.values:
        shown = ", ".join(f"{value:.4f}" for value in output.values[:64])
        return f"\n[{shown}{', …' if len(output.values) > 64 else ''}] ({len(output.values)} values)"
    return "\n" + " ".join(str(token) for token in output.token_ids)
