"""The line above the list of passes: a field that leaves only some of them, and the order they stand in."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QStandardItemModel
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QLineEdit, QSizePolicy, QVBoxLayout, QWidget

from gui.plain import Label, plain_tip
from gui.setup.pass_list import FEW, PassList

ORDERS = ("By group", "By gain")
BY_GAIN = ORDERS.index("By gain")
ORDER_HINT = (
    "Gains are predicted once the model is loaded and nothing runs: from bytes, operations and layers that are tried on this "
    "machine. They are no measurements."
)
NO_GAINS = "By gain: no gain is predicted yet. Load the model and let it rest; then there is something to sort by."


class PassHead(QWidget):
    """Works on the list that it is given; shows where there are enough passes to look for one."""

    def __init__(self, passes: PassList, count: int, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._passes = passes
        self.filter = QLineEdit(self)
        self.filter.setObjectName("passFilter")
        self.filter.setPlaceholderText(f"Filter {count} passes")
        self.filter.setAccessibleName("Filter passes")
        self.filter.setClearButtonEnabled(True)
        self.no_match = Label("No pass has this in its name or description.", self)
        self.no_match.setProperty("role", "muted")
        self.no_match.setWordWrap(True)
        self.no_match.hide()
        self.order = QComboBox(self)
        self.order.setObjectName("passOrder")
        self.order.setAccessibleName("Order of the passes")
        self.order.addItems(ORDERS)
        across = QHBoxLayout()
        across.setSpacing(6)
        across.addWidget(self.filter, 1)
        across.addWidget(self.order)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(across)
        column.addWidget(self.no_match)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        if count <= FEW:
            self.hide()
        self.filter.textChanged.connect(passes.set_filter)
        self.order.currentIndexChanged.connect(lambda number: passes.sort_by_gain(number == BY_GAIN))
        passes.filtered.connect(lambda left: self.no_match.setVisible(left == 0))
        passes.predicted.connect(self._allow_gain)
        self._allow_gain(passes.has_gains)

    def _allow_gain(self, there: bool) -> None:
        """Sorting by what nobody knows yet took the groups away, and gave nothing for them."""
        model = self.order.model()
        assert isinstance(model, QStandardItemModel)
        model.item(BY_GAIN).setEnabled(there)
        hint = ORDER_HINT if there else NO_GAINS
        self.order.setItemData(BY_GAIN, plain_tip(hint), Qt.ItemDataRole.ToolTipRole)
        self.order.setItemData(BY_GAIN, hint, Qt.ItemDataRole.AccessibleDescriptionRole)
        self.order.setToolTip(plain_tip(hint))
        self.order.setAccessibleDescription(hint)
        if not there:
            self.order.setCurrentIndex(0)
