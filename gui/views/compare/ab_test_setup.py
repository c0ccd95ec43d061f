"""What takes part in an A/B test: the sides, the caps, and the buttons that begin it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from core.config import ABTestConfig, ModelConfig, QualityConfig, RunConfig
from core.errors import Refusal
from core.records.run import UNREADABLE, Run
from gui.plain import Label, ask, plain_tip
from gui.setup import consent
from gui.setup.field_box import FieldBox, spin_box
from gui.views.ab_test_text import NAMES, pass_names
from gui.views.fitted import FittedCard
from gui.views.saved_runs import Head

MOST_SIDES = 4
NOW, PLAIN = "now", "plain"
NO_SETUP = "the sidebar says nothing yet"
BUSY_REASON = "Something is being measured or loaded; Esc cancels it."


@dataclass(frozen=True)
class Setup:
    """One thing a side can be. ``config`` is None where it follows the sidebar."""

    key: str
    text: str
    hint: str
    config: RunConfig | None = None
    wanted: tuple[str, ...] = ()  # what this person must allow before it runs


class ABTestSetup(FittedCard):
    """``config()`` is the A/B test as chosen. Every side runs the sidebar's workload and instruments."""

    trial_asked = Signal(object)  # ABTestConfig

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("trialSetup")
        self.read_sidebar: Callable[[], RunConfig] = _nothing
        self.ask: Callable[[QWidget, str, str], bool] = ask
        self._allowed: set[ModelConfig] = set()
        self._pinned: list[Setup] = []
        self._saved: list[Setup] = []
        self._busy = False
        self._build()
        self.refresh()

    def config(self) -> ABTestConfig:
        """The sides and the caps; ``ValueError`` with a sentence that says what to change."""
        now = self.read_sidebar()
        sides = tuple(self._side(combo, now) for combo in self._chosen())
        return ABTestConfig(sides, self.rounds.value(), float(self.seconds.value()))

    def floor_config(self) -> ABTestConfig:
        """Side A against itself."""
        side = self._side(self.sides[0], self.read_sidebar())
        return ABTestConfig((side, side), max(2, self.rounds.value()), float(self.seconds.value()))

    def start(self) -> None:
        """Ask for the A/B test, if it can be had and may run what it would run."""
        if self.start_button.isEnabled() and self._agreed(self._chosen()):
            self.trial_asked.emit(self.config())

    def start_floor(self) -> None:
        """Ask for an A/A test, if it can be had and may run what it would run."""
        if self.floor_button.isEnabled() and self._agreed(self.sides[:1]):
            self.trial_asked.emit(self.floor_config())

    def pin(self) -> None:
        """Keep the sidebar's setup as it is now, and make it side A."""
        config = self.read_sidebar()
        known = next((setup for setup in self._pinned if setup.config == config), None)
        if known is None:
            known = Setup(f"pin{len(self._pinned)}", f"Pinned: {pass_names(config)}", _describe(config), config)
            self._pinned.append(known)
        self._fill()
        self._choose(self.sides[0], known.key)
        self.refresh()

    def compare(self, first: Run, second: Run) -> None:
        """Make the setups of two saved runs side A and side B (a run that is not in the session leaves its side as it is)."""
        for combo, run in zip(self.sides, (first, second), strict=False):
            if combo.findData(f"run{run.id}") >= 0:
                self._choose(combo, f"run{run.id}")
        self.refresh()

    def reopen(self, config: ABTestConfig, run_ids: Sequence[int]) -> None:
        """Choose the sides and caps of a saved A/B test (a side that is not in the session stays as it is)."""
        for number, box in enumerate(self._boxes):
            box.setHidden(number >= max(2, len(run_ids)))
        for combo, run_id in zip(self.sides, run_ids, strict=False):
            if combo.findData(f"run{run_id}") >= 0:
                self._choose(combo, f"run{run_id}")
        self.rounds.setValue(config.most_rounds)
        self.seconds.setValue(round(config.most_seconds))
        self._show_count()

    def offer_saved(self, heads: Sequence[Head]) -> None:
        """Offer the setups of a session's runs, newest first."""
        self._saved = [
            Setup(
                f"run{head.id}",
                f"Run {head.id}: {pass_names(head.config)}",
                _describe(head.config),
                head.config,
                consent.needed(head.config.model, head.consents),
            )
            for head in reversed(heads)
            if head.status not in ("imported", UNREADABLE)
        ]
        self._fill()
        self.refresh()

    def set_busy(self, busy: bool) -> None:
        """While something is being measured nothing can be begun."""
        if busy != self._busy:
            self._busy = busy
            self.refresh()

    def refresh(self) -> None:
        """Say what can be begun, after the sidebar or a choice changed."""
        self._name_now()
        start, floor = self._reason(self.config), self._reason(self.floor_config)
        if not start and self.config().same:
            start = "All sides are one setup: switch a pass on in the sidebar, choose another side, or measure the noise floor."
        _allow(self.start_button, start, "Let the sides take turns until it is plain which is faster (Ctrl+F5)")
        _allow(self.floor_button, floor, "Run side A against itself: what differs then is noise (Ctrl+F6)")
        _allow(self.pin_button, self._reason(self.read_sidebar), "Keep the sidebar's setup as it is now, as side A")
        self.problem.setText("" if self._busy else start)
        self.problem.setVisible(bool(self.problem.text()))
        self.fit()

    def add_side(self) -> None:
        """One more side, up to four."""
        hidden = next((box for box in self._boxes if box.isHidden()), None)
        if hidden is not None:
            hidden.show()
            self._show_count()

    def remove_side(self) -> None:
        """One side less, down to two."""
        shown = [box for box in self._boxes if not box.isHidden()]
        if len(shown) > 2:
            shown[-1].hide()
            self._show_count()

    def _build(self) -> None:
        self.sides = [QComboBox() for _ in range(MOST_SIDES)]
        self._boxes = []
        for name, combo in zip(NAMES, self.sides, strict=False):
            combo.setObjectName(f"trialSide{name}")
            explanation = "What the others are compared with" if name == "A" else "Compared with A"
            box = FieldBox(f"Side {name}", combo, f"{explanation}; with the workload of the sidebar")
            combo.activated.connect(lambda _row: self.refresh())
            self._boxes.append(box)
        self.more = _tool("addSide", "+ side", "One more side, up to four", self.add_side)
        self.fewer = _tool("removeSide", "− side", "One side less", self.remove_side)
        self.rounds = spin_box("trialRounds", 2, 1000, ABTestConfig.most_rounds)
        self.seconds = spin_box("trialSeconds", 1, 36_000, round(ABTestConfig.most_seconds))
        self.pin_button = _button("pinSetup", "Set as A", self.pin)
        self.floor_button = _button("startFloor", "Noise floor (A/A)", self.start_floor)
        self.start_button = _button("startTrial", "Start A/B", self.start)
        self.start_button.setProperty("primary", True)
        self.problem = Label()
        self.problem.setObjectName("trialProblem")
        self.problem.setProperty("role", "muted")
        self.problem.setWordWrap(True)
        self._lay_out()
        self._fill()
        for combo, key in zip(self.sides, (PLAIN, NOW, NOW, NOW), strict=True):
            self._choose(combo, key)
        for box in self._boxes[2:]:
            box.hide()
        self._show_count()

    def _lay_out(self) -> None:
        grid = QGridLayout()
        grid.setSpacing(6)
        for number, box in enumerate(self._boxes):
            grid.addWidget(box, number // 2, number % 2)
        grid.addWidget(self.more, 0, 2)
        grid.addWidget(self.fewer, 1, 2)
        grid.setColumnStretch(0, 1)
        grid.setColumnStretch(1, 1)
        row = QHBoxLayout()
        row.setSpacing(8)
        for label, spin, hint in (
            ("Most rounds", self.rounds, "A round is one request of every side; an A/B test that is decided ends sooner"),
            ("Most seconds", self.seconds, "Of measuring; loading, compiling and warm-up do not count"),
        ):
            box = FieldBox(label, spin, hint)
            box.setFixedWidth(104)
            row.addWidget(box)
        row.addStretch(1)
        for button in (self.pin_button, self.floor_button, self.start_button):
            row.addWidget(button, 0, Qt.AlignmentFlag.AlignVCenter)
        column = QVBoxLayout(self)
        column.setContentsMargins(10, 10, 10, 10)
        column.setSpacing(8)
        column.addLayout(grid)
        column.addLayout(row)
        column.addWidget(self.problem)

    def _setups(self) -> list[Setup]:
        now = Setup(NOW, "Sidebar setup now", "What the sidebar says when the A/B test begins")
        plain = Setup(PLAIN, "No passes", "The sidebar's model without any pass")
        return [plain, now, *self._pinned, *self._saved]

    def _fill(self) -> None:
        """Offer everything on every side; what was chosen stays, or becomes the sidebar's setup where it is gone."""
        for combo in self.sides:
            chosen = combo.currentData()
            combo.clear()
            for row, setup in enumerate(self._setups()):
                combo.addItem(setup.text, setup.key)
                combo.setItemData(row, plain_tip(setup.hint), Qt.ItemDataRole.ToolTipRole)
            self._choose(combo, chosen if chosen is not None and combo.findData(chosen) >= 0 else NOW)

    def _choose(self, combo: QComboBox, key: str) -> None:
        combo.setCurrentIndex(combo.findData(key))

    def _name_now(self) -> None:
        """The entry that follows the sidebar says what that is now."""
        try:
            name = pass_names(self.read_sidebar())
        except ValueError:
            name = NO_SETUP
        for combo in self.sides:
            row = combo.findData(NOW)
            text = f"Sidebar setup now: {name}"
            if combo.itemText(row) != text:
                combo.setItemText(row, text)

    def _chosen(self) -> list[QComboBox]:
        return [combo for combo, box in zip(self.sides, self._boxes, strict=True) if not box.isHidden()]

    def _side(self, combo: QComboBox, now: RunConfig) -> RunConfig:
        """A side's own model, passes and target, with the workload and instruments that all sides share."""
        key = combo.currentData()
        if key == NOW:
            return now
        if key == PLAIN:
            return replace(now, passes=(), quality=None)
        setup = next(setup for setup in self._setups() if setup.key == key)
        own = setup.config
        assert own is not None
        # The text and the labels that a file names are files of whoever made it; the sidebar's are this person's.
        quality = (now.quality or (own.quality and QualityConfig(tokens=own.quality.tokens))) if own.passes else None
        model = consent.allowed(own.model, setup.wanted) if own.model in self._allowed else own.model
        return replace(own, model=model, workload=now.workload, profilers=now.profilers, quality=quality, name="")

    def _agreed(self, sides: Sequence[QComboBox]) -> bool:
        """Whether every side may run: a setup from a file that needs somebody's trust is asked about, once."""
        for setup in self._setups():
            chosen = any(combo.currentData() == setup.key for combo in sides)
            if not chosen or not setup.wanted or setup.config is None or setup.config.model in self._allowed:
                continue
            if not self.ask(self, "Run this code?", consent.question(setup.config.model, setup.wanted)):
                return False
            self._allowed.add(setup.config.model)
        return True

    def _reason(self, what: Callable[[], object]) -> str:
        """Why this cannot be begun now, "" if it can."""
        if self._busy:
            return BUSY_REASON
        try:
            what()
        except ValueError as problem:
            return str(problem)
        return ""

    def _show_count(self) -> None:
        count = sum(not box.isHidden() for box in self._boxes)
        self.more.setEnabled(count < MOST_SIDES)
        self.fewer.setVisible(count > 2)
        self.refresh()


def _nothing() -> RunConfig:
    raise Refusal("No model is chosen yet; choose one in the sidebar.")


def _describe(config: RunConfig) -> str:
    return f"{config.model.spec}, {config.model.dtype}, {config.target.id}: {pass_names(config)}"


def _button(name: str, text: str, call: Callable[[], None]) -> QPushButton:
    button = QPushButton(text)
    button.setObjectName(name)
    button.clicked.connect(lambda: call())
    return button


def _tool(name: str, text: str, hint: str, call: Callable[[], None]) -> QToolButton:
    button = QToolButton()
    button.setObjectName(name)
    button.setText(text)
    button.setToolTip(plain_tip(hint))
    button.setAccessibleName(hint)
    button.clicked.connect(lambda: call())
    return button


def _allow(button: QPushButton, reason: str, hint: str) -> None:
    button.setEnabled(not reason)
    button.setToolTip(plain_tip(reason or hint))
    button.setAccessibleDescription(reason or hint)
