"""What opens below a selected pass: its options, and what the last run did with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QFrame, QSizePolicy, QVBoxLayout, QWidget

from core.pass_api.base import Pass
from gui.plain import Label
from gui.setup.options_form import OptionsForm


class OptionForms(Mapping[str, OptionsForm]):
    """A form for each pass that has options, made when it is first asked for: few of some thirty ever are."""

    def __init__(self, passes: Iterable[Pass], placed: Callable[[OptionsForm], None]) -> None:
        self._options = {known.id: known.options for known in passes if known.options is not None}
        self._placed = placed
        self.made: dict[str, OptionsForm] = {}

    def __getitem__(self, pass_id: str) -> OptionsForm:
        if pass_id not in self.made:
            self.made[pass_id] = OptionsForm(self._options[pass_id])
            self._placed(self.made[pass_id])
        return self.made[pass_id]

    def __contains__(self, pass_id: object) -> bool:
        return pass_id in self._options

    def __iter__(self) -> Iterator[str]:
        return iter(self._options)

    def __len__(self) -> int:
        return len(self._options)


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
        self._inside = QVBoxLayout(self)
        self._inside.setContentsMargins(10, 8, 10, 10)
        self._inside.setSpacing(6)
        self._inside.addWidget(self.title)
        self._inside.addWidget(self.told)
        self.forms = OptionForms(passes, self._place)
        self.hide()

    def show_pass(self, pass_id: str, title: str, details: Sequence[str], *, editable: bool) -> bool:
        """Show a pass; False where there is nothing to show of it."""
        has_form = editable and pass_id in self.forms
        wanted = self.forms[pass_id] if has_form else None
        for form in self.forms.made.values():
            form.setVisible(form is wanted)
        self.title.setText(f"Options of {title}")
        self.title.setVisible(has_form)
        self.told.setText("\n".join(details))
        self.told.setVisible(bool(details))
        return has_form or bool(details)

    def _place(self, form: OptionsForm) -> None:
        form.hide()
        form.changed.connect(self.changed)
        self._inside.insertWidget(self._inside.count() - 1, form)
