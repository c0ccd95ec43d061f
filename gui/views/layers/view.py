"""The layers view: every module of the model with its times and counts as a tree, and the operators that ran inside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import QItemSelection, QModelIndex, QSortFilterProxyModel, Qt
from PySide6.QtGui import QGuiApplication, QKeySequence, QResizeEvent, QShortcut
from PySide6.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLineEdit,
    QMenu,
    QSplitter,
    QToolButton,
    QTreeView,
    QVBoxLayout,
    QWidget,
)

from core.analysis.layer_roles import lowest, role, roles_of, together
from core.analysis.select import main_kind
from core.analysis.summary import layers_json
from core.notices import Status
from core.records.run import Run
from gui.charts.heat import hidden_layers
from gui.charts.menu import as_tsv
from gui.charts.quantities import missing_count
from gui.elided import Elided
from gui.plain import plain_tip
from gui.theme import Palette
from gui.views.base import Request, ShowRun, View, ViewContext
from gui.views.hinted import HintedCard
from gui.views.layers.basis_note import LISTED, BasisNote, basis_note
from gui.views.layers.layer_columns import BESIDE, COLUMNS, COUNTED, SHARE, TITLES
from gui.views.layers.layer_errors import LayerErrors, no_layer_errors
from gui.views.layers.layer_model import LISTS, PATH_ROLE, SORT_ROLE, LayerModel
from gui.views.layers.operators import LOW, OperatorsPanel
from gui.views.layers.share_delegate import ShareDelegate
from gui.views.stretching import NEAR, StretchingColumn

NARROW = 900
QWIDGETSIZE_MAX = (1 << 24) - 1  # Qt's own "no limit", which PySide does not name
NO_PRODUCTS = "this run does not say what its layers multiply (an older file, or another engine)"
NO_CEILINGS = "what this machine can do at most was not measured yet, or while others computed; a run with a pass does that"
LEAST_NAME = 190  # pixels: an indented "layers.12" and what hangs below it
STAGE = TITLES.index("Stage")  # the last column of text
RATES = ("total_share", "bytes_per_s", "operations_per_s", "limit_share")
IMPORTED = "An imported trace has no layers; the operators are below."


class LayersView(View):
    """Times of a median moment of the chosen kind, scaled to clean moments."""

    def __init__(self, context: ViewContext, parent: QWidget | None = None) -> None:
        super().__init__(context, parent)
        state = self.state
        self.setObjectName("layersView")
        self._run: Run | None = None
        self._rows: list[Mapping[str, Any]] = []
        self._kinds: tuple[str, ...] = ()
        self._split = False  # whether there are operators beside the tree
        self._wanted: dict[int, bool] = {}  # columns that the user asked to see or to hide
        self._basis, self._partial = BasisNote(), ""  # the latter: why the main kind of moment has no layers
        self._build_head()
        self._build_tree()
        self.errors = LayerErrors(self)
        self.errors.layer_selected.connect(state.select_layer)
        self.operators = OperatorsPanel(context.background, self)
        self.card = card = HintedCard(self.tree, LISTED, self)
        self.hint, self._stack = card.hint, card.stack
        self.splitter = QSplitter(Qt.Orientation.Vertical, self)
        self.splitter.setChildrenCollapsible(False)
        self.splitter.setHandleWidth(10)
        self.splitter.setStyleSheet("QSplitter::handle { background: transparent; }")
        self.splitter.addWidget(card)
        self.splitter.addWidget(self.operators)
        self.operators.filled.connect(self._on_operators)
        self._on_operators(False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 12, 12, 12)
        layout.setSpacing(10)
        layout.addWidget(self.bar)
        layout.addWidget(self.errors)
        layout.addWidget(self.splitter, 1)
        state.layer_selected.connect(self.select_layer)
        state.run_changed.connect(self._on_run_changed)

    @property
    def kind(self) -> str:
        """The kind of moment on show, "" for none."""
        return self.kind_combo.currentData() or ""

    @property
    def explanation(self) -> str:
        """The sentence on show instead of the table, "" while the table is."""
        return self.hint.text() if self._stack.currentIndex() == 0 else ""

    def can(self, request: Request) -> bool:
        """A run that has operators and no moments."""
        return isinstance(request, ShowRun)

    def show_status(self, status: Status) -> None:
        self.card.say_status(status)

    def show_run(self, run: Run | None) -> None:
        """Nothing of a table needs to move at the pace of curves; only "no run" is told at once."""
        if run is None:
            self.show_slow(None, None)

    def show_slow(self, run: Run | None, summary: Mapping[str, Any] | None) -> None:
        """The layer times of a run; ``summary`` spares computing them again."""
        self._run = run
        if run is not None and run.facts.status == "running" and not self.isVisible():
            return  # the bridge calls again at the end, and when this view comes up
        timed = run is not None and len(run.trace.spans["layer"]) > 0
        only_operators = (
            run is not None and not timed and run.facts.status == "imported" and len(run.trace.operators["moment"]) > 0
        )
        self.card.setVisible(not only_operators)
        self.bar.setVisible(not only_operators)
        if run is None:
            self.errors.show_errors({})
            self._rows = []
            self._explain(self.card.start)
            self._show_operators()
            return
        self._rows = list(summary["layers"] if summary is not None else layers_json(run))
        self._offer_kinds()
        if not self._rows:
            waiting = "No layer has been timed yet: the first traced moment after warm-up shows them."
            none = "This run has no layer times: no traced moment was kept."
            why = IMPORTED if run.facts.status == "imported" else self._hidden(run, summary)
            self._explain(why or (waiting if run.facts.status == "running" else none))
            self._show_operators()
            return
        self._partial = self._hidden(run, summary) if main_kind(run.trace.moments) not in self._kinds else ""
        self._show_structure()
        self._show_kind()
        self._explain(None)
        self.select_layer(self.state.layer)

    def select_layer(self, path: str) -> None:
        """Select the layer's row and make it visible."""
        shown = role(path) if self.by_role.isChecked() else path
        index = self.proxy.mapFromSource(self.model.index_of(shown)) if path else QModelIndex()
        if not index.isValid():
            self.tree.selectionModel().clearSelection()
        elif index != self.tree.currentIndex() or not self.tree.selectionModel().isRowSelected(index.row(), index.parent()):
            self.tree.setCurrentIndex(index)
            self.tree.scrollTo(index)
        self._show_operators()

    def set_palette(self, palette: Palette) -> None:
        """Repaint in other colours."""
        self._delegate.palette_in_use = palette
        self.errors.set_palette(palette)
        self.tree.viewport().update()

    def table(self) -> dict[str, list[Any]]:
        """The layers of the chosen kind as columns, for the clipboard."""
        rows = self._rows_of(self.kind)
        names = ("path", "type", "stage", "kind", "calls", "total_ns", "self_ns", "share", *RATES, *COUNTED.values())
        return {name: [row.get(name) for row in rows] for name in names}

    def _build_head(self) -> None:
        self.filter = QLineEdit(self)
        self.filter.setObjectName("layerFilter")
        self.filter.setPlaceholderText("Filter layers")
        self.filter.setAccessibleName("Filter layers")
        self.filter.setClearButtonEnabled(True)
        self.filter.setMinimumWidth(110)
        self.filter.setMaximumWidth(320)
        self.filter.textChanged.connect(self._filter)
        self.kind_combo = QComboBox(self)
        self.kind_combo.setObjectName("layerKind")
        self.kind_combo.setAccessibleName("Kind of moment")
        self.kind_combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self.kind_combo.currentIndexChanged.connect(self._show_kind)
        self.note = Elided(self)
        self.note.setProperty("role", "muted")
        self.bar = QWidget(self)
        self._head = QHBoxLayout(self.bar)
        self._head.setContentsMargins(0, 0, 0, 0)
        self._head.setSpacing(8)
        self._head.addWidget(self.filter, 2)
        self._head.addWidget(self.kind_combo)
        self._head.addWidget(self.note, 1)
        self.by_role = QToolButton(self)
        self.by_role.setObjectName("layersByRole")
        self.by_role.setText("By role")
        self.by_role.setCheckable(True)
        self.by_role.setToolTip("The same module of every block as one row: all mlp.up_proj together")
        self.by_role.toggled.connect(self._on_by_role)
        self._head.addWidget(self.by_role)
        for text, tip, call in (
            ("Blocks", "Show the blocks and close what is inside them", self._expand_to_blocks),
            ("Expand all", "Show every layer", lambda: self.tree.expandAll()),
            ("Copy", "Copy the table as text for a spreadsheet (Ctrl+C)", self.copy),
        ):
            button = QToolButton(self)
            button.setText(text)
            button.setToolTip(plain_tip(tip))
            button.clicked.connect(call)
            self._head.addWidget(button)

    def _build_tree(self) -> None:
        self.model = LayerModel(self)
        self.proxy = QSortFilterProxyModel(self)
        self.proxy.setSourceModel(self.model)
        self.proxy.setSortRole(SORT_ROLE)
        self.proxy.setFilterRole(PATH_ROLE)
        self.proxy.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.proxy.setRecursiveFilteringEnabled(True)
        # Sorted again when new values are complete, not at each of a thousand changed cells.
        self.proxy.setDynamicSortFilter(False)
        self.tree = QTreeView(self)
        self.tree.setObjectName("layerTable")
        self.tree.setAccessibleName("Layers")
        self.tree.setModel(self.proxy)
        self.tree.setUniformRowHeights(True)
        self.tree.setIndentation(16)
        self.tree.setAlternatingRowColors(True)
        self.tree.setSelectionBehavior(QTreeView.SelectionBehavior.SelectRows)
        self.tree.setSortingEnabled(True)
        self.tree.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self._delegate = ShareDelegate(self.tree)
        self.tree.setItemDelegateForColumn(SHARE, self._delegate)
        header = self.tree.header()
        header.setStretchLastSection(False)
        self._name_column = StretchingColumn(self.tree, 0, LEAST_NAME, NEAR)
        for column, told in enumerate(COLUMNS):
            if told.width:
                header.resizeSection(column, told.width)
        header.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        header.customContextMenuRequested.connect(lambda at: self.column_menu().popup(header.mapToGlobal(at)))
        self.tree.selectionModel().selectionChanged.connect(self._on_selected)
        shortcut = QShortcut(QKeySequence(QKeySequence.StandardKey.Copy), self.tree)
        shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
        shortcut.activated.connect(self.copy)

    def column_menu(self) -> QMenu:
        """The head's menu: which columns are shown. The layer's name always is."""
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for column, told in list(enumerate(COLUMNS))[1:]:
            action = menu.addAction(told.title)
            action.setCheckable(True)
            action.setChecked(not self.tree.isColumnHidden(column))
            action.setToolTip(plain_tip(told.meaning))
            action.toggled.connect(lambda on, chosen=column: self.show_column(chosen, on))
        menu.setToolTipsVisible(True)
        return menu

    def show_column(self, column: int, on: bool) -> None:
        """Show or hide a column, and keep it so whatever a run has to show."""
        self._wanted[column] = on
        self._fit_columns()

    def _fit_columns(self) -> None:
        """What the user asked for; else what there is data and room for."""
        narrow = self.width() < NARROW
        self.note.setVisible(not self.explanation and (not narrow or bool(self._partial) or self._basis.doubtful))
        for column, told in list(enumerate(COLUMNS))[1:]:
            empty = (told.optional or told.value is None) and column > STAGE and not self.model.known(column)
            shown = not (empty or told.seldom or (narrow and told.roomy))
            self.tree.setColumnHidden(column, not self._wanted.get(column, shown))
        self._name_column.fit()

    def _show_structure(self) -> None:
        """The module tree, or one row for each role in it, with the layer errors of the run's passes."""
        run = self._run
        if run is None:
            return
        layers = roles_of(run.trace.layers)[0] if self.by_role.isChecked() else run.trace.layers
        if self.model.set_layers(layers):
            if self.by_role.isChecked():
                self.tree.expandAll()  # there are few
            else:
                self._expand_to_blocks()
        quality = run.facts.quality
        found = {} if quality is None else quality.layer_sqnr_db
        self.model.set_errors(lowest(found) if self.by_role.isChecked() else found, no_layer_errors(run))
        self.errors.show_errors(found)

    def _on_run_changed(self, run: Run | None) -> None:
        """A method, not a lambda: that would stay connected, and keep this view, when the view is gone."""
        if run is None:
            self.show_run(None)

    def _on_by_role(self) -> None:
        self._show_structure()
        self._show_kind()
        self.select_layer(self.state.layer)

    def _show_operators(self) -> None:
        kind = self.kind if self._rows else ""
        self.operators.show_run(self._run, self.state.layer, kind)

    def _on_operators(self, there: bool) -> None:
        """A sentence needs no more than its own height; a table gets two fifths."""
        self.operators.setMaximumHeight(QWIDGETSIZE_MAX if there else LOW)
        if there and not self._split:
            self.splitter.setSizes([3000, 2000])
        self._split = there

    def copy(self) -> None:
        """Put the table on the clipboard as tab-separated text."""
        QGuiApplication.clipboard().setText(as_tsv(self.table()))

    def _offer_kinds(self) -> None:
        kinds = tuple(sorted({row["kind"] for row in self._rows}, key=lambda kind: (kind != "decode", kind)))
        if kinds == self._kinds:
            return
        chosen = self.kind
        self._kinds = kinds
        self.kind_combo.blockSignals(True)
        self.kind_combo.clear()
        for kind in kinds:
            self.kind_combo.addItem(f"{kind.replace('_', ' ')} moments", kind)
        self.kind_combo.setCurrentIndex(max(0, kinds.index(chosen) if chosen in kinds else 0))
        self.kind_combo.blockSignals(False)
        self.kind_combo.setVisible(bool(kinds))

    def _show_kind(self) -> None:
        self.model.beside = next((kind for kind in self._kinds if kind != self.kind), "")
        rows, beside = self._rows_of(self.kind), self._rows_of(self.model.beside)
        if self._run is not None:
            self.model.no_counts = missing_count(self._run, "cycles")
            self.model.no_rates = "" if self._run.facts.layer_products else NO_PRODUCTS
            self.model.no_limit = "" if self._run.facts.ceilings is not None else NO_CEILINGS
        self.model.set_times(rows, beside)
        self.model.headerDataChanged.emit(Qt.Orientation.Horizontal, BESIDE, BESIDE)
        self._basis = basis_note(self._run, self.kind, rows)
        for widget in (self.note, self.kind_combo):
            widget.setToolTip(plain_tip(self._partial or self._basis.text))
        self.note.setText(self._partial or self._basis.text)
        self._fit_columns()
        self._show_operators()
        running = self._run is not None and self._run.facts.status == "running"
        if self.tree.header().sortIndicatorSection() > 0 and not running:
            self.proxy.invalidate()  # while a run is going rows keep their places; a click on the header sorts them anew
        self.tree.viewport().update()

    def _rows_of(self, kind: str) -> list[Mapping[str, Any]]:
        """Rows of one kind of moment, by layer or by role."""
        rows = [row for row in self._rows if row["kind"] == kind]
        return list(together(rows)) if self.by_role.isChecked() else rows

    def _hidden(self, run: Run, summary: Mapping[str, Any] | None) -> str:
        """Why there are no layer times of the moments that the run is about."""
        kind = main_kind(run.trace.moments)
        for item in (summary or {}).get("unavailable", ()):
            if item["what"] in ("layers", f"layers of {kind}"):
                return f"No layer times of {kind} moments: {item['why']}."
        return hidden_layers(run, kind)

    def _filter(self, text: str) -> None:
        self.proxy.setFilterFixedString(text.strip())
        if text.strip():
            self.tree.expandAll()
        else:
            self._expand_to_blocks()

    def _expand_to_blocks(self) -> None:
        """Open the way to the blocks, and leave the blocks themselves closed."""
        self.tree.collapseAll()
        layers = self.model.layers
        for number, layer in enumerate(layers):
            if layer.type in LISTS or layer.parent < 0:
                above = number
                while above >= 0:
                    self.tree.expand(self.proxy.mapFromSource(self.model.index_of(layers[above].path)))
                    above = layers[above].parent
                if layer.type in LISTS:
                    return

    def _on_selected(self, selected: QItemSelection, _: QItemSelection) -> None:
        indexes = selected.indexes()
        if not indexes:
            return
        path = indexes[0].data(PATH_ROLE)
        if self.by_role.isChecked() and self._run is not None and role(self.state.layer) != path:
            path = next((layer.path for layer in self._run.trace.layers if role(layer.path) == path), "")
        elif self.by_role.isChecked():
            return  # a layer of this role is selected already
        self.state.select_layer(path)

    def _explain(self, text: str | None) -> None:
        if text is not None:
            self.hint.setText(text)
        self._stack.setCurrentIndex(1 if text is None else 0)
        self.kind_combo.setVisible(text is None)
        self._fit_columns()
        self.filter.setEnabled(text is None)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit_columns()
