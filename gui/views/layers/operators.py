"""The operators panel: which operators and kernels ran in the selected layer, from the moments under torch.profiler."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QGuiApplication, QKeySequence, QResizeEvent, QShortcut
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QStackedLayout, QToolButton, QTreeView, QWidget

from core import units
from core.error_text import first_line
from core.records.run import Run
from gui.background import Answers, InBackground
from gui.charts.card import Card
from gui.charts.menu import as_tsv
from gui.plain import Label, plain_tip
from gui.views.layers.operator_model import COLUMNS, LAYER, MOMENT, SELF, TITLES, OperatorModel
from gui.views.stretching import LEAST_NAME, NEAR, StretchingColumn

NOT_RECORDED = (
    "No operators were recorded in this run. Switch on “Operators and kernels” under Instruments and run again: "
    "one slow request is added at the end, after everything that is measured."
)
LATER = "The operators are shown when the run has ended: they come from its last request."
WORKING = "Adding up the operators …"
NARROW = 900
LOW = 76  # height while there is only a sentence to show
WIDE_ONLY = ("Bytes", "Allocated", "Shapes")


class OperatorsPanel(Card):
    """``show_run`` says which run, layer and kind of moment; the table follows, added up beside the GUI thread."""

    filled = Signal(bool)  # whether there is a table to show

    def __init__(self, in_background: InBackground, parent: QWidget | None = None) -> None:
        super().__init__("Operators", "operatorsPanel", parent)
        self._answers = Answers(in_background)
        self._run: Run | None = None
        self._layer, self._kind = "", ""
        self._key: tuple[Any, ...] = ()  # what the table shows, or is being asked for
        self.model = OperatorModel(self)
        self._build_head()
        self._build_table()
        self.sentence = Label(self)
        self.sentence.setProperty("role", "hint")
        self.sentence.setWordWrap(True)
        self.sentence.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self._stack = QStackedLayout()
        self._stack.addWidget(self.sentence)
        self._stack.addWidget(self.table)
        self.box.addLayout(self._stack, 1)
        self._explain(NOT_RECORDED)

    @property
    def explanation(self) -> str:
        """The sentence on show instead of the table, "" while the table is."""
        return self.sentence.text() if self._stack.currentIndex() == 0 else ""

    def show_run(self, run: Run | None, layer: str, kind: str) -> None:
        """The operators of ``layer`` ("": all) in moments of ``kind`` ("": all)."""
        known = run is not None and any(one.path == layer for one in run.trace.layers)  # selected in another run's model
        self._run, self._layer, self._kind = run, layer if known else "", kind
        self._refresh()

    def copy(self) -> None:
        """Put what is shown on the clipboard as tab-separated text."""
        QGuiApplication.clipboard().setText(as_tsv(self.model.table()))

    def _build_head(self) -> None:
        self.only_layer = _toggle("Selected layer", "Only operators of the selected layer and those inside it", self)
        self.only_layer.setChecked(True)
        self.by_layer = _toggle("By layer", "One row for each layer that calls the operator", self)
        self.filter = QLineEdit(self)
        self.filter.setObjectName("operatorFilter")
        self.filter.setPlaceholderText("Filter operators")
        self.filter.setAccessibleName("Filter operators")
        self.filter.setClearButtonEnabled(True)
        self.filter.setMaximumWidth(200)
        row = QHBoxLayout()
        row.setSpacing(8)
        for widget in (self.only_layer, self.by_layer, self.filter):
            row.addWidget(widget)
            self.head_buttons.append(widget)
        self.head.addLayout(row)
        self.only_layer.toggled.connect(self._refresh)
        self.by_layer.toggled.connect(self._refresh)
        self.filter.textChanged.connect(lambda text: self.model.set_filter(text.strip()))

    def _build_table(self) -> None:
        self.table = table = QTreeView(self)
        table.setObjectName("operatorTable")
        table.setAccessibleName("Operators")
        table.setModel(self.model)
        table.setUniformRowHeights(True)
        table.setAlternatingRowColors(True)
        table.setSortingEnabled(True)
        table.sortByColumn(SELF, Qt.SortOrder.DescendingOrder)
        header = table.header()
        header.setStretchLastSection(False)
        self._name_column = StretchingColumn(table, 0, LEAST_NAME, NEAR)
        for number, column in enumerate(COLUMNS):
            if column.width:
                header.resizeSection(number, column.width)
        shortcut = QShortcut(QKeySequence(QKeySequence.StandardKey.Copy), table)
        shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
        shortcut.activated.connect(self.copy)

    def _refresh(self) -> None:
        """Ask for the rows if they are others than those on show."""
        run = self._run
        if run is None:
            self._explain(NOT_RECORDED)
            return
        if run.facts.status == "running":
            self._explain(LATER if "kernels" in run.config.profilers else NOT_RECORDED)
            return
        if not len(run.trace.operators["moment"]):
            self._explain(_why_none(run))
            return
        layer = self._layer if self.only_layer.isChecked() and self._layer else None
        kind, by_layer = self._kind or None, self.by_layer.isChecked()
        key = (run.id, run.created, len(run.trace.operators["moment"]), layer, kind, by_layer)
        if key == self._key:
            return
        self._explain(WORKING)
        self._key = key
        self._answers.ask(lambda: _work(run, layer, kind, by_layer), lambda future: self._on_rows(key, future))

    def _on_rows(self, key: tuple[Any, ...], future: Future[Any]) -> None:
        error = future.exception()
        if error is not None:
            self._explain(f"The operators could not be added up: {first_line(error)}.")
            return
        rows, slower = future.result()
        layer, kind = key[3], key[4]
        self.model.set_rows(rows)
        self.table.setRootIsDecorated(any(group.parts for group in self.model.shown))
        self.table.setColumnHidden(LAYER, not self.by_layer.isChecked())
        self.table.setColumnHidden(MOMENT, kind is not None)
        self.title.setText(f"Operators of {layer}" if layer else "Operators")
        moment = f"{kind.replace('_', ' ')} moment" if kind else "moments"
        ratio = (slower or {}).get(kind)
        if self._run is not None and self._run.facts.status == "imported":
            self.set_note("all steps of the imported trace", "imported trace")
        elif ratio is None:
            self.set_note(f"median profiled {moment}", f"profiled {moment}")
        else:
            cost = f"{units.ratio(ratio)} as long as a clean one"
            self.set_note(f"median profiled {moment}, {cost}", f"profiled: {cost}", f"profiled: {units.ratio(ratio)}")
        if rows:
            self._show_table(True)
        else:
            where = f"in {layer} itself or inside it" if layer else f"in {kind} moments"
            self._explain(f"No operator ran {where}.")
            self._key = key

    def _explain(self, text: str) -> None:
        self._key = ()
        self._answers.drop()
        self.sentence.setText(text)
        if text not in (WORKING,) or self._stack.currentIndex() == 0:
            self._show_table(False)

    def _show_table(self, there: bool) -> None:
        self._stack.setCurrentIndex(1 if there else 0)
        layers = self._run is not None and bool(self._run.trace.layers)
        self.filter.setVisible(there)
        self.note.setVisible(there)
        self.by_layer.setVisible(there and layers)
        self.only_layer.setVisible(bool(self.model.rows and self._layer))
        self.filled.emit(there)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        for name in WIDE_ONLY:
            self.table.setColumnHidden(TITLES.index(name), self.width() < NARROW)


def _work(run: Run, layer: str | None, kind: str | None, by_layer: bool) -> tuple[list[Any], dict[str, float] | None]:
    from core.analysis.operators import operator_rows, slowdown

    return operator_rows(run, layer, kind, by_layer=by_layer), slowdown(run)


def _why_none(run: Run) -> str:
    if run.facts.status == "imported":
        return "The imported trace has no operators."
    why = run.facts.why_missing("kernels", "operators")
    return NOT_RECORDED if why is None else f"No operators were recorded: {why}."


def _toggle(text: str, tip: str, parent: QWidget) -> QToolButton:
    button = QToolButton(parent)
    button.setText(text)
    button.setToolTip(plain_tip(tip))
    button.setCheckable(True)
    button.setProperty("toggle", True)
    return button
