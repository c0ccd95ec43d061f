"""A form built from what an options dataclass declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QFormLayout, QLineEdit, QSpinBox, QWidget

from core.pass_api.options import Option, declared
from gui.plain import plain_tip
from gui.setup.field_box import FloatSpinBox, QuietComboBox, QuietSpinBox, narrow

MOST = 1_000_000


class OptionsForm(QWidget):
    """One row per field. ``values()`` has only plain Python values, by field name."""

    changed = Signal()

    def __init__(self, options: type, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.editors: dict[str, QWidget] = {}
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setHorizontalSpacing(10)
        form.setVerticalSpacing(6)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        known = declared(options)
        for name, option in known.items():
            self.editors[name] = editor = self._editor(option)
            editor.setObjectName(f"option_{name}")
            editor.setAccessibleName(option.called)
            editor.setAccessibleDescription(option.explained)
            editor.setToolTip(plain_tip(option.explained))
            if isinstance(editor, QCheckBox):
                editor.setText(option.called)
                form.addRow(editor)
            else:
                form.addRow(option.called, editor)
                form.labelForField(editor).setProperty("role", "fieldLabel")
                form.labelForField(editor).setToolTip(plain_tip(option.explained))
        self.set_values({name: option.default for name, option in known.items()})

    def values(self) -> dict[str, Any]:
        """What the form says now."""
        return {name: _read(editor) for name, editor in self.editors.items()}

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Fill the form; names it does not have are left out."""
        for name, value in values.items():
            if name in self.editors:
                _write(self.editors[name], value)

    def _editor(self, option: Option) -> QWidget:
        if option.choices or (option.optional and option.kind is bool):
            return self._combo(option.choices or (True, False), option.optional)
        if option.kind is bool:
            box = QCheckBox()
            box.toggled.connect(self.changed)
            return box
        if option.kind in (int, float):
            return self._number(option)
        line = QLineEdit()
        line.setProperty("optional", option.optional)
        if option.optional:
            line.setPlaceholderText("auto")
        line.textChanged.connect(self.changed)
        return line

    def _combo(self, choices: tuple[Any, ...], optional: bool) -> QComboBox:
        combo = QuietComboBox()
        narrow(combo)
        named = {True: "yes", False: "no"}
        if optional and None not in choices:
            combo.addItem("auto", None)
        for choice in choices:
            combo.addItem(named[choice] if isinstance(choice, bool) else "auto" if choice is None else str(choice), choice)
        combo.currentIndexChanged.connect(self.changed)
        return combo

    def _number(self, option: Option) -> QWidget:
        """A spin box; where None is allowed it is one step below the least value and reads "auto"."""
        least = 0 if option.minimum is None else option.minimum
        most = MOST if option.maximum is None else option.maximum
        spin: Any = QuietSpinBox()
        if option.kind is float:
            spin = FloatSpinBox((option.default, least, most), option.optional)
        if option.optional:
            least -= 1
            spin.setSpecialValueText("auto")
        spin.setProperty("optional", option.optional)
        spin.setRange(least, most)
        if option.step is not None:
            spin.setSingleStep(option.step)
        spin.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        spin.valueChanged.connect(self.changed)
        editor: QWidget = spin
        return editor


def _read(editor: QWidget) -> Any:
    if isinstance(editor, QComboBox):
        return editor.currentData()
    if isinstance(editor, QCheckBox):
        return editor.isChecked()
    if isinstance(editor, QSpinBox | QDoubleSpinBox):
        return None if editor.property("optional") and editor.value() < editor.minimum() + 1 else editor.value()
    assert isinstance(editor, QLineEdit)
    return None if editor.property("optional") and not editor.text().strip() else editor.text()


def _write(editor: QWidget, value: Any) -> None:
    if isinstance(editor, QComboBox):
        editor.setCurrentIndex(max(0, editor.findData(value)))
    elif isinstance(editor, QCheckBox):
        editor.setChecked(bool(value))
    elif isinstance(editor, QSpinBox):
        editor.setValue(editor.minimum() if value is None else int(value))
    elif isinstance(editor, QDoubleSpinBox):
        editor.setValue(editor.minimum() if value is None else float(value))
    else:
        assert isinstance(editor, QLineEdit)
        editor.setText("" if value is None else str(value))
