"""A field with its label inside the frame, as the sidebar shows all of its fields."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import QAbstractSpinBox, QComboBox, QDoubleSpinBox, QFrame, QSizePolicy, QSpinBox, QVBoxLayout, QWidget

from gui.plain import Label, plain_tip


class FieldBox(QFrame):
    """Label above, editor below; the frame lights up while the editor has the focus and a click anywhere goes to the editor."""

    def __init__(self, label: str, editor: QWidget, explanation: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setProperty("fieldBox", True)
        self.editor = editor
        self.label = Label(label, self)
        self.label.setProperty("role", "fieldLabel")
        self.label.setBuddy(editor)
        editor.setProperty("inBox", True)
        editor.setAccessibleName(label)
        editor.setAccessibleDescription(explanation)
        editor.setToolTip(plain_tip(explanation))
        self.setToolTip(plain_tip(explanation))
        self.setFocusProxy(editor)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)  # no taller where there is room
        if isinstance(editor, QComboBox):
            narrow(editor)
        editor.installEventFilter(self)
        box = QVBoxLayout(self)
        box.setContentsMargins(8, 4, 6, 3)
        box.setSpacing(0)
        box.addWidget(self.label)
        box.addWidget(editor)

    def set_invalid(self, invalid: bool) -> None:
        """A red frame round what cannot be used."""
        self._set("invalid", invalid)

    def _set(self, name: str, value: bool) -> None:
        if bool(self.property(name)) != value:
            self.setProperty(name, value)
            self.style().unpolish(self)
            self.style().polish(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.editor and event.type() in (QEvent.Type.FocusIn, QEvent.Type.FocusOut):
            self._set("focused", event.type() == QEvent.Type.FocusIn)
        return super().eventFilter(watched, event)


def narrow(combo: QComboBox) -> None:
    """Let a combo box be narrower than its longest entry; the list that opens is as wide as it needs."""
    combo.setMinimumContentsLength(4)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.view().setTextElideMode(Qt.TextElideMode.ElideNone)


def spin_box(object_name: str, least: int, most: int, value: int, special: str = "") -> QSpinBox:
    """A whole-number field. The wheel changes it only while it has the focus, so that scrolling the sidebar changes nothing."""
    spin = QuietSpinBox()
    spin.setObjectName(object_name)
    spin.setRange(least, most)
    spin.setValue(value)
    spin.setSpecialValueText(special)
    spin.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    spin.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.UpDownArrows)
    spin.setGroupSeparatorShown(False)
    spin.setMinimumWidth(44)
    return spin


class QuietSpinBox(QSpinBox):
    """A spin box that leaves the wheel to the page it stands on until it is clicked."""

    def wheelEvent(self, event: QWheelEvent) -> None:
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


class QuietComboBox(QComboBox):
    """A chooser that leaves the wheel to the page it stands on until it is clicked."""

    def __init__(self) -> None:
        super().__init__()
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def wheelEvent(self, event: QWheelEvent) -> None:
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


class FloatSpinBox(QDoubleSpinBox):
    """A field for numbers of any size: as many decimals as they have, and steps that fit the number."""

    def __init__(self, known: Sequence[float | None], optional: bool) -> None:
        super().__init__()
        self._optional = optional
        self.setDecimals(max([3, *(_decimals(value) for value in known if value is not None)]))

    def textFromValue(self, value: float) -> str:
        if value and abs(value) < 1e-3:
            return f"{value:.{self.decimals()}f}".rstrip("0")
        return f"{value:.{self.decimals()}f}".rstrip("0").rstrip(".") or "0"

    def stepBy(self, steps: int) -> None:
        """A tenth of the number's power of ten; from "auto" to the least value and back."""
        least, value = self.minimum() + self._optional, self.value()
        if self._optional and value < least:
            self.setValue(least if steps > 0 else self.minimum())
            return
        size = 10.0 ** math.floor(math.log10(abs(value)) - 1e-9) if value else 10.0 ** -min(2, self.decimals())
        wanted = value + steps * max(size, 10.0 ** -self.decimals())
        self.setValue(self.minimum() if self._optional and wanted < least and value <= least else max(wanted, least))

    def wheelEvent(self, event: QWheelEvent) -> None:
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


def _decimals(value: float) -> int:
    """How many decimals a number needs, to two digits beyond its first."""
    return 0 if not value else max(0, 2 - math.floor(math.log10(abs(value))))
