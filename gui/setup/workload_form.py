"""What is asked of the model: the fields that fit the kind of model, and how often."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtGui import QFontMetrics
from PySide6.QtWidgets import QComboBox, QGridLayout, QLineEdit, QPlainTextEdit, QSpinBox, QVBoxLayout, QWidget

from core.config import WorkloadConfig, WorkloadField, workload_fields
from core.errors import Refusal
from core.models.base import TASKS, generates
from core.prompt_set import read_prompts
from gui.plain import plain_tip
from gui.setup.disclosure import Disclosure
from gui.setup.field_box import FieldBox, FloatSpinBox, spin_box
from gui.setup.file_box import FileBox

ONE_PROMPT = "the prompt above"
MORE = "More"
IMAGES = "Images (*.png *.jpg *.jpeg *.webp *.bmp);;All files (*)"
SOUNDS = "Sound (*.wav *.flac *.mp3 *.ogg);;All files (*)"
PROMPT_SETS = "Prompts (*.txt *.jsonl);;All files (*)"
WITH_PROMPT = ("text", "image-text")
PROMPTS = {
    "question-answering": ("Context", "The text in which the answer is looked for"),
    "seq2seq": ("Text", "The text that the model turns into another"),
    "image-text": ("Prompt", "What is asked about the image"),
}

Editor = QSpinBox | FloatSpinBox | QComboBox


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
        self.task: str | None = None
        self._taken_over: tuple[str, ...] | None = None  # the prompts of a run, of which no file is known
        self._prompt_label = workload_fields()["prompt"].called
        self._build_inputs()
        self._build_small()
        self._grid, self._seldom_grid = _grid(), _grid()
        self._seldom = QWidget()
        beneath = QVBoxLayout(self._seldom)
        beneath.setContentsMargins(0, 0, 0, 0)
        beneath.setSpacing(6)
        beneath.addLayout(self._seldom_grid)
        beneath.addWidget(self.prompt_set)
        self.more = Disclosure(
            "workloadMore", MORE, "Warm-up, chat template, random input tokens and prompt sets", self._seldom, self
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        for box in (self.prompt_box, self.question_box, self.image, self.audio):
            column.addWidget(box)
        column.addLayout(self._grid)
        column.addWidget(self._seldom)
        self.prompt.textChanged.connect(self._on_changed)
        self.question.textChanged.connect(self._on_changed)
        self.prompt_set.changed.connect(self._on_prompt_set)
        self.image.changed.connect(self._on_changed)
        self.audio.changed.connect(self._on_changed)
        self.set_task(None)

    @property
    def has_prompt(self) -> bool:
        """Whether this kind of model is given text."""
        return self._modality in WITH_PROMPT

    @property
    def reads_prompt(self) -> bool:
        """Whether the model is given text that has to be made tokens of."""
        return self.has_prompt and self.prompt_tokens.value() == 0

    def want_tokens(self, wanted: bool, *, show: bool = True) -> None:
        """Mark the number of input tokens as what is missing, and unfold what it is in."""
        self._boxes["prompt_tokens"].set_invalid(wanted)
        if wanted and show:
            self.more.setChecked(True)

    def config(self) -> WorkloadConfig:
        """The workload as written; fields that this kind of model has no use for are left as they are by default."""
        image = self.image.path() if self._fits("images") else None
        audio = self.audio.path() if self._fits("sound") else None
        files = {"image": image, "audio": audio}
        small = {
            name: _read(editor, workload_fields()[name])
            for name, editor in self._editors.items()
            if self._of_use(name) and not any(files.get(other) for other in workload_fields()[name].unless)
        }
        return WorkloadConfig(
            prompt=self.prompt.toPlainText() if self.has_prompt else WorkloadConfig.prompt,
            question=self.question.text().strip() if self._asks else "",
            image=image,
            audio=audio,
            prompts=self._prompts() if self._takes_sets else None,
            **small,
        )

    def _fits(self, kind: str) -> bool:
        """Whether the kind of model that was chosen is one of ``WorkloadField.fits``."""
        known = {
            "text": self.has_prompt,
            "images": self._modality in ("image", "image-text"),
            "sound": self._modality == "speech",
            "questions": self._asks,
            "continues": self.task in (None, "text-generation"),
            "writes": generates(self.task),
        }
        return not kind or known[kind]

    def _of_use(self, name: str) -> bool:
        """Whether a field's number counts; how many tokens to write is kept for when a model that writes is chosen again."""
        kind = workload_fields()[name].fits
        return kind == "writes" or self._fits(kind)

    def _prompts(self) -> tuple[str, ...] | None:
        """Those of the file that is named, else those of the run that was taken over; ``Refusal`` if it cannot be read."""
        path = self.prompt_set.path()
        return read_prompts(path) if path is not None else self._taken_over

    def show_config(self, config: WorkloadConfig) -> None:
        """Fill the form."""
        self.prompt.setPlainText(config.prompt)
        self.prompt_set.show_path(None)
        self._taken_over = config.prompts
        self.prompt_set.line.setPlaceholderText(f"{len(config.prompts)} prompts" if config.prompts else ONE_PROMPT)
        for name, editor in self._editors.items():
            _write(editor, workload_fields()[name], getattr(config, name))
        self.question.setText(config.question)
        self.image.show_path(config.image)
        self.audio.show_path(config.audio)

    def set_task(self, task: str | None) -> None:
        """Show the fields that fit this task of ``core.models.base.TASKS``; None, while no model is known, those for text."""
        self.task = task
        self._modality = TASKS[task].modality if task is not None and task in TASKS else "text"
        self._asks = task == "question-answering"
        self._takes_sets = self._modality == "text" and not self._asks
        prompt = workload_fields()["prompt"]
        label, explanation = PROMPTS.get(task or "", (prompt.called, prompt.explained))
        self._prompt_label = label
        self.prompt_box.setToolTip(plain_tip(explanation))
        self.prompt.setToolTip(plain_tip(explanation))
        self.prompt.setAccessibleName(label)
        self.prompt_box.setVisible(self.has_prompt)
        self.prompt_set.setVisible(self._takes_sets)
        self.question_box.setVisible(self._asks)
        self.image.setVisible(self._fits("images"))
        self.audio.setVisible(self._fits("sound"))
        self.new_tokens.setEnabled(generates(task))
        for box in self._boxes.values():
            box.hide()
        placed = sorted((one for one in workload_fields().values() if one.place and self._fits(one.fits)), key=_place)
        self._arrange(self._grid, [one.name for one in placed if not one.seldom])
        self._arrange(self._seldom_grid, [one.name for one in placed if one.seldom])
        self._on_changed()

    def _build_inputs(self) -> None:
        self.prompt = PromptEdit()
        self.prompt.setPlainText(WorkloadConfig.prompt)
        asked = workload_fields()["prompt"]
        self.prompt_box = FieldBox(asked.called, self.prompt, asked.explained)
        self.question = QLineEdit()
        self.question.setObjectName("questionEdit")
        self.question.setTextMargins(-2, 0, 0, 0)
        self.question.setPlaceholderText("a question that comes with Tickscope")
        asked = workload_fields()["question"]
        self.question_box = FieldBox(asked.called, self.question, asked.explained)
        several = "Different prompts in one batch: a text file with one a line, or .jsonl. Empty gives the prompt above"
        self.prompt_set = FileBox("Prompt set", "promptSetEdit", "prompt file", PROMPT_SETS, ONE_PROMPT, several)
        made_up = "Empty takes a made-up one"
        self.image = FileBox("Image", "imageEdit", "image file", IMAGES, "made-up image", f"The picture to look at. {made_up}")
        self.audio = FileBox("Sound", "audioEdit", "sound file", SOUNDS, "made-up sound", f"The speech to hear. {made_up}")

    def _build_small(self) -> None:
        """The editors of all that is declared with a place in the form."""
        placed = sorted((one for one in workload_fields().values() if one.place), key=_place)
        self._editors: dict[str, Editor] = {one.name: _editor(one) for one in placed}
        self._boxes = {one.name: FieldBox(one.called, self._editors[one.name], one.explained, self) for one in placed}
        for editor in self._editors.values():
            changed = editor.currentIndexChanged if isinstance(editor, QComboBox) else editor.valueChanged
            changed.connect(self._on_changed)
        self.new_tokens, self.batch = self._whole("new_tokens"), self._whole("batch")
        self.repeats, self.warmup = self._whole("repeats"), self._whole("warmup")
        self.prompt_tokens, self.image_size = self._whole("prompt_tokens"), self._whole("image_size")
        self.chat, self.audio_seconds = self._editors["chat"], self._editors["audio_seconds"]

    def _whole(self, name: str) -> QSpinBox:
        editor = self._editors[name]
        assert isinstance(editor, QSpinBox)
        return editor

    def _arrange(self, grid: QGridLayout, wanted: list[str]) -> None:
        """Rows of up to three boxes; what is left over shares the last row."""
        while grid.count():
            grid.takeAt(0)
        across = 2 if len(wanted) == 4 else 3
        rows = [wanted[at : at + across] for at in range(0, len(wanted), across)]
        for number, row in enumerate(rows):
            width = 6 // len(row)
            for place, name in enumerate(row):
                grid.addWidget(self._boxes[name], number, place * width, 1, width)
                self._boxes[name].show()

    def _on_prompt_set(self) -> None:
        """Another file than that of the run that was taken over; the batch makes room for all of its prompts."""
        self._taken_over = None
        self.prompt_set.line.setPlaceholderText(ONE_PROMPT)
        try:
            prompts = self._prompts() if self.prompt_set.filled else None
        except Refusal:  # ``config`` says why
            prompts = None
        if prompts is not None:
            self.batch.setValue(max(self.batch.value(), len(prompts)))
        self._on_changed()

    def _seldom_set(self) -> int:
        """How many of the fields that are out of sight are not as they are by default."""
        of_set = self._takes_sets and (self.prompt_set.filled or self._taken_over is not None)
        declared = workload_fields()
        small = [
            _read(self._editors[name], one) != one.default
            for name, one in declared.items()
            if one.seldom and self._fits(one.fits)
        ]
        return sum((of_set, *small))

    def _on_changed(self) -> None:
        of_set = self._takes_sets and (self.prompt_set.filled or self._taken_over is not None)
        self.prompt.setEnabled(self.prompt_tokens.value() == 0 and not of_set)
        instead = f"{self.prompt_tokens.value():,} random tokens" if self.prompt_tokens.value() else "a prompt set"
        self.prompt_box.label.setText(
            self._prompt_label if self.prompt.isEnabled() else f"{self._prompt_label} · {instead} instead"
        )
        self.prompt_set.setEnabled(self.prompt_tokens.value() == 0)
        self.chat.setEnabled(self.prompt_tokens.value() == 0)
        empty = self.prompt_tokens.value() == 0 and not self.prompt.toPlainText().strip()
        self.prompt_box.set_invalid(self.has_prompt and empty)
        self.more.say(f"{MORE} · {self._seldom_set()} set" if self._seldom_set() else MORE)
        self.image_size.setEnabled(not self.image.filled)
        self.audio_seconds.setEnabled(not self.audio.filled)
        self.changed.emit()


def _grid() -> QGridLayout:
    """Six narrow columns, of which a row of two or three boxes takes equal parts."""
    grid = QGridLayout()
    grid.setSpacing(6)
    for place in range(6):
        grid.setColumnStretch(place, 1)
    return grid


def _place(one: WorkloadField) -> int:
    return one.place


def _editor(one: WorkloadField) -> Editor:
    """An editor for a field, which says by itself what None is called; it is a step below what can be asked for."""
    words = one.name.split("_")
    name = "".join([words[0], *(word.title() for word in words[1:])])
    if one.kind is bool:
        combo = QComboBox()
        combo.setObjectName(f"{name}Combo")
        for text, value in (*(((one.none, None),) if one.optional else ()), ("on", True), ("off", False)):
            combo.addItem(text, value)
        return combo
    if one.kind is float:
        number = FloatSpinBox((0.1,), optional=False)
        number.setObjectName(f"{name}Spin")
        number.setRange(_least(one), one.maximum or 0.0)
        number.setSpecialValueText(one.none)
        return number
    assert one.kind is int, f"{one.name} is a {one.kind}, for which there is no small field"
    start = _least(one) if one.default is None else one.default
    return spin_box(f"{name}Spin", int(_least(one)), int(one.maximum or 0), int(start), one.none)


def _least(one: WorkloadField) -> float:
    """The least that the editor shows, which stands for None where None is a value."""
    if one.kind is float:
        return 0.0
    return int(one.minimum or 0) - one.optional


def _read(editor: Editor, one: WorkloadField) -> Any:
    if isinstance(editor, QComboBox):
        return editor.currentData()
    return None if one.optional and editor.value() == _least(one) else editor.value()


def _write(editor: Editor, one: WorkloadField, value: Any) -> None:
    if isinstance(editor, QComboBox):
        editor.setCurrentIndex(max(0, editor.findData(value)))
    elif isinstance(editor, QSpinBox):
        editor.setValue(int(_least(one)) if value is None else value)
    else:
        editor.setValue(_least(one) if value is None else value)
