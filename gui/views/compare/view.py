"""The compare view: a live A/B test on one page, two saved runs side by side on the other."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QModelIndex, QSortFilterProxyModel, Qt
from PySide6.QtWidgets import (
    QComboBox,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QScrollArea,
    QStackedLayout,
    QTabBar,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from core.analysis.compare import Comparison, compare
from core.error_text import first_line
from core.errors import Refusal
from core.notices import Status
from core.records.run import Run
from gui.background import Answers
from gui.plain import Label, plain_tip
from gui.setup.sidebar import BUSY
from gui.theme import Palette
from gui.views.base import MeasureFloor, Request, ShowABTest, ShowPair, StartABTest, View, ViewContext
from gui.views.compare.ab_test import ABTestPanel
from gui.views.compare.differences import DELTA, DifferenceModel, DifferenceTile
from gui.views.compare.speed_quality import SpeedQualityPage
from gui.views.compare.verdict_badge import VerdictBadge
from gui.views.saved_runs import Store, started
from gui.views.stretching import LEAST_NAME, NEAR, StretchingColumn

if TYPE_CHECKING:
    from core.execution.ab_test_state import ABTestState

HINT = "Choose two runs above, or select two in Sessions and press Compare."
SAME = "Both sides show the same run; choose another one on one side."
LIVE = "live"
TILE_WIDTH = 178
TILE_COLUMNS = (3, 4, 5)
PAGES = ("A/B test", "Saved runs", "Speed × quality")


class CompareView(View):
    """One page a question: which setup is faster, asked now; how do two recorded runs differ; and which run is worth its cost.

    The second has two choosers, tiles, the verdict or what stands in its way, and the layers by the size of the difference.
    """

    follows_run = False

    def __init__(self, context: ViewContext, parent: QWidget | None = None) -> None:
        super().__init__(context, parent)
        state = self.state
        self.setObjectName("compareView")
        self.store: Store | None = None
        self.comparison: Comparison | None = None
        self._live: Run | None = None
        self._pair: tuple[Run, Run] | None = None
        self._tiles: list[DifferenceTile] = []
        self._read, self._compared = Answers(context.background), Answers(context.background)
        self._reopened: ABTestState | None = None
        self._palette: Palette | None = None
        self._build_head()
        self._build_body()
        self.trial = ABTestPanel(context.background, context.meter, self)
        self.trial.setup.trial_asked.connect(context.actions.start_trial)
        self.trial.setup.read_sidebar = context.actions.read_setup
        self.trial.layer_selected.connect(state.select_layer)
        self.speed_quality = SpeedQualityPage(context, self)
        self.speed_quality.run_opened.connect(state.open_run)
        self._lay_out()
        self.setup_changed()
        state.pair_changed.connect(self.show_pair)
        state.layer_selected.connect(self._select_layer)
        self._explain(HINT)

    @property
    def explanation(self) -> str:
        """The sentence on show instead of a comparison, "" while there is one."""
        return self.hint.text() if self._stack.currentIndex() == 0 else ""

    def can(self, request: Request) -> bool:
        """Everything about more than one run."""
        return isinstance(request, ShowPair | ShowABTest | StartABTest | MeasureFloor)

    def do(self, request: Request) -> None:
        """Turn to the page that it is about."""
        self.show_saved(isinstance(request, ShowPair))
        match request:
            case ShowPair(pair):
                self.state.compare(pair)
            case ShowABTest(ended):
                self.reopen(ended)
            case StartABTest():
                self.trial.setup.start()
            case MeasureFloor():
                self.trial.setup.start_floor()

    def show_saved(self, saved: bool) -> None:
        """Turn to the page of saved runs, or to that of A/B tests."""
        self.pages.setCurrentIndex(int(saved))

    def show_trial(self, state: ABTestState | None) -> None:
        """The A/B test that is running, or was last; a saved one that was opened again stays until another begins."""
        if state is not None and state.stopped is None:
            self._reopened = None
        self.trial.show_trial(self._reopened or state)

    def reopen(self, state: ABTestState) -> None:
        """Show how a saved A/B test ended, with its sides and caps chosen as they were."""
        self._reopened = state
        self.trial.setup.reopen(state.config, [run.id for run in state.runs])
        self.trial.show_trial(state)

    def setup_changed(self) -> None:
        """For the sides that follow the sidebar."""
        self.trial.setup.refresh()

    def show_status(self, status: Status) -> None:
        """Nothing can be begun while something is going on."""
        self.trial.show_status(status, busy=status.state in BUSY)

    def poll(self) -> None:
        """Tell how files that were being written turned out."""
        self.speed_quality.poll()
        self.trial.poll(self.context.say)

    def set_store(self, store: Store | None) -> None:
        """Offer the runs of another session, or of the same one after it changed."""
        self.store = store
        self._offer()
        self._choose_latest()
        self.speed_quality.set_store(store)

    def show_run(self, run: Run | None) -> None:
        """Remember the run on show, so that it can be chosen."""
        appeared = (run is None) != (self._live is None)
        self._live = run
        self.speed_quality.show_run(run)
        if appeared:
            self._offer()

    def show_slow(self, run: Run | None, _summary: Any) -> None:
        """As ``show_run``: two finished runs do not change."""
        self.show_run(run)

    def show_pair(self, pair: tuple[Run, Run] | None) -> None:
        """Lay two runs side by side."""
        self._pair = pair
        self._offer()
        if pair is None:
            self._compared.drop()
            self._explain(HINT)
            return

        def done(future: Future[Any]) -> None:
            error = future.exception()
            if error is None:
                self._show(future.result())
            else:
                self._explain(first_line(error))

        self._compared.ask(lambda: compare(*pair), done)

    def set_palette(self, palette: Palette) -> None:
        """Repaint in other colours."""
        self.model.palette_in_use = palette
        self._palette = palette
        self._page_frame.setStyleSheet(
            f"#pageFrame {{ background: {palette.raised}; border: none; border-radius: 8px; }}"
            " QTabBar { background: transparent; }"
            " QTabBar::tab { background: transparent; padding: 4px 12px; border-radius: 6px; border: 1px solid transparent;"
            f" margin: 0; color: {palette.muted}; }}"
            f" QTabBar::tab:selected {{ background: {palette.card}; color: {palette.text};"
            f" border-color: {palette.border}; font-weight: 600; }}"
            f" QTabBar::tab:focus {{ border-color: {palette.accent}; }}"
        )
        self.badge.set_palette(palette)
        self.trial.set_palette(palette)
        self.speed_quality.set_palette(palette)
        self.table.viewport().update()

    def _build_head(self) -> None:
        self.first, self.second = QComboBox(self), QComboBox(self)
        self._head = QHBoxLayout()
        self._head.setSpacing(8)
        for combo, name in ((self.first, "First"), (self.second, "Second")):
            label = Label(name, self)
            label.setProperty("role", "muted")
            label.setBuddy(combo)
            combo.setObjectName(f"compare{name}")
            combo.setAccessibleName(f"{name} run")
            combo.setMinimumContentsLength(12)
            combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            combo.activated.connect(self._choose)
            self._head.addWidget(label)
            self._head.addWidget(combo, 1)
        self.badge = VerdictBadge(self)
        self.badge.trial_wanted.connect(self._decide)

    def _lay_out(self) -> None:
        self.pages = QTabBar(self)
        self.pages.setObjectName("comparePages")
        self.pages.setAccessibleName("A/B test, saved runs, or speed and quality")
        self.pages.setDrawBase(False)
        self.pages.setExpanding(False)
        for page in PAGES:
            self.pages.addTab(page)
        self._page_frame = frame = QFrame(self)
        frame.setObjectName("pageFrame")
        inside = QHBoxLayout(frame)
        inside.setContentsMargins(3, 3, 3, 3)
        inside.addWidget(self.pages)
        saved = QWidget(self)
        column = QVBoxLayout(saved)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(10)
        column.addLayout(self._head)
        column.addWidget(self.badge)
        column.addLayout(self._stack, 1)
        body = QStackedLayout()
        body.addWidget(self.trial)
        body.addWidget(saved)
        body.addWidget(self.speed_quality)
        self.pages.currentChanged.connect(body.setCurrentIndex)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 12, 12, 12)
        layout.setSpacing(10)
        layout.addWidget(frame, 0, Qt.AlignmentFlag.AlignLeft)
        layout.addLayout(body, 1)

    def _build_body(self) -> None:
        self.hint = Label(self)
        self.hint.setProperty("role", "hint")
        self.hint.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.hint.setWordWrap(True)
        empty = QFrame(self)
        empty.setProperty("card", True)
        QVBoxLayout(empty).addWidget(self.hint)
        self._grid = QGridLayout()
        self._grid.setSpacing(8)
        self.warnings = Label(self)
        self.warnings.setProperty("role", "muted")
        self.warnings.setWordWrap(True)
        self.warnings.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._build_table()
        card = QFrame(self)
        card.setProperty("card", True)
        inner = QVBoxLayout(card)
        inner.setContentsMargins(8, 6, 8, 8)
        inner.addWidget(self.table)
        content = QWidget(self)
        column_box = QVBoxLayout(content)
        column_box.setContentsMargins(0, 0, 0, 0)
        column_box.setSpacing(10)
        column_box.addLayout(self._grid)
        column_box.addWidget(self.warnings)
        column_box.addWidget(card, 1)
        area = QScrollArea(self)
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setWidget(content)
        self._stack = QStackedLayout()
        self._stack.addWidget(empty)
        self._stack.addWidget(area)

    def _build_table(self) -> None:
        self.model = DifferenceModel(self)
        self.proxy = QSortFilterProxyModel(self)
        self.proxy.setSourceModel(self.model)
        self.proxy.setSortRole(Qt.ItemDataRole.UserRole)
        self.table = QTableView(self)
        self.table.setObjectName("compareLayers")
        self.table.setAccessibleName("Layers of both runs")
        self.table.setModel(self.proxy)
        self.table.setSortingEnabled(True)
        self.table.sortByColumn(DELTA, Qt.SortOrder.DescendingOrder)
        self.table.setSelectionBehavior(QTableView.SelectionBehavior.SelectRows)
        self.table.setShowGrid(False)
        self.table.setAlternatingRowColors(True)
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(24)
        header = self.table.horizontalHeader()
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        header.setHighlightSections(False)
        self._name_column = StretchingColumn(self.table, 0, LEAST_NAME, NEAR)
        for column, width in enumerate((0, 80, 80, 86, 86, 96, 76)):
            if width:
                self.table.setColumnWidth(column, width)
        self.table.setMinimumHeight(220)
        self.table.selectionModel().currentRowChanged.connect(self._on_row)

    def _show(self, found: Comparison) -> None:
        self.comparison = found
        for tile in self._tiles:
            tile.setParent(None)
            tile.deleteLater()
        columns = max(TILE_COLUMNS[0], min(TILE_COLUMNS[-1], self.width() // TILE_WIDTH))
        self._tiles = [DifferenceTile(tile, self) for tile in found.tiles]
        for order, widget in enumerate(self._tiles):
            self._grid.addWidget(widget, *divmod(order, columns))
        for column in range(TILE_COLUMNS[-1]):
            self._grid.setColumnStretch(column, 1 if column < columns else 0)
        self.badge.show_comparison(found)
        told = [str(warning) for warning in found.untold]
        self.warnings.setText("\n".join(f"⚠ {warning[:1].upper()}{warning[1:]}." for warning in told))
        self.warnings.setVisible(bool(told))
        self.model.set_rows(found.layers)
        self._explain(None)
        self._select_layer(self.state.layer)

    def _decide(self) -> None:
        """Turn to the A/B test with the setups of both runs as its sides."""
        if self._pair is not None:
            self.trial.setup.compare(*self._pair)
            self.show_saved(False)

    def _offer(self) -> None:
        """Fill both choosers: the run on show, then the session's runs, newest first."""
        entries: list[tuple[str, str, Any]] = []
        if self._live is not None:
            entries.append((f"on show: {self._live.name or 'run'}", started(self._live.created), LIVE))
        try:
            heads = [] if self.store is None else list(self.store.runs())
        except Refusal as refusal:
            heads = []
            self.context.say(str(refusal))
        self.trial.setup.offer_saved(heads)
        entries += [(f"{head.id} · {head.name or 'run'}", started(head.created), head.id) for head in reversed(heads)]
        for combo, side in ((self.first, 0), (self.second, 1)):
            chosen = self._pair[side].id if self._pair is not None else combo.currentData()
            combo.blockSignals(True)
            combo.clear()
            for row, (text, tip, key) in enumerate(entries):
                combo.addItem(text, key)
                combo.setItemData(row, plain_tip(tip), Qt.ItemDataRole.ToolTipRole)
            combo.setCurrentIndex(next((row for row, (_, _, key) in enumerate(entries) if key == chosen), -1))
            combo.setPlaceholderText("choose a run")
            combo.blockSignals(False)

    def _choose_latest(self) -> None:
        """Where nothing was chosen yet, the session's last two runs are what people most often want to see."""
        saved = [row for row in range(self.first.count()) if self.first.itemData(row) != LIVE]
        untouched = self._pair is None and self.first.currentIndex() < 0 and self.second.currentIndex() < 0
        if untouched and len(saved) > 1:
            for combo, row in ((self.first, saved[1]), (self.second, saved[0])):
                combo.blockSignals(True)
                combo.setCurrentIndex(row)
                combo.blockSignals(False)
            self._choose()

    def _choose(self) -> None:
        first, second = self.first.currentData(), self.second.currentData()
        if first is None or second is None:
            return
        if first == second:
            self._explain(SAME)
            return

        def done(future: Future[Any]) -> None:
            error = future.exception()
            if error is None:
                self.state.compare(future.result())
            else:
                self._explain(first_line(error))

        store, live = self.store, self._live

        def read() -> tuple[Run | None, ...]:
            return tuple(live if key == LIVE or store is None else store.read(key) for key in (first, second))

        self._read.ask(read, done)

    def _on_row(self, index: QModelIndex, _: QModelIndex) -> None:
        if index.isValid():
            self.state.select_layer(self.model.rows[self.proxy.mapToSource(index).row()].path)

    def _select_layer(self, path: str) -> None:
        current = self.proxy.mapToSource(self.table.currentIndex())
        if current.isValid() and self.model.rows[current.row()].path == path:
            return
        row = next((row for row, layer in enumerate(self.model.rows) if layer.path == path), None) if path else None
        if row is None:
            self.table.selectionModel().clear()
        else:
            self.table.setCurrentIndex(self.proxy.mapFromSource(self.model.index(row, 0)))

    def _explain(self, text: str | None) -> None:
        if text is not None:
            self.hint.setText(text)
        self._stack.setCurrentIndex(1 if text is None else 0)
        self.badge.setVisible(text is None)
