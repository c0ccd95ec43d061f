"""The left panel: model, target, passes, workload, instruments and the buttons; it yields one ``RunConfig``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from PySide6.QtCore import Qt, QTimer, Signal, SignalInstance
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from core.config import ModelConfig, PassConfig, RunConfig
from core.errors import Refusal
from core.messages.reason import Reason
from core.models.base import ModelFacts, Source
from core.notices import Status
from core.pass_api import options
from core.pass_api.base import Pass, PassReport, title_of
from core.records.run import Run
from core.targets.base import TargetFacts
from gui.plain import Label, plain_tip
from gui.setup.baselines import Baselines
from gui.setup.instrument_list import InstrumentSection, known_instruments
from gui.setup.model_picker import Background, ModelKnowledge, ModelPicker
from gui.setup.pass_head import PassHead
from gui.setup.pass_list import PassList
from gui.setup.pass_options import PassOptions
from gui.setup.quality_form import QualityForm
from gui.setup.section import Section
from gui.setup.switch_list import ID
from gui.setup.tab_order import follow_layout
from gui.setup.target_picker import TargetPicker
from gui.setup.workload_form import WorkloadForm
from gui.theme import Palette
from profilers.base import Instrument

WIDTH, LEAST_WIDTH, MOST_WIDTH = 300, 272, 560
MARGINS = (14, 10, 14, 8)
SCROLL_BAR = 10
FOLDED_AT_FIRST = ("target", "quality")  # so that passes and workload are seen whole on a laptop's screen
WANTED = "give a number of input tokens (Workload › More)"
BUSY = ("loading", "preparing", "running", "cancelling")
Reasons = Callable[[ModelFacts | None, TargetFacts, Collection[str]], Mapping[str, Reason | None]]


@dataclass(frozen=True)
class Choices:
    """What there is to choose from, and who knows about it."""

    sources: Sequence[Source]
    passes: Sequence[Pass]
    targets: Sequence[TargetFacts]
    knowledge: ModelKnowledge
    reasons: Reasons
    instruments: Sequence[Instrument] = field(default_factory=known_instruments)


class Sidebar(QFrame):
    """Says what the user wants; does nothing itself."""

    load_asked = Signal()
    unload_asked = Signal()
    run_asked = Signal()
    cancel_asked = Signal()
    changed = Signal()

    def __init__(self, choices: Choices, background: Background, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("sidebar")
        self.setMinimumWidth(LEAST_WIDTH)
        self.setMaximumWidth(MOST_WIDTH)
        self._choices = choices
        self._reasons: dict[str, Reason] = {}
        self._pointed = False
        self.model = ModelPicker(choices.sources, choices.knowledge, background)
        self.target = TargetPicker(choices.targets)
        self.passes = PassList(choices.passes)
        self.pass_head = PassHead(self.passes, len(choices.passes))
        self.quality = QualityForm()
        self.workload = WorkloadForm()
        self.instruments = InstrumentSection(choices.instruments, background)
        self._baselines = Baselines()
        self._options = PassOptions(choices.passes, self)
        self.forms = self._options.forms
        self.sections: dict[str, Section] = {}
        self._build()
        self.passes.switched.connect(self._on_switched)
        self.passes.currentItemChanged.connect(self._on_current)
        self.target.changed.connect(self._on_changed)
        self.model.changed.connect(self._on_changed)
        self.model.described.connect(self._on_described)
        self._options.changed.connect(self._on_changed)
        self.quality.changed.connect(self._on_changed)
        self.workload.changed.connect(self._on_changed)
        self.instruments.changed.connect(self._on_changed)
        self.show_status(Status(), None)
        self._on_changed()

    def _build(self) -> None:
        body = QWidget()
        body.setObjectName("sidebarBody")
        self._column = column = QVBoxLayout(body)
        column.setContentsMargins(*MARGINS)
        column.setSpacing(6)
        for section, widgets in (
            (Section("model", "MODEL"), (self.model,)),
            (Section("target", "TARGET"), (self.target,)),
            (Section("passes", "PASSES", tight=True), (self.pass_head, self.passes)),
            (Section("quality", "QUALITY"), (self.quality,)),
            (Section("workload", "WORKLOAD"), (self.workload,)),
            (self.instruments, ()),
        ):
            for widget in widgets:
                section.add(widget)
            self.sections[section.name] = section
            column.addWidget(section, 100 if section.name == "passes" else 0)
            column.addSpacing(5)
        column.addStretch(1)  # what is left once the list is whole
        self.sections["model"].put_in_head(self.model.more)
        self.sections["workload"].put_in_head(self.workload.more)
        for name in FOLDED_AT_FIRST:
            self.sections[name].set_open(False)
        self._scroll = scroll = QScrollArea()
        scroll.setWidget(body)
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        scroll.verticalScrollBar().rangeChanged.connect(self._keep_right_edge)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(0)
        outer.addWidget(scroll, 1)
        outer.addWidget(self._build_actions())
        follow_layout(self)

    def _build_actions(self) -> QWidget:
        self.problem = Label()
        self.problem.setObjectName("setupProblem")
        self.problem.setProperty("role", "error")
        self.problem.setWordWrap(True)
        self.problem.hide()
        self.load = _button("loadButton", "Load", "Load the model into memory", self.load_asked)
        self.unload = _button("unloadButton", "Unload", "Give the model's memory back", self.unload_asked)
        self.run = _button("runButton", "Run  F5", "Measure; loads the model first if need be", self.run_asked)
        self.run.setProperty("primary", True)
        self.cancel = _button("cancelButton", "Cancel  Esc", "Stop; what was measured is kept", self.cancel_asked)
        row = QHBoxLayout()
        row.setSpacing(8)
        for button in (self.load, self.unload):
            row.addWidget(button, 2)
        row.addWidget(self.run, 3)
        row.addWidget(self.cancel, 3)
        frame = QFrame()
        frame.setObjectName("sidebarActions")
        column = QVBoxLayout(frame)
        column.setContentsMargins(14, 8, 14, 12)
        column.setSpacing(6)
        column.addWidget(self.problem)
        column.addLayout(row)
        return frame

    def run_config(self) -> RunConfig:
        """Everything that is set, or ``ValueError`` with a sentence that says what to change."""
        for pass_id in self.passes.chosen():
            reason = self._reasons.get(pass_id)
            if reason:
                title = title_of(self._pass(pass_id))
                raise Refusal(f"{title} cannot be used: {reason}; switch it off or change what it depends on.")
        config = self._collected()
        if self._lacks_input():
            raise Refusal(f"This model has no tokenizer to read a prompt with; {WANTED} instead.")
        return config

    def _lacks_input(self) -> bool:
        """Whether nothing can be given to the model before a number of input tokens is."""
        facts = self.model.facts
        return facts is not None and not facts.has_tokenizer and self.workload.reads_prompt

    def _point_at_input(self) -> None:
        """Bring the field that the refusal names into sight, once; whoever folds it away again is left alone."""
        lacks = self._lacks_input()
        if lacks and not self._pointed:
            self.sections["workload"].set_open(True)
        self.workload.want_tokens(lacks, show=not self._pointed)
        self._pointed = lacks

    def focus_problem(self) -> None:
        """Give the focus to the field that keeps this from running, where it is known which one it is."""
        if self._lacks_input():
            self.sections["workload"].set_open(True)
            self.workload.want_tokens(True)
            box = self.workload.prompt_tokens
            box.setFocus()
            box.selectAll()
            QTimer.singleShot(0, self, lambda: self._scroll.ensureWidgetVisible(box, 0, 40))

    def _collected(self) -> RunConfig:
        """What every form says; ``ValueError`` where one of them cannot be read."""
        chosen = tuple(self._choice(self._pass(pass_id)) for pass_id in self.passes.chosen())
        return RunConfig(
            self.model.config(),
            chosen,
            self.target.config(),
            self.workload.config(),
            self.instruments.asked(),
            quality=self.quality.config(bool(chosen)),
        )

    def _pass(self, pass_id: str) -> Pass:
        return next(one for one in self._choices.passes if one.id == pass_id)

    def _choice(self, known: Pass) -> PassConfig:
        """A pass with the options that its form says; ``ValueError`` where they cannot be read."""
        return PassConfig(known.id, options.parse(known, self.forms[known.id].values() if known.id in self.forms else {}))

    def model_config(self) -> ModelConfig:
        """The chosen model, or ``ValueError``."""
        return self.model.config()

    def all_passes(self) -> list[PassConfig]:
        """Every pass with the options that are set, whether on or off; those whose options cannot be read are left out."""
        found = []
        for one in self._choices.passes:
            with contextlib.suppress(ValueError):
                found.append(self._choice(one))
        return found

    def setup(self) -> RunConfig | None:
        """What is set, whether or not it can be run now; None while no model is named or a field cannot be read."""
        try:
            return self._collected()
        except ValueError:
            return None

    def show_config(self, config: RunConfig) -> list[str]:
        """Set everything as a run had it, as far as it is here; returns the names of passes and targets that are not."""
        self.model.show_config(config.model)
        there = self.target.choose(config.target)
        self.workload.show_config(config.workload)
        for choice in config.passes:
            if choice.id in self.forms:
                self.forms[choice.id].set_values(options.by_name(options.read(choice).options))
        self.passes.choose(choice.id for choice in config.passes)
        self.quality.show_config(config.quality, bool(config.passes))
        self.instruments.choose(config.profilers)
        known = {one.id for one in self._choices.passes}
        return [choice.id for choice in config.passes if choice.id not in known] + ([] if there else [config.target.id])

    def show_status(self, status: Status, loaded: ModelFacts | None) -> None:
        """Offer what can be done now: Cancel stands where Run was while something is going."""
        busy = status.state in BUSY
        focused = any(button.hasFocus() for button in (self.load, self.unload, self.run, self.cancel))
        self.load.setEnabled(not busy)
        self.unload.setEnabled(not busy and loaded is not None)
        self.run.setVisible(not busy)
        self.cancel.setVisible(busy)
        self.cancel.setEnabled(busy)  # while cancelling too: a greyed button gives its focus away, to a field that takes keys
        self.cancel.setText("Cancelling" if status.state == "cancelling" else "Cancel  Esc")
        if focused:
            (self.cancel if busy else self.run).setFocus()

    def show_reports(self, reports: Sequence[PassReport]) -> None:
        """Say in the list what each pass changed."""
        self.passes.show_reports(reports)
        self._on_current()

    def show_outcome(self, runs: Sequence[Run]) -> None:
        """Say what each pass of the last of ``runs`` changed, and what it gained over a run without passes."""
        for run in runs:
            self._baselines.remember(run)
        reports = runs[-1].facts.passes if runs else ()
        self.passes.show_reports(reports, self._baselines.measured(runs[-1]) if reports else None)
        self._on_current()

    def folded(self) -> list[str]:
        """Names of the sections that are folded."""
        return [name for name, section in self.sections.items() if not section.is_open]

    def fold(self, names: Collection[str]) -> None:
        """Fold exactly these sections."""
        for name, section in self.sections.items():
            section.set_open(name not in names)

    def show_problem(self, sentence: str) -> None:
        """A sentence above the buttons; "" takes it away."""
        self.problem.setText(sentence)
        self.problem.setVisible(bool(sentence))

    def set_palette(self, palette: Palette) -> None:
        """Repaint what the style sheet does not reach."""
        self.passes.set_palette(palette)
        self.instruments.set_palette(palette)
        self.workload.prompt.fit_height()

    def _on_switched(self) -> None:
        item = self.passes.currentItem()
        chosen = self.passes.chosen()
        if item is None or item.data(ID) not in chosen:
            with_options = [pass_id for pass_id in chosen if pass_id in self.forms]
            if with_options:
                self.passes.setCurrentItem(self.passes.item_of(with_options[-1]))
        self._on_current()
        self._on_changed()

    def _on_current(self) -> None:
        item = self.passes.currentItem()
        current = item.data(ID) if item is not None else None
        shown = False
        if item is not None and current:
            usable = current not in self._reasons
            shown = self._options.show_pass(current, item.text(), self.passes.details(current), editable=usable)
        self.passes.open_below(current or "", self._options if shown else None)
        if shown and self.passes.hasFocus():
            QTimer.singleShot(0, self, self._scroll_to_options)  # only after the layout has made room for them

    def _scroll_to_options(self) -> None:
        self.passes.scroll_to_below()
        self._scroll.ensureWidgetVisible(self.passes, 0, 8)

    def _on_described(self) -> None:
        facts = self.model.facts
        self.workload.set_task(None if facts is None else facts.task)
        self._on_changed()

    def _on_changed(self) -> None:
        """Every change may allow or refuse a pass, and may make the whole usable or not."""
        chosen = self.passes.chosen()
        reasons = self._choices.reasons(self.model.facts, self.target.facts(), chosen)
        self._reasons = {pass_id: reason for pass_id, reason in reasons.items() if reason is not None}
        self.passes.show_reasons(self._reasons)
        self.quality.set_passes(bool(chosen))
        self.target.advise(self.model.trust.isChecked())
        self._say_what_is_set(len(chosen))
        self._point_at_input()
        try:
            self.run_config()
        except ValueError as problem:
            self.show_problem(str(problem))
            self.run.setEnabled(False)
        else:
            self.show_problem("")
            self.run.setEnabled(True)
        self.changed.emit()

    def _say_what_is_set(self, passes_on: int) -> None:
        """In the head lines, for those that are folded."""
        number, tokens = self.workload.batch.value(), self.workload.new_tokens
        self.sections["model"].say("", f"{self.model.path.text()} · {self.model.dtype.currentText()}")
        self.sections["target"].say("", self.target.summary())
        self.sections["passes"].say(f"{passes_on} on" if passes_on else "", f"{passes_on or 'none'} on")
        asked_for = "after the run" if passes_on else "once a pass is on"
        self.sections["quality"].say("", asked_for if self.quality.check.isChecked() else "not measured")
        asked = [f"{tokens.value()} new tokens"] if tokens.isEnabled() else []
        self.sections["workload"].say("", " · ".join([*asked, f"batch {number}"]))

    def _keep_right_edge(self, _low: int, high: int) -> None:
        """The scroll bar takes its room from the margin, so that fields and buttons end at one line with it and without."""
        left, top, right, bottom = MARGINS
        self._column.setContentsMargins(left, top, right - (SCROLL_BAR if high > 0 else 0), bottom)


def _button(name: str, text: str, explanation: str, asked: SignalInstance) -> QPushButton:
    button = QPushButton(text)
    button.setObjectName(name)
    button.setToolTip(plain_tip(explanation))
    button.setAccessibleDescription(explanation)
    button.clicked.connect(lambda: asked.emit())
    return button
