"""What is asked of the model: the fields that fit the kind of model, and how often."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtGui import QFontMetrics
from PySide6.QtWidgets import QComboBox, QGridLayout, QLineEdit, QPlainTextEdit, QSpinBox, QVBoxLayout, QWidget

from core.config import WorkloadConfig
from core.errors import Refusal
from core.models.base import TASKS, generates
from core.prompt_set import read_prompts
from gui.plain import plain_tip
from gui.setup.disclosure import Disclosure
from gui.setup.field_box import FieldBox, FloatSpinBox, spin_box
from gui.setup.file_box import FileBox

ONE_PROMPT = "the prompt above"
MORE = "More"
MOST_TOKENS = 1_000_000
AUTO_REPEATS, AUTO_WARMUP = 0, -1  # below what can be asked for: the spin boxes show them as "auto"
REPEATS_HINT = "How many measured requests; auto stops once the latency is known well enough, and says why it stopped"
WARMUP_HINT = "Requests before those that count; auto goes on until they get no faster, 10 seconds at most; 0 is none"
IMAGES = "Images (*.png *.jpg *.jpeg *.webp *.bmp);;All files (*)"
SOUNDS = "Sound (*.wav *.flac *.mp3 *.ogg);;All files (*)"
PROMPT_SETS = "Prompts (*.txt *.jsonl);;All files (*)"
CHAT = (("auto", None), ("on", True), ("off", False))
CHAT_HINT = "Put prompts into the model's chat template; auto does so for instruct models that have one"
WITH_PROMPT = ("text", "image-text")
PROMPTS = {
    "question-answering": ("Context", "The text in which the answer is looked for"),
    "seq2seq": ("Text", "The text that the model turns into another"),
    "image-text": ("Prompt", "What is asked about the image"),
}
PROMPT = ("Prompt", "The text that the model continues or encodes")


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
        self._prompt_label = PROMPT[0]
        self._build_inputs()
        self._build_numbers()
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
        self.chat.currentIndexChanged.connect(self._on_changed)
        self.image.changed.connect(self._on_changed)
        self.audio.changed.connect(self._on_changed)
        for spin in self._spins.values():
            spin.valueChanged.connect(self._on_changed)
        self.set_task(None)

    @property
    def has_prompt(self) -> bool:
        """Whether this kind of model is given text."""
        return self._modality in WITH_PROMPT

    def config(self) -> WorkloadConfig:
        """The workload as written; fields that this kind of model has no use for are left as they are by default."""
        of_image, of_sound = self._modality in ("image", "image-text"), self._modality == "speech"
        image, audio = self.image.path() if of_image else None, self.audio.path() if of_sound else None
        return WorkloadConfig(
            prompt=self.prompt.toPlainText() if self.has_prompt else WorkloadConfig.prompt,
            prompt_tokens=(self.prompt_tokens.value() or None) if self.has_prompt else None,
            new_tokens=self.new_tokens.value(),
            batch=self.batch.value(),
            repeats=None if self.repeats.value() == AUTO_REPEATS else self.repeats.value(),
            warmup=None if self.warmup.value() == AUTO_WARMUP else self.warmup.value(),
            question=self.question.text().strip() if self._asks else "",
            image=image,
            image_size=(self.image_size.value() or None) if of_image and image is None else None,
            audio=audio,
            audio_seconds=(self.audio_seconds.value() or None) if of_sound and audio is None else None,
            prompts=self._prompts() if self._takes_sets else None,
            chat=self.chat.currentData() if self._continues else None,
        )

    def _prompts(self) -> tuple[str, ...] | None:
        """Those of the file that is named, else those of the run that was taken over; ``Refusal`` if it cannot be read."""
        path = self.prompt_set.path()
        return read_prompts(path) if path is not None else self._taken_over

    def show_config(self, config: WorkloadConfig) -> None:
        """Fill the form."""
        self.prompt.setPlainText(config.prompt)
        self.prompt_tokens.setValue(config.prompt_tokens or 0)
        self.prompt_set.show_path(None)
        self._taken_over = config.prompts
        self.prompt_set.line.setPlaceholderText(f"{len(config.prompts)} prompts" if config.prompts else ONE_PROMPT)
        self.chat.setCurrentIndex([value for _, value in CHAT].index(config.chat))
        self.new_tokens.setValue(config.new_tokens)
        self.batch.setValue(config.batch)
        self.repeats.setValue(AUTO_REPEATS if config.repeats is None else config.repeats)
        self.warmup.setValue(AUTO_WARMUP if config.warmup is None else config.warmup)
        self.question.setText(config.question)
        self.image.show_path(config.image)
        self.image_size.setValue(config.image_size or 0)
        self.audio.show_path(config.audio)
        self.audio_seconds.setValue(config.audio_seconds or 0)

    def set_task(self, task: str | None) -> None:
        """Show the fields that fit this task of ``core.models.base.TASKS``; None, while no model is known, those for text."""
        self.task = task
        self._modality = TASKS[task].modality if task is not None and task in TASKS else "text"
        self._asks = task == "question-answering"
        self._continues = task in (None, "text-generation")
        self._takes_sets = self._modality == "text" and not self._asks
        label, explanation = PROMPTS.get(task or "", PROMPT)
        self._prompt_label = label
        self.prompt_box.setToolTip(plain_tip(explanation))
        self.prompt.setToolTip(plain_tip(explanation))
        self.prompt.setAccessibleName(label)
        self.prompt_box.setVisible(self.has_prompt)
        self.prompt_set.setVisible(self._takes_sets)
        self.question_box.setVisible(self._asks)
        self.image.setVisible(self._modality in ("image", "image-text"))
        self.audio.setVisible(self._modality == "speech")
        self.new_tokens.setEnabled(generates(task))
        wanted = ["new_tokens"] if generates(task) else []
        wanted += ["batch", "repeats"]
        wanted += ["image_size"] if self._modality in ("image", "image-text") else []
        wanted += ["audio_seconds"] if self._modality == "speech" else []
        seldom = ["warmup"]
        seldom += ["chat"] if self._continues else []
        seldom += ["prompt_tokens"] if self.has_prompt else []
        for box in self._boxes.values():
            box.hide()
        self._arrange(self._grid, wanted)
        self._arrange(self._seldom_grid, seldom)
        self._on_changed()

    def _build_inputs(self) -> None:
        self.prompt = PromptEdit()
        self.prompt.setPlainText(WorkloadConfig.prompt)
        self.prompt_box = FieldBox(PROMPT[0], self.prompt, PROMPT[1])
        self.question = QLineEdit()
        self.question.setObjectName("questionEdit")
        self.question.setTextMargins(-2, 0, 0, 0)
        self.question.setPlaceholderText("a question that comes with Tickscope")
        self.question_box = FieldBox("Question", self.question, "What is asked about the context")
        several = "Different prompts in one batch: a text file with one a line, or .jsonl. Empty gives the prompt above"
        self.prompt_set = FileBox("Prompt set", "promptSetEdit", "prompt file", PROMPT_SETS, ONE_PROMPT, several)
        self.chat = QComboBox()
        self.chat.setObjectName("chatCombo")
        for text, value in CHAT:
            self.chat.addItem(text, value)
        made_up = "Empty takes a made-up one"
        self.image = FileBox("Image", "imageEdit", "image file", IMAGES, "made-up image", f"The picture to look at. {made_up}")
        self.audio = FileBox("Sound", "audioEdit", "sound file", SOUNDS, "made-up sound", f"The speech to hear. {made_up}")

    def _build_numbers(self) -> None:
        start = WorkloadConfig()
        self.prompt_tokens = spin_box("promptTokensSpin", 0, MOST_TOKENS, 0, "prompt")
        self.new_tokens = spin_box("newTokensSpin", 1, MOST_TOKENS, start.new_tokens)
        self.batch = spin_box("batchSpin", 1, 4096, start.batch)
        self.repeats = spin_box("repeatsSpin", AUTO_REPEATS, 10_000, AUTO_REPEATS, "auto")
        self.warmup = spin_box("warmupSpin", AUTO_WARMUP, 1000, AUTO_WARMUP, "auto")
        self.image_size = spin_box("imageSizeSpin", 0, 8192, 0, "auto")
        self.audio_seconds = FloatSpinBox((0.1,), optional=False)
        self.audio_seconds.setObjectName("audioSecondsSpin")
        self.audio_seconds.setRange(0.0, 3600.0)
        self.audio_seconds.setSpecialValueText("auto")
        tokens = "That many random tokens instead of the text; 0 uses the text"
        spins: dict[str, tuple[str, QSpinBox | FloatSpinBox, str]] = {
            "new_tokens": ("New tokens", self.new_tokens, "How many tokens to generate; encoders have no use for it"),
            "batch": ("Batch", self.batch, "How many inputs at once"),
            "repeats": ("Repeats", self.repeats, REPEATS_HINT),
            "warmup": ("Warm-up", self.warmup, WARMUP_HINT),
            "prompt_tokens": ("Input tokens", self.prompt_tokens, tokens),
            "image_size": ("Size, px", self.image_size, "Pixels a side of the made-up image; auto: what it is made for"),
            "audio_seconds": ("Seconds", self.audio_seconds, "Length of the made-up sound; auto: what the model is made for"),
        }
        self._spins = {name: spin for name, (_, spin, _) in spins.items()}
        self._boxes = {name: FieldBox(label, spin, hint, self) for name, (label, spin, hint) in spins.items()}
        self._boxes["chat"] = FieldBox("Chat", self.chat, CHAT_HINT, self)

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
        warm = self.warmup.value() != AUTO_WARMUP
        random = self.has_prompt and self.prompt_tokens.value() > 0
        return sum((of_set, warm, random, self._continues and self.chat.currentData() is not None))

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
