"""Where the model runs: the targets of this machine, the absent ones with their reason, and the number of CPU threads."""

from __future__ import annotations

import re
from collections.abc import Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QStandardItemModel
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QVBoxLayout, QWidget

from core.config import TargetConfig
from core.execution.executors.base import executors, in_short, listed
from core.targets.base import TargetFacts
from gui.plain import Label, plain_tip
from gui.setup.field_box import FieldBox, spin_box

ADVICE = "This model runs code that is not Tickscope's; in its own process, what that does costs the run alone."


class TargetPicker(QWidget):
    """``config()`` is the choice, ``facts()`` what probing told of it."""

    changed = Signal()

    def __init__(self, targets: Sequence[TargetFacts], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._targets: dict[str, TargetFacts] = {}
        self.combo = QComboBox()
        self.combo.setObjectName("targetCombo")
        self.threads = spin_box("threadsSpin", 0, 1024, 0, "auto")
        self._threads_box = FieldBox("Threads", self.threads, "Threads of the CPU that torch may use; auto leaves its choice")
        self._threads_box.setFixedWidth(88)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        row = QHBoxLayout()
        row.setSpacing(6)
        column.addLayout(row)
        row.addWidget(FieldBox("Device", self.combo, "Where the model runs"), 1)
        row.addWidget(self._threads_box)
        self.executor = QComboBox()
        self.executor.setObjectName("executorCombo")
        for one in listed():
            self.executor.addItem(one.title, one.id)
            self.executor.setItemData(self.executor.count() - 1, plain_tip(one.hint), Qt.ItemDataRole.ToolTipRole)
        column.addWidget(FieldBox("Runs", self.executor, "Whether a crash of the model would take the window with it"))
        self._advice = Label(ADVICE)
        self._advice.setObjectName("executorAdvice")
        self._advice.setProperty("role", "muted")
        self._advice.setWordWrap(True)
        self._advice.hide()
        column.addWidget(self._advice)
        self.show_targets(targets)
        self.combo.currentIndexChanged.connect(self._on_changed)
        self.threads.valueChanged.connect(self._on_changed)
        self.executor.currentIndexChanged.connect(self._on_changed)

    def show_targets(self, targets: Sequence[TargetFacts]) -> None:
        """List these; the choice stays if it is still there."""
        chosen = self.combo.currentData()
        blocked = self.combo.blockSignals(True)
        self.combo.clear()
        self._targets = {facts.id: facts for facts in targets}
        model = self.combo.model()
        assert isinstance(model, QStandardItemModel)
        for row, facts in enumerate(targets):
            name = " · ".join(part for part in (facts.title, facts.name) if part)
            self.combo.addItem(_short(name) if facts.available else f"{facts.title} · not here", facts.id)
            hint = name if facts.available else f"{facts.title}: {facts.reason or 'not available'}"
            self.combo.setItemData(row, plain_tip(hint), Qt.ItemDataRole.ToolTipRole)
            self.combo.setItemData(row, hint, Qt.ItemDataRole.AccessibleDescriptionRole)
            model.item(row).setEnabled(facts.available)
        usable = next((row for row, facts in enumerate(targets) if facts.available), 0)
        kept = self.combo.findData(chosen)
        self.combo.setCurrentIndex(kept if kept >= 0 else usable)
        self.combo.blockSignals(blocked)
        self._on_changed()

    def facts(self) -> TargetFacts:
        """What is known of the chosen target."""
        return self._targets.get(self.combo.currentData()) or TargetFacts("cpu", "CPU", "", True)

    def config(self) -> TargetConfig:
        """The choice as the run wants it."""
        return TargetConfig(self.facts().id, self.threads.value() or None)

    def summary(self) -> str:
        """What is chosen, in a few words."""
        threads = [f"{self.threads.value()} threads"] * bool(self.threads.value())
        return " · ".join([self.combo.currentText(), *threads, *filter(None, [in_short(self.where())])])

    def where(self) -> str:
        """The executor that runs are carried out by, of ``core.execution.executors``."""
        return str(self.executor.currentData())

    def advise(self, strange: bool) -> None:
        """Say what a process of its own is good for, where the model's code is ``strange`` and would run in this one."""
        self._advice.setVisible(strange and not executors.get(self.where()).survives)

    def set_where(self, executor: str) -> None:
        """Pick an executor; one that is not known leaves the choice as it is."""
        row = self.executor.findData(executor)
        if row >= 0:
            self.executor.setCurrentIndex(row)

    def choose(self, config: TargetConfig) -> bool:
        """Pick a target and its threads; returns whether the target is there (the choice stays where it is not)."""
        row = self.combo.findData(config.id)
        there = row >= 0 and self._targets[config.id].available
        if there:
            self.combo.setCurrentIndex(row)
        self.threads.setValue(config.threads or 0)
        return there

    def _on_changed(self) -> None:
        facts = self.facts()
        self.combo.setToolTip(plain_tip(" · ".join(part for part in (facts.title, facts.name) if part)))
        self.threads.setMaximum(facts.threads or 1024)
        self._threads_box.setEnabled(facts.id == "cpu")
        self.changed.emit()


def _short(name: str) -> str:
    """Without what chip makers put into every name: the sidebar is narrow, and the tooltip has it in full."""
    return " ".join(re.sub(r"\((?:R|TM)\)|(?<!^)\b(?:CPU|Processor)\b|@.*", " ", name).split())
