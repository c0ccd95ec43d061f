"""What opens below a selected pass: its options, and what the last run did with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QFrame, QSizePolicy, QVBoxLayout, QWidget

from core.passes.base import Pass
from gui.plain import Label
from gui.setup.options_form import OptionsForm


class PassOptions(QFrame):
    """``forms`` has a form for each pass that has options."""

    changed = Signal()

    def __init__(self, passes: Iterable[Pass], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("passOptions")
        self.title = Label(self)
        self.title.setProperty("role", "fieldLabel")
        self.told = Label(self)
        self.told.setObjectName("passDetails")
        self.told.setProperty("role", "muted")
        self.told.setWordWrap(True)
        self.told.setTextFormat(Qt.TextFormat.PlainText)
        self.told.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.told.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
        inside = QVBoxLayout(self)
        inside.setContentsMargins(10, 8, 10, 10)
        inside.setSpacing(6)
        inside.addWidget(self.title)
        self.forms: dict[str, OptionsForm] = {}
        for known in passes:
            if known.options is not None:
                form = OptionsForm(known.options)
                form.hide()
                form.changed.connect(self.changed)
                inside.addWidget(form)
                self.forms[known.id] = form
        inside.addWidget(self.told)
        self.hide()

    def show_pass(self, pass_id: str, title: str, details: Sequence[str], *, editable: bool) -> bool:
        """Show a pass; False where there is nothing to show of it."""
        for known, form in self.forms.items():
            form.setVisible(editable and known == pass_id)
        has_form = editable and pass_id in self.forms
        self.title.setText(f"Options of {title}")
        self.title.setVisible(has_form)
        self.told.setText("\n".join(details))
        self.told.setVisible(bool(details))
        return has_form or bool(details)
