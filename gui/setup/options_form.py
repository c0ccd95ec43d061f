"""A form built from an options dataclass: one declaration feeds the form, the command line, validation and the file."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QFormLayout, QLineEdit, QSpinBox, QWidget

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
        hints = typing.get_type_hints(options)
        for field in fields(options):
            editor = self._editor(field, hints[field.name])
            editor.setObjectName(f"option_{field.name}")
            label = str(field.metadata.get("label", field.name.replace("_", " ")))
            explanation = str(field.metadata.get("help", ""))
            editor.setAccessibleName(label)
            editor.setAccessibleDescription(explanation)
            editor.setToolTip(plain_tip(explanation))
            self.editors[field.name] = editor
            if isinstance(editor, QCheckBox):
                editor.setText(label)
                form.addRow(editor)
            else:
                form.addRow(label, editor)
                form.labelForField(editor).setProperty("role", "fieldLabel")
                form.labelForField(editor).setToolTip(plain_tip(explanation))
        self.set_values({field.name: _default(field) for field in fields(options)})

    def values(self) -> dict[str, Any]:
        """What the form says now."""
        return {name: _read(editor) for name, editor in self.editors.items()}

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Fill the form; names it does not have are left out."""
        for name, value in values.items():
            if name in self.editors:
                _write(self.editors[name], value)

    def _editor(self, field: Field[Any], hint: Any) -> QWidget:
        metadata = field.metadata
        optional = type(None) in typing.get_args(hint)
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)] if _is_union(hint) else [hint]
        choices = metadata.get("choices") or (typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else None)
        if choices or (optional and kinds == [bool]):
            return self._combo(tuple(choices or (True, False)), optional)
        if kinds == [bool]:
            box = QCheckBox()
            box.toggled.connect(self.changed)
            return box
        if kinds in ([int], [float]):
            return self._number(metadata, kinds == [int], optional, _default(field))
        line = QLineEdit()
        line.setProperty("optional", optional)
        if optional:
            line.setPlaceholderText("auto")
        line.setProperty("as_tuple", typing.get_origin(kinds[0]) is tuple)
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

    def _number(self, metadata: Mapping[str, Any], whole: bool, optional: bool, default: Any) -> QWidget:
        """A spin box; where None is allowed it is one step below the least value and reads "auto"."""
        least, most = metadata.get("minimum", 0), metadata.get("maximum", MOST)
        spin = QuietSpinBox() if whole else FloatSpinBox((default, least, most), optional)
        if optional:
            least -= 1
            spin.setSpecialValueText("auto")
        spin.setProperty("optional", optional)
        spin.setRange(least, most)
        spin.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        spin.valueChanged.connect(self.changed)
        return spin


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else None


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
        editor.setText(" ".join(map(str, value)) if isinstance(value, tuple | list) else "" if value is None else str(value))
