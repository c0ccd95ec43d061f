"""The views: tiles, live grid, layer table, sessions and comparison, each with and without a run."""

from __future__ import annotations

import re
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest
from PySide6.QtCore import QModelIndex, QPoint, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFrame, QLabel, QPushButton, QTextEdit, QTreeView, QWidget

from core import units
from core.analysis import metrics
from core.analysis.compare import TileDifference
from core.analysis.summary import summarize
from core.config import ABTestConfig, PassConfig, WorkloadConfig
from core.errors import Refusal
from core.messages.reason import of_text
from core.records.roofline import LayerProduct
from core.records.run import ABTestPart, Group, Unavailable
from core.session.heads import RunHead
from gui.charts.card import START_HINT
from gui.last_folder import short_path
from gui.theme import DARK, LIGHT, stylesheet
from gui.view_state import ViewState
from gui.views.base import ShowPair, ShowRun
from gui.views.compare.differences import difference_text
from gui.views.compare.view import HINT, SAME, CompareView
from gui.views.layers.layer_columns import SHARE, TITLES
from gui.views.layers.layer_model import BAR_ROLE, PATH_ROLE
from gui.views.layers.view import LayersView
from gui.views.live.output import OutputCard
from gui.views.live.view import LiveView
from gui.views.saved_runs import Headline
from gui.views.sessions.session_columns import COLUMNS, MODEL, NAME, NOTE, PASSES, QUALITY, STARTED, STATUS, TPOT, TTFT
from gui.views.sessions.session_columns import TITLES as SESSION_TITLES
from gui.views.sessions.session_tree import key_of
from gui.views.sessions.view import NO_RUNS, NO_STORE, NOT_ALL_SIDES, NOT_FOUND, SessionsView
from profilers.trace import KINDS, Output, Tag, Trace
from tests.support.fakes import first_moments
from tests.support.synthetic import synthetic_run
from tests.support.view_context import context

TILES = ("statTTFT", "statTPOT", "statITL", "statDecode", "statPeakMemory", "statObserver")
CHARTS = ("latencyChart", "memoryChart", "layerHeat", "stageBars", "utilizationChart")


@pytest.fixture(scope="module")
def run():
    return synthetic_run(repeats=3, warmup=1, new_tokens=16, blocks=6)


@pytest.fixture(scope="module")
def faster():
    return replace(synthetic_run(repeats=3, warmup=1, new_tokens=16, blocks=6, scale=0.5, seed=1, run_id=2), name="faster")


@pytest.fixture
def state(qtbot):
    return ViewState()


def shown(qtbot, view, size=(1130, 790)):
    qtbot.addWidget(view)
    view.setStyleSheet(stylesheet(DARK))
    view.set_palette(DARK)
    view.resize(*size)
    view.show()
    return view


def show(view, run, intervals=True):
    view.show_run(run)
    view.show_slow(run, None if run is None else summarize(run, intervals=intervals))


# -- live -----------------------------------------------------------------------------------------------------------------


def test_live_view_has_the_promised_names(qtbot, state):
    view = shown(qtbot, LiveView(context(state)))
    for name in (*TILES, *CHARTS):
        assert view.findChild(QFrame, name) is not None, name
    assert view.findChild(QTextEdit, "outputText") is not None


def test_tiles_show_the_summary(qtbot, state, run):
    view = shown(qtbot, LiveView(context(state)))
    show(view, run)
    summary = summarize(run)
    readings = {tile.objectName(): tile.reading for tile in view.tiles.tiles}
    ttft = summary["metrics"]["ttft_ns"]
    assert float(readings["statTTFT"].value) == pytest.approx(ttft["median"] / 1e6, rel=0.01)
    assert readings["statTTFT"].unit == "ms"
    assert re.fullmatch(r"[\d.]+–[\d.]+ · n \d", readings["statTPOT"].sub)  # three requests have a range, and no interval
    assert readings["statTPOT"].sub.endswith(f"n {summary['metrics']['tpot_ns']['n']}")
    assert readings["statITL"].sub == f"median · {summary['metrics']['itl_ns']['n']} gaps"
    assert readings["statDecode"].unit == "tok/s"
    assert readings["statPeakMemory"][:4] == ("950", "MiB", "weights 257 MiB", "")
    assert readings["statObserver"].unit == "%"
    assert readings["statObserver"].tone in ("good", "warn")


def test_itl_tile_shows_p95_from_130_gaps_on(qtbot, state):
    view = shown(qtbot, LiveView(context(state)))
    many = synthetic_run(repeats=5, warmup=1, new_tokens=64, blocks=1)
    show(view, many, intervals=False)
    tile = view.findChild(QFrame, "statITL")
    gaps = summarize(many, intervals=False)["metrics"]["itl_ns"]
    assert gaps["n"] >= 130
    assert tile.reading.sub == f"p95 · {gaps['n']} gaps"
    assert float(tile.reading.value) == pytest.approx(gaps["p95"] / 1e6, rel=0.01)


def test_tiles_explain_themselves(qtbot, state, run):
    view = shown(qtbot, LiveView(context(state)))
    show(view, run)
    itl = view.findChild(QFrame, "statITL")
    assert "AIPerf's ITL is our TPOT" in itl.toolTip()
    assert itl.accessibleName() == "ITL"
    assert itl.accessibleDescription().startswith(f"{itl.reading.value} ms, ")


def test_tiles_without_a_run_or_a_value_are_dashes_with_a_reason(qtbot, state, run):
    view = shown(qtbot, LiveView(context(state)))
    tiles = view.tiles.tiles
    assert {(tile.reading.value, tile.reading.sub) for tile in tiles} == {("—", "no run yet")}
    show(view, replace(run, trace=Trace(layers=run.trace.layers), facts=replace(run.facts, status="running")))
    for tile in tiles[:4]:
        assert tile.reading.value == "—"
        assert tile.reading.sub
        assert "not measured" in tile.accessibleDescription()
    show(view, run)
    assert tiles[0].value.text() != "—"
    show(view, None)
    assert {tile.reading.value for tile in tiles} == {"—"}


def test_tiles_of_an_encoder_say_that_there_are_no_tokens(qtbot, state, run):
    moments = {name: column.copy() for name, column in run.trace.moments.items()}
    moments["kind"][:] = 4
    model = replace(run.facts.model, task="embedding")
    encoder = replace(run, trace=replace(run.trace, moments=moments), facts=replace(run.facts, model=model))
    view = shown(qtbot, LiveView(context(state)))
    show(view, encoder)
    readings = {tile.objectName(): tile.reading for tile in view.tiles.tiles}
    assert readings["statTTFT"].value == "—"
    assert "encoder" in readings["statTTFT"].sub
    assert readings["statDecode"].unit == "tok/s"
    assert view.output.note.text().startswith("repeat 3 of 3")


def test_live_charts_get_the_run_and_lose_it(qtbot, state, run):
    view = shown(qtbot, LiveView(context(state)))
    show(view, run)
    assert all(chart.explanation == "" for chart in view.charts)
    state.open_run(run)
    state.follow()
    assert all(chart.explanation for chart in view.charts)
    assert view.output.generated == ""


def test_a_click_on_a_layer_marks_it_everywhere(qtbot, state, run):
    live, layers = shown(qtbot, LiveView(context(state))), shown(qtbot, LayersView(context(state)))
    show(live, run)
    show(layers, run)
    live.heat.layer_selected.emit("model.layers.2.mlp")
    assert state.layer == "model.layers.2.mlp"
    assert live.heat.series.labels[live.heat.selected_row] == "layers.2"
    assert live.stages.bars.marked == "mlp"
    assert layers.tree.currentIndex().data() == "mlp"
    assert layers.tree.currentIndex().parent().data() == "layers.2"


def test_output_grows_without_being_rewritten(qtbot, state, run):
    view = shown(qtbot, LiveView(context(state)))
    running = first_moments(run, 22, "running")
    show(view, running, intervals=False)
    view.show_text(" Paris")
    edit = view.findChild(QTextEdit, "outputText")
    assert edit.toPlainText().startswith(f"{run.config.workload.prompt} Paris")
    changes = []
    edit.document().contentsChange.connect(lambda at, removed, added: changes.append((removed, added)))
    view.show_text(" Paris. The")
    assert edit.toPlainText().startswith(f"{run.config.workload.prompt} Paris. The")
    assert max(removed for removed, _ in changes) <= 1
    assert view.output.note.text() == "repeat 1 · 6 of 16 tokens"


def test_output_of_a_finished_run_is_its_last(qtbot, state, run):
    view = shown(qtbot, LiveView(context(state)))
    show(view, run)
    assert view.output.generated == " Paris. The country is divided into"
    assert "▌" not in view.output.text.toPlainText()
    tokens = replace(run.trace, outputs=(Output(0, (5, 6, 7), None, "length"),))
    counted = replace(run.config, workload=WorkloadConfig(prompt_tokens=12))
    show(view, replace(run, trace=tokens, config=counted))
    assert view.output.text.toPlainText() == "[12 random tokens]\n5 6 7"


@pytest.mark.parametrize(
    ("task", "workload", "shown_text"),
    [
        ("classification", WorkloadConfig(prompt="Good."), "Good.\nLABEL_1"),
        ("image-classification", WorkloadConfig(), "[made-up image]\nLABEL_1"),
        ("image-text", WorkloadConfig(prompt="What?", image="/pictures/cat.png"), "[cat.png]\nWhat?\nLABEL_1"),
        ("speech", WorkloadConfig(audio="a.wav"), "[a.wav]\nLABEL_1"),
        ("module", WorkloadConfig(), "[made-up tensors]\nLABEL_1"),
    ],
)
def test_output_says_what_the_model_was_given(qtbot, state, run, task, workload, shown_text):
    view = shown(qtbot, LiveView(context(state)))
    assert run.facts.model is not None
    facts = replace(run.facts, model=replace(run.facts.model, task=task))
    trace = replace(run.trace, outputs=(Output(0, (), "LABEL_1", "length"),))
    show(view, replace(run, trace=trace, facts=facts, config=replace(run.config, workload=workload)))
    assert view.output.text.toPlainText() == shown_text


@pytest.mark.parametrize(("size", "columns"), [((1130, 790), 2), ((800, 628), 2), ((560, 600), 1)])
def test_cards_fill_the_view_and_never_overlap(qtbot, state, run, size, columns):
    view = shown(qtbot, LiveView(context(state)), size)
    show(view, run)
    content = view.area.widget()
    if columns == 2:
        qtbot.waitUntil(lambda: content.size() == view.area.viewport().size() == view.size(), timeout=3000)

    def geometries():
        return [card.geometry() for card in view._cards] + [view.tiles.geometry()]

    def overlap(boxes):
        return any(box.intersects(other) for number, box in enumerate(boxes) for other in boxes[number + 1 :])

    qtbot.waitUntil(lambda: not overlap(geometries()), timeout=3000)
    boxes = geometries()
    assert len({box.x() for box in boxes[:6]}) == columns
    if columns == 2:
        assert max(box.bottom() for box in boxes) >= content.height() - 14


def test_notes_of_cards_are_never_cut(qtbot, state, run):
    view = shown(qtbot, LiveView(context(state)), (800, 628))
    show(view, run)
    qtbot.waitExposed(view)
    for card in view._cards:
        assert card.note.sizeHint().width() <= card.note.width() + 1, card.objectName()


def test_both_palettes_in_every_view(qtbot, state, run):
    for view in (
        LiveView(context(state)),
        LayersView(context(state)),
        SessionsView(context(state)),
        CompareView(context(state)),
    ):
        shown(qtbot, view)
        show(view, run)
        view.set_palette(LIGHT)
        view.set_palette(DARK)
        assert view.grab().width() == view.width()
    live = LiveView(context(state))
    shown(qtbot, live)
    show(live, run)
    live.set_palette(LIGHT)
    assert LIGHT.text in live.tiles.tiles[0].value.styleSheet()


def test_saving_a_chart_is_told_to_the_window(qtbot, state, run, tmp_path):
    view = shown(qtbot, LiveView(context(state)))
    show(view, run)
    view.memory.menu.ask_path = lambda *_: tmp_path / "memory.csv"
    view.memory.menu.save_data.trigger()
    view.memory.menu.join(30)
    view.poll()
    assert view.context.say == [(f"Saved {short_path(tmp_path / 'memory.csv')}", tmp_path / "memory.csv")]


def test_paint_meter_reaches_every_chart(qtbot, state, run):
    view = shown(qtbot, LiveView(context(state)))
    painted = view.context.meter
    show(view, run)
    for chart in view.charts:
        painted.clear()
        chart.grab()
        assert painted, chart.objectName()


# -- layers ---------------------------------------------------------------------------------------------------------------


def walk(model, parent=None):
    parent = parent or QModelIndex()
    for row in range(model.rowCount(parent)):
        index = model.index(row, 0, parent)
        yield index
        yield from walk(model, index)


def row_texts(index):
    return [index.siblingAtColumn(column).data() for column in range(index.model().columnCount())]


def test_layer_table_is_the_module_tree_with_the_summary_s_times(qtbot, state, run):
    view = shown(qtbot, LayersView(context(state)))
    show(view, run)
    assert view.findChild(QTreeView, "layerTable") is view.tree
    assert len(list(walk(view.proxy))) == len(run.trace.layers)
    wanted = {row["path"]: row for row in summarize(run)["layers"] if row["kind"] == "decode"}
    up = next(
        index for index in walk(view.proxy) if index.data(Qt.ItemDataRole.ToolTipRole).startswith("model.layers.3.mlp.up")
    )
    row = wanted["model.layers.3.mlp.up_proj"]
    texts = row_texts(up)
    assert texts[:4] == ["up_proj", "Linear", "mlp", "1"]
    assert float(texts[4].split()[0]) == pytest.approx(row["total_ns"] / 1e3, rel=0.01)
    assert texts[SHARE] == f"{100 * row['total_share']:.1f} %"
    assert texts[TITLES.index("Self share")] == f"{100 * row['share']:.1f} %"
    assert re.fullmatch(r"median of \d+ traced moments, scaled to clean", view.note.text())


def test_a_module_that_is_never_called_shows_the_sum_of_what_is_inside(qtbot, state, run):
    view = shown(qtbot, LayersView(context(state)))
    show(view, run)
    blocks = next(index for index in walk(view.proxy) if row_texts(index)[1] == "ModuleList")
    texts = row_texts(blocks)
    assert (texts[3], texts[TITLES.index("Self")], texts[TITLES.index("Self share")]) == ("—", "—", "—")
    assert texts[SHARE] != "—"
    inside = [row["total_ns"] for row in summarize(run)["layers"] if row["kind"] == "decode" and row["path"].count(".") == 2]
    inside = inside[: view.proxy.rowCount(blocks)]
    assert float(texts[4].split()[0]) == pytest.approx(sum(inside) / 1e6, rel=0.01)


def test_layer_kind_sort_and_filter(qtbot, state, run):
    view = shown(qtbot, LayersView(context(state)))
    show(view, run)
    assert [view.kind_combo.itemData(row) for row in range(view.kind_combo.count())] == ["decode", "prefill"]
    root = view.proxy.index(0, 4)
    decode = root.data()
    view.kind_combo.setCurrentIndex(1)
    assert view.proxy.index(0, 4).data() != decode
    view.tree.sortByColumn(4, Qt.SortOrder.DescendingOrder)
    mlp = next(index for index in walk(view.proxy) if index.data() == "mlp")
    times = [view.proxy.index(row, 4, mlp).data(Qt.ItemDataRole.UserRole) for row in range(view.proxy.rowCount(mlp))]
    assert times == sorted(times, reverse=True)
    view.filter.setText("layers.3.mlp")
    paths = [index.data(PATH_ROLE) for index in walk(view.proxy)]
    assert "model.layers.3.mlp.up_proj" in paths
    assert not any("self_attn" in path for path in paths)
    assert view.tree.isExpanded(view.proxy.index(0, 0))
    view.filter.clear()
    assert len(list(walk(view.proxy))) == len(run.trace.layers)


def index_of(view, path):
    return view.proxy.mapFromSource(view.model.index_of(path))


def test_bars_are_scaled_among_layers_of_one_depth(qtbot, state, run):
    view = shown(qtbot, LayersView(context(state)))
    show(view, run)
    totals = [index_of(view, f"model.layers.{block}").data(BAR_ROLE)[1] for block in range(6)]
    assert max(totals) == 1.0
    assert min(totals) > 0.5, "a block is no hair beside the whole model"


def test_the_first_click_on_a_number_sorts_down(qtbot, state, run):
    view = shown(qtbot, LayersView(context(state)))
    show(view, run)
    header = view.tree.header()
    at = header.sectionViewportPosition(TITLES.index("Total")) + 10
    qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(at, header.height() // 2))
    assert header.sortIndicatorSection() == TITLES.index("Total")
    assert header.sortIndicatorOrder() == Qt.SortOrder.DescendingOrder


def test_layers_of_one_role_are_one_row_and_add_up(qtbot, state, run):
    view = shown(qtbot, LayersView(context(state)))
    show(view, run)
    rows = {row["path"]: row for row in summarize(run)["layers"] if row["kind"] == "decode"}
    view.by_role.setChecked(True)
    up = index_of(view, "model.layers.*.mlp.up_proj")
    assert up.data() == "up_proj  ×6"
    wanted = sum(rows[f"model.layers.{block}.mlp.up_proj"]["total_ns"] for block in range(6))
    assert up.siblingAtColumn(TITLES.index("Total")).data(Qt.ItemDataRole.UserRole) == wanted
    assert len(list(walk(view.proxy))) == 20
    with qtbot.waitSignal(state.layer_selected) as selected:
        view.tree.setCurrentIndex(up)
    assert selected.args == ["model.layers.0.mlp.up_proj"]
    state.select_layer("model.layers.4.mlp.down_proj")
    assert view.tree.currentIndex().data(PATH_ROLE) == "model.layers.*.mlp.down_proj"
    view.by_role.setChecked(False)
    assert view.tree.currentIndex().data(PATH_ROLE) == "model.layers.4.mlp.down_proj"


def test_prefill_stands_beside_decode(qtbot, state, run):
    view = shown(qtbot, LayersView(context(state)))
    show(view, run)
    prefill = {row["path"]: row for row in summarize(run)["layers"] if row["kind"] == "prefill"}
    beside = TITLES.index("Beside")
    assert view.proxy.headerData(beside, Qt.Orientation.Horizontal) == "Prefill"
    shown_ns = index_of(view, "lm_head").siblingAtColumn(beside).data(Qt.ItemDataRole.UserRole)
    assert shown_ns == prefill["lm_head"]["total_ns"]
    view.kind_combo.setCurrentIndex(1)
    assert view.proxy.headerData(beside, Qt.Orientation.Horizontal) == "Decode"


def test_rates_are_there_where_the_run_says_what_its_layers_multiply(qtbot, state, run):
    view = shown(qtbot, LayersView(context(state)))
    show(view, run)
    rate = TITLES.index("GB/s")
    assert view.tree.isColumnHidden(rate)
    products = {"lm_head": LayerProduct(49152 * 576, 4 * 49152 * 576, "float32", head=True)}
    show(view, replace(run, facts=replace(run.facts, layer_products=products)))
    head = index_of(view, "lm_head")
    total_ns = head.siblingAtColumn(TITLES.index("Total")).data(Qt.ItemDataRole.UserRole)
    assert not view.tree.isColumnHidden(rate)
    assert head.siblingAtColumn(rate).data(Qt.ItemDataRole.UserRole) == pytest.approx(1e9 * 4 * 49152 * 576 / total_ns)
    assert view.tree.isColumnHidden(TITLES.index("Of limit")), "the machine's ceilings are not known"
    norm = index_of(view, "model.norm").siblingAtColumn(rate)
    assert (norm.data(), norm.data(Qt.ItemDataRole.ToolTipRole)) == ("—", "Not known: it multiplies with no weight")


def test_blocks_are_shown_and_closed_at_first(qtbot, state, run):
    view = shown(qtbot, LayersView(context(state)))
    show(view, run)
    blocks = next(index for index in walk(view.proxy) if row_texts(index)[1] == "ModuleList")
    assert view.tree.isExpanded(blocks)
    assert not view.tree.isExpanded(view.proxy.index(0, 0, blocks))


def test_new_values_keep_what_was_opened_and_selected(qtbot, state, run):
    view = shown(qtbot, LayersView(context(state)))
    show(view, first_moments(run, 40, "running"))
    state.select_layer("model.layers.1.mlp.up_proj")
    before = row_texts(view.tree.currentIndex())
    show(view, run)
    assert view.tree.currentIndex().data() == "up_proj"
    assert row_texts(view.tree.currentIndex()) != before
    assert view.tree.isExpanded(view.tree.currentIndex().parent())


def test_a_selected_row_selects_the_layer(qtbot, state, run):
    view = shown(qtbot, LayersView(context(state)))
    show(view, run)
    head = next(index for index in walk(view.proxy) if index.data() == "lm_head")
    with qtbot.waitSignal(state.layer_selected) as selected:
        view.tree.setCurrentIndex(head)
    assert selected.args == ["lm_head"]
    state.select_layer("")
    assert not view.tree.selectionModel().hasSelection()


def test_layer_table_is_copied_as_text(qtbot, state, run):
    view = shown(qtbot, LayersView(context(state)))
    show(view, run)
    view.copy()
    lines = QGuiApplication.clipboard().text().splitlines()
    assert lines[0].split("\t")[:4] == ["path", "type", "stage", "kind"]
    assert len(lines) - 1 == len([row for row in summarize(run)["layers"] if row["kind"] == "decode"])


def test_layers_view_says_why_it_is_empty(qtbot, state, run):
    view = shown(qtbot, LayersView(context(state)))
    assert START_HINT in view.explanation
    bare = replace(run.trace, spans={name: column[:0] for name, column in run.trace.spans.items()})
    off = replace(run.facts, unavailable=(Unavailable("layers", of_text("the layer clock was switched off for this run")),))
    show(view, replace(run, trace=bare, facts=off))
    assert "the layer clock was switched off for this run" in view.explanation
    show(view, run)
    assert view.explanation == ""
    show(view, None)
    assert START_HINT in view.explanation


def test_layers_view_says_that_a_compiled_graph_hides_the_layers(qtbot, state, run):
    decode = run.trace.moments["kind"] == 2
    spans = {name: column[~decode[run.trace.spans["moment"]]] for name, column in run.trace.spans.items()}
    moments = dict(run.trace.moments)
    moments["tags"] = moments["tags"].copy()
    moments["tags"][decode] &= ~8
    moments["tags"][decode] |= 4
    config = replace(run.config, passes=(PassConfig("compile_decode"),))
    view = shown(qtbot, LayersView(context(state)))
    show(view, replace(run, config=config, trace=replace(run.trace, moments=moments, spans=spans)))
    assert view.explanation == ""
    assert view.kind == "prefill"
    assert view.note.text().startswith("No layer times of decode moments: compiled decode ran as one graph")


def test_thousands_of_layers(qtbot, state):
    run = synthetic_run(repeats=1, warmup=1, new_tokens=4, blocks=300)
    view = shown(qtbot, LayersView(context(state)))
    show(view, run, intervals=False)
    assert len(list(walk(view.model))) == len(run.trace.layers) > 3000
    state.select_layer("model.layers.299.mlp.up_proj")
    assert view.tree.currentIndex().data() == "up_proj"


# -- sessions -------------------------------------------------------------------------------------------------------------


class FakeStore:
    """The runs of a session in memory."""

    def __init__(self, *runs, read_only=False):
        self.read_only = read_only
        self.kept = {run.id: run for run in runs}
        self.reads = []
        self.refusal = ""

    def runs(self):
        return [
            RunHead(
                *(run.id, run.name, run.created, run.facts.status, run.note, run.config, run.facts),
                group=run.group,
                role=run.role,
            )
            for run in self.kept.values()
        ]

    def read(self, run_id):
        self.reads.append(run_id)
        if self.refusal:
            raise Refusal(self.refusal)
        return self.kept[run_id]

    def _write(self, run_id, **changes):
        if self.refusal:
            raise Refusal(self.refusal)
        self.kept[run_id] = replace(self.kept[run_id], **changes)

    def rename(self, run_id, name):
        self._write(run_id, name=name)

    def annotate(self, run_id, note):
        self._write(run_id, note=note)

    def delete(self, run_id):
        del self.kept[run_id]

    def restore(self, run, head=None):
        self.kept[run.id] = run
        self.kept = dict(sorted(self.kept.items()))
        return run.id


@pytest.fixture
def store(run, faster):
    return FakeStore(run, faster, replace(run, id=3, name="stopped", facts=replace(run.facts, status="cancelled")))


@pytest.fixture
def sessions(qtbot, state, store):
    view = shown(qtbot, SessionsView(context(state)))
    view.set_store(store)
    return view


def select(view, *names):
    view.tree.clearSelection()
    for row in range(view.tree.topLevelItemCount()):
        item = view.tree.topLevelItem(row)
        item.setSelected(item.text(NAME) in names)


def test_sessions_list_the_runs_newest_first_with_their_headline(sessions, run):
    tree = sessions.tree
    assert tree.objectName() == "sessionTree"
    assert [tree.topLevelItem(row).text(NAME) for row in range(3)] == ["stopped", "faster", "synthetic"]
    item = tree.topLevelItem(2)
    metrics = summarize(run)["metrics"]
    assert float(item.text(TPOT).split()[0]) == pytest.approx(metrics["tpot_ns"]["median"] / 1e6, rel=0.01)
    assert float(item.text(TTFT).split()[0]) == pytest.approx(metrics["ttft_ns"]["median"] / 1e6, rel=0.01)
    assert (item.text(MODEL), item.text(PASSES), item.text(STATUS)) == ("SmolLM2-135M-Instruct", "bfloat16", "finished")


def test_sessions_without_a_store_or_runs(qtbot, state):
    view = shown(qtbot, SessionsView(context(state)))
    assert view.hint.text() == NO_STORE
    view.set_store(FakeStore())
    assert view.hint.text() == NO_RUNS
    assert not view.delete_button.isEnabled()
    view.set_store(None)
    assert view.hint.text() == NO_STORE


def test_sessions_are_not_read_while_something_is_measured(qtbot, state, store, run):
    view = shown(qtbot, SessionsView(context(state)))
    view.show_run(first_moments(run, 20, "running"))
    view.set_store(store)
    assert store.reads == []
    assert view.tree.topLevelItem(0).text(TPOT) == "…"
    view.show_slow(run, {})
    assert sorted(store.reads) == [1, 2, 3]
    view.refresh()
    assert len(store.reads) == 3


def test_a_double_click_opens_the_run_everywhere(qtbot, state, sessions):
    select(sessions, "faster")
    with qtbot.waitSignal(state.run_changed):
        sessions.tree.itemDoubleClicked.emit(sessions.tree.topLevelItem(1), NAME)
    assert state.current_run.name == "faster"
    assert not state.live
    assert sessions.context.actions.ask == [ShowRun(state.current_run)]


def test_two_selected_runs_are_compared_older_first(qtbot, state, sessions):
    assert not sessions.compare_button.isEnabled()
    assert "Select two runs" in sessions.compare_button.toolTip()
    select(sessions, "faster", "synthetic")
    qtbot.mouseClick(sessions.compare_button, Qt.MouseButton.LeftButton)
    (asked,) = sessions.context.actions.ask
    assert isinstance(asked, ShowPair)
    assert [run.id for run in asked.pair] == [1, 2]


def test_names_and_notes_are_edited_in_place(sessions, store):
    sessions.tree.topLevelItem(1).setText(NAME, "  int8 ")
    assert store.kept[2].name == "int8"
    sessions.tree.topLevelItem(1).setText(NOTE, "on battery")
    assert store.kept[2].note == "on battery"
    sessions.tree.topLevelItem(1).setText(NAME, " ")
    assert sessions.tree.topLevelItem(1).text(NAME) == "int8"
    select(sessions, "int8")
    sessions.rename_selected()
    assert sessions.tree.state() == sessions.tree.State.EditingState


def test_only_names_and_notes_can_be_edited(sessions):
    from PySide6.QtWidgets import QStyleOptionViewItem

    delegate, model = sessions.tree.itemDelegate(), sessions.tree.model()
    editors = [
        delegate.createEditor(sessions.tree, QStyleOptionViewItem(), model.index(0, column))
        for column in range(len(SESSION_TITLES))
    ]
    assert [column for column, editor in enumerate(editors) if editor is not None] == [NAME, NOTE]


def test_what_was_deleted_can_be_brought_back(qtbot, sessions, store):
    select(sessions, "faster", "stopped")
    qtbot.keyClick(sessions.tree, Qt.Key.Key_Delete)
    assert list(store.kept) == [1]
    assert sessions.undo_text.text() == "Deleted 2 runs."
    undo = sessions.findChild(QPushButton, "undoDelete")
    qtbot.mouseClick(undo, Qt.MouseButton.LeftButton)
    assert list(store.kept) == [1, 2, 3]
    assert not undo.isVisible()
    assert sessions.tree.topLevelItemCount() == 3


def test_a_run_that_cannot_be_brought_back_is_deleted_only_after_a_question(qtbot, sessions, store):
    questions = []
    sessions.ask = lambda *question: bool(questions.append(question))
    store.refusal = "The run is damaged."
    select(sessions, "faster")
    sessions.delete_selected()
    assert len(store.kept) == 3
    assert "The run is damaged." in questions[0][2]
    assert "cannot be undone" in questions[0][2]
    sessions.ask = lambda *_: True
    sessions.delete_selected()
    assert list(store.kept) == [1, 3]
    assert not sessions.undo_row.isVisible()


def test_runs_are_found_by_words(sessions, store):
    store.annotate(2, "on battery")
    sessions.search.setText("BATTERY smol")
    assert [head.id for head in sessions.tree.heads()] == [2]
    assert sessions.count.text() == "1 of 3 runs"
    sessions.search.setText("nowhere")
    assert sessions.hint.text() == NOT_FOUND
    sessions.search.clear()
    assert len(sessions.tree.heads()) == 3


def click_header(qtbot, tree, column):
    header = tree.header()
    at = header.sectionViewportPosition(column) + 8
    qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(at, header.height() // 2))


def test_runs_are_sorted_by_any_column_and_what_was_not_measured_is_last(qtbot, sessions, store, run):
    never = replace(run, id=4, name="never", trace=Trace())
    store.kept[4] = never
    sessions.refresh()
    click_header(qtbot, sessions.tree, TPOT)
    names = [head.name for head in sessions.tree.heads()]
    assert names[-2:] == ["faster", "never"]
    click_header(qtbot, sessions.tree, TPOT)
    names = [head.name for head in sessions.tree.heads()]
    assert (names[0], names[-1]) == ("faster", "never")


def test_a_run_s_speed_memory_quality_and_noise_are_listed(sessions, run):
    item = next(item for item in sessions.tree.run_items() if item.text(NAME) == "synthetic")
    metrics = summarize(run)["metrics"]
    speed = item.text(SESSION_TITLES.index("tok/s"))
    assert float(speed) == pytest.approx(metrics["decode_tokens_per_s"]["median"], rel=0.01)
    assert item.text(SESSION_TITLES.index("Memory")) == units.size(run.facts.rss_peak_bytes)
    assert item.text(SESSION_TITLES.index("Noise")).endswith(" %")
    assert item.text(QUALITY) == "—"


def test_sides_of_a_trial_hang_together_below_their_verdict(qtbot, state, run):
    sides = [
        replace(
            one,
            facts=replace(one.facts, trial=ABTestPart("t", side, 2)),
            group=Group("t", "ab_test", one.created),
            role=side,
        )
        for side, one in enumerate((run, synthetic_run(blocks=2, seed=1, scale=0.5, run_id=2)))
    ]
    view = shown(qtbot, SessionsView(context(state)))
    view.set_store(FakeStore(*sides, replace(run, id=3, name="alone")))
    tree = view.tree
    assert [tree.topLevelItem(row).childCount() for row in range(2)] == [0, 2]
    group = tree.topLevelItem(1)
    assert group.text(NAME).startswith("A/B test of 2 sides · B")
    group.setSelected(True)
    assert sorted(view.selected_ids()) == [1, 2]
    assert view.compare_button.isEnabled()


def test_the_list_of_runs_fits_a_window_of_1440_and_tells_sides_apart(qtbot, state, run):
    passes = (PassConfig("int8_weight_only"),)
    config = replace(run.config, passes=passes)
    name = "SmolLM2-135M-Instruct · bfloat16 + int8 weights + Compiled decode"
    heads = [replace(run, id=number, name=f"{name} ({side})", config=config) for number, side in enumerate("AB", 1)]
    view = shown(qtbot, SessionsView(context(state)), size=(1440 - 300, 790))
    view.set_store(FakeStore(*heads))
    tree = view.tree
    qtbot.waitUntil(lambda: tree.horizontalScrollBar().maximum() == 0, timeout=3000)
    assert not tree.isColumnHidden(STARTED)
    width = tree.columnWidth(NAME) - 24
    seen = [tree.fontMetrics().elidedText(item.text(NAME), tree.textElideMode(), width) for item in tree.run_items()]
    assert sorted(text[-3:] for text in seen) == ["(A)", "(B)"]
    assert {item.text(PASSES) for item in tree.run_items()} == {"int8 weights"}
    view.search.setText("int8_weight_only")  # what scripts call it is found too
    assert len(tree.heads()) == 2


def test_no_number_of_a_run_is_cut(qtbot, state, run):
    """At 1440 "1 m…6 s" and "10… %" stood there beside room that nobody needed."""
    view = shown(qtbot, SessionsView(context(state)), size=(1137, 790))  # what the sidebar leaves of 1440
    view.set_store(FakeStore(run))
    tree = view.tree
    slow = Headline({one.id: 65_900_000_000.0 for one in metrics.METRICS if one.unit == "ns"}, 1.0)
    tree.show_headline(key_of(tree.heads()[0]), slow)
    item = next(tree.run_items())
    assert item.text(SESSION_TITLES.index("E2E")) == "1 min 6 s"
    whole = [number for number, column in enumerate(COLUMNS) if column.whole]
    narrow = [
        SESSION_TITLES[n] for n in whole if tree.sizeHintForIndex(tree.indexFromItem(item, n)).width() > tree.columnWidth(n)
    ]
    assert narrow == []
    assert tree.horizontalScrollBar().maximum() == 0
    tree.header().resizeSection(STARTED, 50)  # whoever draws a column narrow has it so
    tree.show_headline(key_of(tree.heads()[0]), slow)
    assert tree.columnWidth(STARTED) == 50


def test_the_layers_say_when_they_stand_on_few_or_disturbed_moments(qtbot, state, run):
    view = shown(qtbot, LayersView(context(state)))
    show(view, run)
    assert re.fullmatch(r"median of \d+ traced moments, scaled to clean", view.note.text())
    moments = dict(run.trace.moments)
    traced = np.flatnonzero((moments["tags"] & int(Tag.TRACED) != 0) & (moments["tags"] & int(Tag.WARMUP) == 0))
    decode = traced[moments["kind"][traced] == KINDS.index("decode")]
    moments["tags"] = moments["tags"].copy()
    moments["tags"][decode[1:]] |= int(Tag.COLD)
    moments["tags"][decode[0]] |= int(Tag.PERTURBED)
    few = replace(run, id=9, trace=replace(run.trace, moments=moments))
    show(view, few)
    assert view.note.text().startswith("⚠ median of 1 traced moment, which was perturbed")
    assert "by chance" in view.note.toolTip()
    view.resize(700, 700)
    assert view.note.isVisible()  # a doubt is told in a narrow window too


def test_a_saved_a_b_test_is_opened_as_it_ended(qtbot, state, run):
    asked = ABTestConfig((run.config, run.config), most_rounds=7, most_seconds=33.0)
    group = Group("t", "ab_test", run.created, asked)
    sides = [
        replace(one, facts=replace(one.facts, trial=ABTestPart("t", side, 2, (0, 1))), group=group, role=side)
        for side, one in enumerate((run, synthetic_run(blocks=2, seed=1, scale=0.5, run_id=2)))
    ]
    store = FakeStore(*sides[::-1], replace(run, id=3, name="alone"))
    view, compare = shown(qtbot, SessionsView(context(state))), shown(qtbot, CompareView(context(state)))
    compare.set_store(store)
    view.set_store(store)
    view.tree.topLevelItem(1).setSelected(True)
    assert view.open_button.isEnabled()
    view.open_selected()
    (asked_for,) = view.context.actions.ask
    assert compare.can(asked_for)
    compare.do(asked_for)
    setup = compare.trial.setup
    assert compare.trial.state.config == asked
    assert [one.side for one in compare.trial.state.verdicts] == [1]
    assert [combo.currentData() for combo in setup.sides[:2]] == ["run1", "run2"]
    assert (setup.rounds.value(), setup.seconds.value()) == (7, 33)
    compare.show_trial(None)  # what the bridge says while nothing was tried in this window
    assert compare.trial.state.config == asked
    compare.show_trial(replace(compare.trial.state, config=replace(asked, most_rounds=9), stopped=None))
    assert compare.trial.state.config.most_rounds == 9
    compare.show_trial(None)
    assert compare.trial.state is None


def test_a_group_of_runs_that_know_of_no_a_b_test_is_named_all_the_same(qtbot, state, run):
    group = Group("t", "ab_test", run.created)
    view = shown(qtbot, SessionsView(context(state)))
    view.set_store(FakeStore(*(replace(run, id=side + 1, group=group, role=side) for side in (0, 1))))
    assert view.tree.topLevelItem(0).text(NAME) == "A/B test of 2 sides"


def test_an_a_b_test_that_lost_a_side_cannot_be_opened_as_one(qtbot, state, run):
    group = Group("t", "ab_test", run.created)
    sides = [
        replace(run, id=side, facts=replace(run.facts, trial=ABTestPart("t", side, 3)), group=group, role=side)
        for side in (1, 2)
    ]
    view = shown(qtbot, SessionsView(context(state)))
    view.set_store(FakeStore(*sides))
    view.tree.topLevelItem(0).setSelected(True)
    view.open_selected()
    assert view.context.actions.ask == []
    assert view.context.say == [NOT_ALL_SIDES]


def test_a_read_only_session_can_be_read_only(qtbot, state, run):
    view = shown(qtbot, SessionsView(context(state)))
    view.set_store(FakeStore(run, read_only=True))
    select(view, "synthetic")
    assert view.open_button.isEnabled()
    assert not view.rename_button.isEnabled()
    assert view.delete_button.toolTip() == "This session is read-only."
    assert not view.tree.topLevelItem(0).flags() & Qt.ItemFlag.ItemIsEditable


def test_a_refusal_of_the_session_is_told(sessions, store):
    store.refusal = "The disk is full; free some space."
    sessions.tree.topLevelItem(0).setText(NAME, "other")
    select(sessions, "faster")
    sessions.open_selected()
    assert sessions.context.say == [store.refusal, store.refusal]
    assert sessions.tree.topLevelItem(0).text(NAME) == "stopped"


def test_reading_beside_the_gui_thread_is_one_run_at_a_time(qtbot, state, store):
    jobs = []
    view = shown(qtbot, SessionsView(context(state, lambda work, done: jobs.append((work, done)))))
    view.set_store(store)
    view.refresh()
    assert len(jobs) == 1
    work, done = jobs.pop()
    future: Future = Future()
    future.set_result(work())
    done(future)
    assert view.tree.topLevelItem(0).text(TPOT) != "…"
    assert len(jobs) == 1


# -- compare --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def compare_view(qtbot, state, store):
    view = shown(qtbot, CompareView(context(state)))
    view.set_store(store)
    return view


def test_compare_shows_both_values_and_the_arithmetic(compare_view, state, run, faster):
    state.compare((run, faster))
    assert compare_view.explanation == ""
    tile = compare_view.findChild(QFrame, "compareTPOT")
    texts = [label.text() for label in tile.findChildren(QLabel)]
    assert "→" in texts[1]
    # Half of 12 ms, but not half of the 0.4 ms outside the model.
    assert texts[2] in ("0.51× the first", "0.52× the first")  # arithmetic alone; too few requests for an interval
    assert compare_view.badge.text().startswith("Recorded apart")
    assert not compare_view.badge.isHidden()
    assert "not interleaved" in compare_view.warnings.text()


def test_two_runs_recorded_apart_can_be_decided_by_a_trial(qtbot, compare_view, state, run, faster):
    state.compare((run, faster))
    assert compare_view.badge.decide.isVisibleTo(compare_view.badge)
    qtbot.mouseClick(compare_view.badge.decide, Qt.MouseButton.LeftButton)
    assert compare_view.pages.currentIndex() == 0
    setup = compare_view.trial.setup
    assert [combo.currentData() for combo in setup.sides[:2]] == [f"run{run.id}", f"run{faster.id}"]


def test_compare_begins_with_the_last_two_runs_and_needs_two(qtbot, state, store):
    view = shown(qtbot, CompareView(context(state)))
    assert view.explanation == HINT
    view.set_store(store)
    assert view.explanation == ""
    newest = store.runs()[-1].id
    assert (view.first.currentData(), view.second.currentData()) == (store.runs()[-2].id, newest)


def test_compare_layers_are_sorted_by_the_size_of_the_difference(compare_view, state, run, faster):
    state.compare((run, faster))
    proxy = compare_view.proxy
    sizes = [proxy.index(row, 5).data(Qt.ItemDataRole.UserRole) for row in range(proxy.rowCount())]
    assert sizes == sorted(sizes, reverse=True)
    assert proxy.rowCount() == len(compare_view.comparison.layers) > 100
    assert proxy.index(0, 0).data() == "(whole model)"
    assert proxy.index(0, 5).data().startswith("−")


def test_compare_choosers_offer_the_session_and_the_run_on_show(compare_view, state, run):
    compare_view.show_run(run)
    texts = [compare_view.first.itemText(row) for row in range(compare_view.first.count())]
    assert texts == ["on show: synthetic", "3 · stopped", "2 · faster", "1 · synthetic"]
    compare_view.first.setCurrentIndex(3)
    compare_view.second.setCurrentIndex(3)
    compare_view.second.activated.emit(3)
    assert compare_view.explanation == SAME
    compare_view.second.setCurrentIndex(2)
    compare_view.second.activated.emit(2)
    assert [chosen.id for chosen in state.pair] == [1, 2]
    assert compare_view.explanation == ""
    assert compare_view.second.currentText() == "2 · faster"


def test_compare_selects_layers_with_the_other_views(compare_view, state, run, faster):
    state.compare((run, faster))
    state.select_layer("lm_head")
    row = compare_view.proxy.mapToSource(compare_view.table.currentIndex()).row()
    assert compare_view.model.rows[row].path == "lm_head"
    compare_view.table.setCurrentIndex(compare_view.proxy.index(0, 0))
    assert state.layer == ""


def test_a_run_that_cannot_be_read_is_explained(compare_view, store):
    store.refusal = "The file was closed."
    compare_view.first.setCurrentIndex(0)
    compare_view.second.setCurrentIndex(1)
    compare_view.second.activated.emit(1)
    assert compare_view.explanation == "The file was closed."


@pytest.mark.parametrize(
    ("tile", "text"),
    [
        (TileDifference("TPOT", "ns", 10.0, 8.0, 0.8, 0.78, 0.82), "0.80× the first (0.78–0.82)"),
        (TileDifference("TPOT", "ns", 8.0, 10.0, 1.25, 1.2, 1.3), "1.25× the first (1.20–1.30)"),
        (TileDifference("Decode", "tok/s", 80.0, 100.0, 1.25, 1.2, 1.3), "1.25× the first (1.20–1.30)"),
        (TileDifference("Decode", "tok/s", 100.0, 80.0, 0.8, 0.78, 0.82), "0.80× the first (0.78–0.82)"),
        (TileDifference("Weights", "bytes", 200, 100, 0.5, None, None), "0.50× the first"),
        (TileDifference("Weights", "bytes", 100, 100, 1.0, None, None), "the same to 0.5 %"),
        (TileDifference("TTFT", "ns", None, 8.0, None, None, None), "no difference to tell: one side was not measured"),
    ],
)
def test_differences_are_plain_arithmetic(tile, text):
    assert difference_text(tile) == text


def test_views_are_widgets_without_windows_of_their_own(qtbot, state):
    parent = QWidget()
    qtbot.addWidget(parent)
    for view in (
        LiveView(context(state), parent),
        LayersView(context(state), parent),
        CompareView(context(state), parent),
        SessionsView(context(state), parent),
    ):
        assert view.parent() is parent
        assert not view.isWindow()


def test_the_answer_stays_in_sight_where_the_output_gets_lower(qtbot):
    card = OutputCard()
    qtbot.addWidget(card)
    card.set_palette(DARK)
    card.resize(400, 300)
    card.show()
    card._write("line\n" * 60, "the answer", False)
    bar = card.text.verticalScrollBar()
    qtbot.waitUntil(lambda: bar.maximum() > 0 and bar.value() == bar.maximum(), timeout=3000)
    before = bar.maximum()
    card.resize(400, 160)
    qtbot.waitUntil(lambda: bar.maximum() > before, timeout=3000)
    assert bar.value() == bar.maximum()
    bar.setValue(0)  # someone reads the beginning
    card._write("line\n" * 60, "the answer goes on\n" * 5, False)
    assert bar.value() == 0
