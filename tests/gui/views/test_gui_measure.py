"""What the window shows of counters, noise, energy, operators, peaks and imported traces, or says where there is none."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from PySide6.QtCore import QModelIndex, QPoint, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFrame, QTreeView

from core.analysis import series
from core.analysis.drawn import without_profiled
from core.analysis.operators import OperatorRow, operator_rows, slowdown
from core.analysis.summary import summarize
from core.messages.reason import of_text
from core.records.run import Unavailable
from gui.charts.heat import LayerHeat
from gui.charts.latency import LatencyChart
from gui.charts.machine import MachineChart
from gui.charts.memory import MemoryChart
from gui.charts.quantities import missing_count, scale_of, written
from gui.charts.stages import StageBars
from gui.theme import DARK, LIGHT, stylesheet
from gui.view_state import ViewState
from gui.views.layers.layer_columns import TITLES as LAYER_TITLES
from gui.views.layers.operator_model import MOMENT, SELF, TITLES, OperatorModel
from gui.views.layers.operators import LATER, NOT_RECORDED
from gui.views.layers.view import LayersView
from gui.views.live.output import progress_text
from gui.views.live.tile_readings import IMPORTED, specs
from gui.views.live.tiles import Tile, in_parts, wrapped
from gui.views.live.view import LiveView
from profilers.trace import NOT_MEASURED, Tag
from tests.support.synthetic import synthetic_run
from tests.support.synthetic_measured import IPC, with_counters, with_noise, with_peaks, with_tracks
from tests.support.synthetic_operators import imported_run, with_operators
from tests.support.view_context import context

VIRTUAL = "this virtual machine's processor offers no counters"


@pytest.fixture(scope="module")
def run():
    return synthetic_run(repeats=3, warmup=1, new_tokens=16, blocks=6)


@pytest.fixture(scope="module")
def counted(run):
    return with_counters(run)


@pytest.fixture(scope="module")
def profiled(counted):
    return with_operators(counted)


@pytest.fixture
def state(qtbot):
    return ViewState()


def shown(qtbot, widget, size=(1130, 790)):
    qtbot.addWidget(widget)
    widget.setStyleSheet(stylesheet(DARK))
    widget.set_palette(DARK)
    widget.resize(*size)
    widget.show()
    return widget


def show(view, run, **more):
    view.show_run(run)
    view.show_slow(run, {**summarize(run, intervals=False), **more})
    return view


# -- tiles ----------------------------------------------------------------------------------------------------------------


def tile(view, name) -> Tile:
    found = view.findChild(QFrame, name)
    assert isinstance(found, Tile)
    return found


def test_cycles_tile_has_cycles_and_instructions_per_cycle(qtbot, state, counted):
    view = show(shown(qtbot, LiveView(context(state))), counted)
    median = summarize(counted, intervals=False)["metrics"]["cycles_per_token"]["median"]
    reading = tile(view, "statCycles").reading
    assert float(reading.value) == pytest.approx(median / 1e6, rel=0.01)
    assert (reading.unit, reading.sub) == ("M", f"IPC {IPC:.2f}")


def test_cycles_tile_without_counters_has_a_dash_the_reason_and_cpu_time(qtbot, state, run):
    view = show(shown(qtbot, LiveView(context(state))), with_counters(run, hardware=False))
    one = tile(view, "statCycles")
    assert one.reading.value == "—"
    assert one.reading.sub.startswith("CPU 2")
    assert one.sub.isVisible()
    assert one.reason.text().startswith("— no counters")
    assert VIRTUAL in one.toolTip()
    assert VIRTUAL in one.accessibleDescription()


def test_energy_tile(qtbot, state, run):
    view = shown(qtbot, LiveView(context(state)))
    show(view, run, energy={"joules": 12.0, "joules_per_token": 0.4123, "source": "RAPL package-0", "period_s": 0.1})
    assert tile(view, "statEnergy").reading[:3] == ("412", "mJ", "RAPL package-0 · 100 ms")
    show(view, run, energy={"joules": 12.0, "joules_per_token": 4.1, "source": "NVML counter", "period_s": None})
    assert tile(view, "statEnergy").reading[:3] == ("4.10", "J", "NVML counter")
    show(view, run, energy=None)
    assert tile(view, "statEnergy").reading[:3] == ("—", "", "no energy counter on this machine")
    assert tile(view, "statEnergy").reason.text().replace("\n", " ") == "— no energy counter on this machine"


def test_noise_tile_names_what_disturbed_and_warns_above_a_tenth(qtbot, state, run):
    view = shown(qtbot, LiveView(context(state)))
    noise = {"perturbed_share": 0.018, "switches_per_s": 2.14, "steal_share": 0.001, "others_share": 0.12}
    show(view, run, noise=noise)
    assert tile(view, "statNoise").reading[:4] == ("1.8", "%", "others 12.0 % · 2.1 switches/s", "good")
    show(view, run, noise=noise | {"perturbed_share": 0.2, "competitors": ["cc1plus (61 % of a core)"]})
    reading = tile(view, "statNoise").reading
    assert (reading.value, reading.tone) == ("20.0", "warn")
    assert reading.sub.startswith("cc1plus (61 % of a core) · others")
    show(view, run, noise=noise | {"busy": True})
    assert tile(view, "statNoise").reading.tone == "warn"
    show(view, run, noise={"perturbed_share": 0.0, "switches_per_s": 0.0, "steal_share": 0.0, "others_share": 0.001})
    assert tile(view, "statNoise").reading.sub == "all quiet"


def test_noise_tile_agrees_with_the_tags(qtbot, state, run):
    noisy = with_noise(run, share=0.25)
    view = show(shown(qtbot, LiveView(context(state))), noisy)
    share = summarize(noisy, intervals=False)["observer_effect"]["perturbed_share"]
    assert tile(view, "statNoise").reading.value == f"{100 * share:.1f}"
    assert tile(view, "statNoise").reading.tone == "warn"


@pytest.mark.parametrize(("width", "rows"), [(1140, 1), (980, 2), (800, 2), (560, 3)])
def test_tiles_fit_and_their_labels_are_never_cut(qtbot, state, counted, width, rows):
    view = show(shown(qtbot, LiveView(context(state)), (width, 790)), counted)
    tiles = view.tiles.tiles
    assert len(tiles) == 10
    qtbot.waitUntil(lambda: len({one.y() for one in tiles}) == rows, timeout=3000)
    for one in tiles:
        assert one.label.sizeHint().width() <= one.width() - 13, one.objectName()
        assert one.value.sizeHint().width() + one.unit.sizeHint().width() <= one.width() - 13, one.objectName()
        assert one.geometry().right() <= view.tiles.width()


def test_the_headline_stands_first_and_warm_up_is_dimmed_and_named(qtbot, state, run):
    view = shown(qtbot, LiveView(context(state)))
    assert [one.objectName() for one in view.tiles.tiles[:4]] == ["statDecode", "statTTFT", "statTPOT", "statITL"]
    show(view, run)
    one = tile(view, "statTTFT")
    assert not one.property("provisional")
    summary = summarize(run, intervals=False)
    summary["metrics"]["ttft_ns"]["provisional"] = True
    view.show_slow(run, summary)
    assert one.property("provisional")
    assert one.sub.text().startswith("warm-up")
    assert f"color: {DARK.muted}" in one.value.styleSheet()
    assert "warm-up: not what counts" in one.accessibleDescription()
    view.show_slow(run, summarize(run, intervals=False))
    assert f"color: {DARK.text}" in one.value.styleSheet()


@pytest.mark.parametrize("width", [1140, 980, 660])
def test_no_second_line_of_a_tile_is_cut(qtbot, state, run, width):
    view = show(shown(qtbot, LiveView(context(state)), (width, 790)), run)
    for one in view.tiles.tiles:
        label = one.reason if one.reason.isVisible() else one.sub
        assert not re.search(r"\S…", label.text()), (one.objectName(), label.text())
        qtbot.waitUntil(lambda label=label: label.sizeHint().height() <= label.height() + 1, timeout=3000)
        for line in label.text().split("\n"):
            assert label.fontMetrics().horizontalAdvance(line) <= label.width(), (one.objectName(), line)


def test_a_tile_is_as_high_with_a_number_as_with_a_reason(qtbot, state, run):
    view = shown(qtbot, LiveView(context(state)))
    before = tile(view, "statTTFT").minimumHeight()
    show(view, run)
    assert tile(view, "statTTFT").minimumHeight() == before


def test_long_reasons_are_broken_into_lines_that_fit(qtbot, state):
    view = shown(qtbot, LiveView(context(state)))
    metrics = view.tiles.tiles[0].sub.fontMetrics()
    text = wrapped("a reason that is much too long for three short lines of a tile", metrics, 90, 3)
    assert text.count("\n") == 2
    assert text.endswith("…")
    assert all(metrics.horizontalAdvance(line) <= 90 for line in text.split("\n"))
    assert wrapped("short", metrics, 90, 3) == "short"
    clause = wrapped("no counters; the kernel was built without them and says so at length", metrics, 90, 2)
    assert clause == "no counters"
    parts = in_parts("a rather long part here · n 5", metrics, 90, 2)
    assert " ".join(parts.split()).replace(" ·", "") == "a rather long part here n 5"
    assert all(metrics.horizontalAdvance(line) <= 90 for line in parts.split("\n"))
    assert in_parts("± 0.4 · n 5", metrics, 200, 2) == "± 0.4 · n 5"


def test_definitions_name_the_clash_and_what_a_cycle_is(qtbot, state):
    view = shown(qtbot, LiveView(context(state)))
    assert "AIPerf calls this number ITL" in tile(view, "statTPOT").toolTip()
    assert "is not a cycle count" in " ".join(tile(view, "statCycles").toolTip().split())
    assert "nothing is guessed" in tile(view, "statEnergy").toolTip()


# -- heat -----------------------------------------------------------------------------------------------------------------


def test_heat_is_coloured_by_the_chosen_quantity(qtbot, counted):
    chart = shown(qtbot, LayerHeat(), (560, 300))
    chart.show_run(counted)
    assert (chart.series.quantity, chart.quantity_button.text()) == ("time", "ms ▾")
    for name, button, unit in (("cycles", "cycles ▾", " M"), ("ipc", "IPC ▾", ""), ("cpu", "CPU time ▾", " ms")):
        chart.quantity_actions[name].trigger()
        data = series.heat(counted, quantity=name)
        np.testing.assert_array_equal(chart.image.image[:, data.moments], data.values)
        assert chart.quantity_button.text() == button
        assert tuple(chart.image.getLevels()) == (0.0, chart.limit)
        assert chart.bar.texts[0].endswith(unit)
    row = chart.series.labels.index("layers.3")
    chart.quantity_actions["ipc"].trigger()
    chart.plot.pointer_moved.emit(2.5, row + 0.5)
    assert chart.hover_text.endswith(f"IPC {IPC:.2f}")
    assert list(chart.table())[1].endswith("_ipc")


def test_heat_without_counters_says_why_and_keeps_to_time(qtbot, counted, run):
    soft = with_counters(run, hardware=False)
    chart = shown(qtbot, LayerHeat(), (560, 300))
    chart.show_run(counted)
    chart.choose_quantity("cycles")
    chart.show_run(replace(soft, id=7))
    assert chart.series.quantity == "time"
    assert not chart.quantity_actions["cycles"].isEnabled()
    assert chart.quantity_actions["cycles"].toolTip() == f"Not here: {VIRTUAL}"
    assert chart.quantity_actions["cpu"].isEnabled()
    chart.show_run(replace(counted, id=8))
    assert chart.series.quantity == "cycles"


def test_why_there_are_no_counts(run):
    assert missing_count(imported_run(), "cycles").startswith("this is an imported trace")
    assert missing_count(with_counters(run, hardware=False), "instructions") == VIRTUAL
    told = replace(run.facts, unavailable=(Unavailable("cycles", of_text("the kernel forbids it.")),))
    assert missing_count(replace(run, facts=told), "cycles") == "the kernel forbids it"
    off = replace(run, config=replace(run.config, profilers=("layer_clock",)))
    assert missing_count(off, "cycles") == "the processor counters were not switched on"


def test_quantities_are_written_with_their_units():
    assert written(1.234, "time") == "1.23 ms"
    assert written(2_400_000, "cycles") == "2.4 M cycles"
    assert written(1.8, "ipc") == "IPC 1.80"
    assert written(0.7, "cpu") == "700 µs of CPU time"
    assert (written(float("nan"), "time"), written(float("nan"), "ipc")) == ("not called", "not measured")
    assert scale_of(4e6, "cycles") == (1e-6, "M")
    assert scale_of(30, "cycles") == (1.0, "")


# -- latency, stages, output ----------------------------------------------------------------------------------------------


def test_profiled_moments_are_not_drawn_and_the_note_says_so(qtbot, profiled, counted):
    data, left_out = without_profiled(profiled)
    assert left_out == 4
    np.testing.assert_array_equal(data.moment, np.arange(len(counted.trace.moments["tags"])))
    chart = shown(qtbot, LatencyChart(), (900, 300))
    chart.show_run(profiled)
    drawn = sum(len(item.getData()[0]) for item in chart.dots.values())
    assert drawn == len(data.moment)
    assert "4 profiled not drawn" in chart.note.text()
    assert "warm-up" in chart.note.text()
    chart.resize(480, 300)
    assert chart.note.sizeHint().width() <= chart.note.width() + 1


def test_a_run_without_profiled_moments_is_drawn_whole(run):
    data, left_out = without_profiled(run)
    assert left_out == 0
    assert len(data.moment) == len(run.trace.moments["tags"])


def test_an_encoder_pools_and_does_not_sample(qtbot, run):
    moments = {name: column.copy() for name, column in run.trace.moments.items()}
    moments["kind"][:] = 4
    encoder = replace(run, trace=replace(run.trace, moments=moments))
    bars = shown(qtbot, StageBars(), (560, 300))
    bars.show_run(encoder)
    titles = {title for _, title, _, _ in bars.bars.rows}
    assert "Pool" in titles
    assert "Sample" not in titles
    bars.show_run(run)
    assert "Sample" in {title for _, title, _, _ in bars.bars.rows}


def test_the_output_says_which_request_is_going(run, profiled):
    going = replace(profiled, facts=replace(profiled.facts, status="running"))
    assert progress_text(going) == "profiled request"
    assert progress_text(profiled) == "repeat 3 · 16 of 16 tokens"  # whose text is on show
    model = replace(run.facts.model, task="embedding")
    automatic = replace(run.config, workload=replace(run.config.workload, repeats=None))
    assert progress_text(replace(run, config=automatic, facts=replace(run.facts, model=model))) == "repeat 3"


# -- memory and machine ---------------------------------------------------------------------------------------------------


def test_memory_shows_peaks_of_phases(qtbot, run):
    chart = shown(qtbot, MemoryChart(), (620, 300))
    chart.show_run(with_peaks(run))
    assert chart.note.text() == "peaks in MiB: loading 880 · warm-up 948 · prefill 944 · decode 916"
    assert chart.peak_line.isVisible()
    assert chart.peak_line.value() == 948
    assert "peak 948 MiB" in chart.plot.labels.texts
    chart.show_run(replace(run, id=9))
    assert not chart.peak_line.isVisible()
    assert chart.note.text() == "process, by kind"


def test_memory_draws_every_kind_that_the_series_has(qtbot, run):
    chart = shown(qtbot, MemoryChart(), (620, 300))
    chart.show_run(run)
    data = series.memory(run)
    assert set(data.kinds) <= set(chart.areas)
    total = sum(np.nan_to_num(values) for values in data.kinds.values())
    top = max((item for kind, item in chart.areas.items() if kind in data.kinds), key=lambda item: item.getData()[1][-1])
    np.testing.assert_allclose(top.getData()[1], total)
    assert set(chart.areas) <= set(DARK.memory) == set(LIGHT.memory)


def test_the_machine_shows_as_many_tracks_as_fit(qtbot, run):
    many = with_tracks(run)
    chart = shown(qtbot, MachineChart(), (560, 130))
    chart.show_run(many)
    total = len({*chart.shown(), *(action.data() for action in chart.tracks_menu.actions())})
    assert 2 <= len(chart.cells) < total
    assert chart.tracks_button.text() == f"{len(chart.cells)} of {total} ▾"
    chart.resize(560, 320)
    assert len(chart.cells) > 4
    for cell in chart.cells.values():
        assert cell.isVisible()
        assert cell.height() >= 50
    chart.resize(300, 130)
    assert len(chart.cells) == 2


def test_a_machine_track_is_brought_into_view_and_taken_away(qtbot, run):
    chart = shown(qtbot, MachineChart(), (560, 130))
    chart.show_run(with_tracks(run))
    before = chart.shown()
    wanted = next(action for action in chart.tracks_menu.actions() if not action.isChecked())
    name = wanted.data()
    wanted.trigger()
    assert chart.shown() == [*before[:-1], name]
    assert chart.cells[name].value.text() != "—"
    chart.show_track("cpu", False)
    assert "cpu" not in chart.shown()
    chart.show_track("cpu", True)
    assert "cpu" in chart.shown()


# -- layers ---------------------------------------------------------------------------------------------------------------


def rows_of(model, parent=None):
    parent = parent or QModelIndex()
    for row in range(model.rowCount(parent)):
        index = model.index(row, 0, parent)
        yield index
        yield from rows_of(model, index)


def cell(view, path, title):
    index = view.model.index_of(path)
    return index.siblingAtColumn(LAYER_TITLES.index(title))


def visible(view) -> set[str]:
    return {title for column, title in enumerate(LAYER_TITLES) if not view.tree.isColumnHidden(column)}


def test_layer_table_has_counts_beside_times(qtbot, state, counted):
    view = show(shown(qtbot, LayersView(context(state))), counted)
    assert {"Cycles", "IPC", "Cache misses", "CPU time"} <= visible(view)
    row = next(row for row in summarize(counted)["layers"] if (row["path"], row["kind"]) == ("model.layers.3", "decode"))
    assert float(cell(view, "model.layers.3", "Cycles").data().split()[0]) == pytest.approx(row["cycles"] / 1e6, abs=0.06)
    assert cell(view, "model.layers.3", "IPC").data() == f"{IPC:.2f}"
    inside = cell(view, "model.layers.3.mlp", "Cycles")
    assert inside.data() == "—"
    assert inside.data(Qt.ItemDataRole.ToolTipRole) == "Not measured: counted for blocks, embedding, norm and head only"
    view.tree.sortByColumn(LAYER_TITLES.index("Cycles"), Qt.SortOrder.DescendingOrder)
    assert view.proxy.index(0, 0).data() == "LlamaForCausalLM"
    assert "cycles" in view.table()


def test_count_columns_without_data_are_hidden_until_asked_for(qtbot, state, run):
    view = show(shown(qtbot, LayersView(context(state))), with_counters(run, hardware=False))
    assert "CPU time" in visible(view)
    assert not {"Cycles", "IPC", "Cache misses", "Instr."} & visible(view)
    view.show_column(LAYER_TITLES.index("Cycles"), True)
    show(view, with_counters(run, hardware=False))
    assert "Cycles" in visible(view)
    assert cell(view, "model.layers.3", "Cycles").data() == "—"
    assert cell(view, "model.layers.3", "Cycles").data(Qt.ItemDataRole.ToolTipRole) == f"Not measured: {VIRTUAL}"


def test_the_header_s_menu_shows_and_hides_columns(qtbot, state, counted):
    view = show(shown(qtbot, LayersView(context(state))), counted)
    view.tree.header().customContextMenuRequested.emit(QPoint(4, 4))
    menu = view.column_menu()
    actions = {action.text(): action for action in menu.actions()}
    assert "Layer" not in actions
    assert actions["Cycles"].isChecked()
    actions["Cycles"].trigger()
    actions["Instr."].trigger()
    assert "Cycles" not in visible(view)
    assert "Instr." in visible(view)


# -- operators ------------------------------------------------------------------------------------------------------------


def names(panel):
    return [panel.model.index(row, 0).data() for row in range(panel.model.rowCount())]


def test_operators_of_all_layers_and_of_the_selected_one(qtbot, state, profiled):
    view = show(shown(qtbot, LayersView(context(state))), profiled)
    panel = view.operators
    assert view.findChild(QTreeView, "operatorTable") is panel.table
    assert panel.explanation == ""
    assert panel.model.rows == operator_rows(profiled, None, "decode", by_layer=False)
    ratio = slowdown(profiled)["decode"]
    assert panel.note.text() == f"median profiled decode moment, {ratio:.2f}× as long as a clean one"
    state.select_layer("model.layers.2.mlp")
    assert panel.title.text() == "Operators of model.layers.2.mlp"
    assert panel.model.rows == operator_rows(profiled, "model.layers.2.mlp", "decode", by_layer=False)
    panel.by_layer.click()
    assert {row.layer for row in panel.model.rows} >= {"model.layers.2.mlp.up_proj", "model.layers.2.mlp.act_fn"}
    panel.only_layer.click()
    assert panel.title.text() == "Operators"
    view.kind_combo.setCurrentIndex(1)
    assert {row.kind for row in panel.model.rows} == {"prefill"}


def test_operator_cells(qtbot, state, profiled):
    panel = show(shown(qtbot, LayersView(context(state))), profiled).operators
    row = next(number for number, one in enumerate(panel.model.shown) if one.whole.name == "aten::addmm")
    one = panel.model.shown[row].whole
    texts = {title: panel.model.index(row, column).data() for column, title in enumerate(TITLES)}
    assert texts["Where"] == "cpu"
    assert texts["Calls"] == f"{one.calls}"
    assert float(texts["GFLOP/s"]) == pytest.approx(one.flops / one.total_ns, rel=0.01)
    assert texts["Bytes"] == "—"
    assert texts["Shapes"] == one.shapes


def test_operators_are_sorted_and_filtered(qtbot, state, profiled):
    panel = show(shown(qtbot, LayersView(context(state))), profiled).operators
    times = [group.whole.self_ns for group in panel.model.shown]
    assert times == sorted(times, reverse=True)
    panel.table.sortByColumn(TITLES.index("FLOPs"), Qt.SortOrder.AscendingOrder)
    known = [group.whole.flops for group in panel.model.shown if group.whole.flops is not None]
    assert known == sorted(known)
    assert panel.model.shown[-1].whole.flops is None
    panel.filter.setText("LINEAR")
    assert set(names(panel)) == {"aten::linear"}
    panel.copy()
    lines = QGuiApplication.clipboard().text().splitlines()
    assert lines[0].startswith("name\tplace\tlayer")
    assert len(lines) == 1 + len([row for row in panel.model.rows if row.name == "aten::linear"])


def test_shapes_of_an_operator_are_below_it_and_add_up(qtbot):
    def row(name, shapes, calls, flops):
        return OperatorRow(name, "cpu", None, None, None, calls, 10 * calls, 7 * calls, 0.1, flops, None, None, shapes)

    model = OperatorModel()
    model.set_rows([row("mm", "[1, 8]", 1, 4), row("add", "[8]", 9, None), row("mm", "[5, 8]", 3, 20)])
    assert [group.whole.name for group in model.shown] == ["add", "mm"]
    mm = model.index(1, 0)
    texts = [mm.siblingAtColumn(TITLES.index(title)).data() for title in ("Operator", "Calls", "FLOPs", "Shapes")]
    assert texts == ["mm", "4", "24", "2 shapes"]
    assert model.rowCount(model.index(0, 0)) == 0
    parts = [model.index(number, 0, mm) for number in range(model.rowCount(mm))]
    assert [part.data() for part in parts] == ["[5, 8]", "[1, 8]"], "in the order of the column chosen too"
    assert all(part.parent() == mm for part in parts)
    assert model.table()["calls"] == [9, 3, 1]


def test_operators_that_were_not_recorded(qtbot, state, run):
    view = show(shown(qtbot, LayersView(context(state))), run)
    assert view.operators.explanation == NOT_RECORDED
    assert view.operators.height() < 100
    going = replace(run, facts=replace(run.facts, status="running"))
    show(view, replace(going, config=replace(run.config, profilers=("layer_clock", "kernels"))))
    assert view.operators.explanation == LATER
    facts = replace(run.facts, unavailable=(Unavailable("kernels", of_text("torch was built without Kineto")),))
    show(view, replace(run, facts=facts))
    assert view.operators.explanation == "No operators were recorded: torch was built without Kineto."
    show(view, with_operators(run))
    assert view.operators.explanation == ""
    assert view.operators.height() > 150
    view.show_run(None)
    assert view.operators.explanation == NOT_RECORDED


def test_a_layer_without_operators_says_so(qtbot, state, profiled):
    operators = {name: column[:20] for name, column in profiled.trace.operators.items()}
    few = replace(profiled, trace=replace(profiled.trace, operators=operators))
    pending = []
    view = shown(qtbot, LayersView(context(state, lambda work, done: pending.append((work, done)))))
    state.select_layer("lm_head")
    show(view, few)
    assert view.operators.explanation == "Adding up the operators …"
    from gui.background import at_once

    while pending:
        at_once(*pending.pop())
    assert view.operators.explanation == "No operator ran in lm_head itself or inside it."


def test_only_the_newest_question_about_operators_is_answered(qtbot, state, profiled):
    from gui.background import at_once

    pending = []
    view = shown(qtbot, LayersView(context(state, lambda work, done: pending.append((work, done)))))
    show(view, profiled)
    state.select_layer("lm_head")
    for question in reversed(pending):
        at_once(*question)
    assert view.operators.title.text() == "Operators of lm_head"


def test_many_thousands_of_operators_stay_quick(qtbot):
    model = OperatorModel()
    rows = [
        OperatorRow(f"op{number % 9000}", "cpu", None, None, None, 1, number, number % 977, 0.1, None, None, None, None)
        for number in range(60_000)
    ]
    asked = []
    model.set_rows(rows)
    model.modelReset.connect(lambda: asked.append("reset"))
    model.sort(SELF, Qt.SortOrder.AscendingOrder)
    assert model.shown[0].whole.self_ns == min(group.whole.self_ns for group in model.shown)
    model.set_filter("op8999")
    model.set_filter("OP8999")
    assert asked == ["reset"]
    assert {group.whole.name for group in model.shown} == {"op8999"}
    assert model.index(0, MOMENT).data() == "in none"


# -- imported traces ------------------------------------------------------------------------------------------------------


def test_an_imported_trace_shows_what_exists(qtbot, state):
    run = imported_run()
    bare = replace(run, facts=replace(run.facts, rss_peak_bytes=None, weights_bytes=None))
    live = show(shown(qtbot, LiveView(context(state))), bare)
    assert {(one.reading.value, one.reading.sub) for one in live.tiles.tiles} == {("—", IMPORTED)}
    assert live.latency.explanation == ""
    assert live.latency.note.text() == "steps of an imported trace"
    live.latency.plot.pointer_moved.emit(1.0, float(live.latency.series.duration_ms[1]))
    assert "imported" in live.latency.hover_text
    assert "imported trace" in live.heat.explanation
    assert "imported trace" in live.stages.explanation
    assert "imported trace" in live.memory.explanation
    assert {one.reason.text() for one in live.machine.cells.values()} == {"imported trace"}
    assert live.output.text.toPlainText() == ""
    assert "imported trace" in live.output.text.placeholderText()


def test_the_cold_step_of_an_imported_trace_is_folded_away_as_warm_up_is(qtbot, state):
    run = imported_run()
    tags = run.trace.moments["tags"].copy()
    tags[0] |= int(Tag.COLD)
    cold = replace(run, trace=replace(run.trace, moments={**run.trace.moments, "tags": tags}))
    live = show(shown(qtbot, LiveView(context(state))), cold)
    assert live.latency.folded == 1
    assert live.latency.plot.getViewBox().viewRange()[0][0] > 0.5
    live.latency.show_warmup.setChecked(True)
    assert live.latency.folded == 0
    live.latency.plot.pointer_moved.emit(0.0, float(live.latency.series.duration_ms[0]))
    assert "(forward, imported, cold)" in live.latency.hover_text.replace("decode", "forward").replace("prefill", "forward")


def test_an_imported_trace_has_its_operators_in_the_layers_view(qtbot, state):
    view = show(shown(qtbot, LayersView(context(state))), imported_run())
    assert not view.card.isVisible()
    assert view.operators.explanation == ""
    assert view.operators.note.text() == "all steps of the imported trace"
    assert "sm80_xmma_gemm_f32" in names(view.operators)
    assert not view.operators.table.isColumnHidden(MOMENT)
    assert not view.operators.by_layer.isVisible()


def test_compiled_decode_with_ticks_just_has_rows(qtbot, counted):
    """Ticks give spans to blocks only: the rows of pieces appear, those without spans do not."""
    blocks = np.array([layer.path.rpartition(".")[2].isdigit() for layer in counted.trace.layers])
    kept = blocks[counted.trace.spans["layer"]]
    spans = {name: column[kept] for name, column in counted.trace.spans.items()}
    ticked = replace(counted, trace=replace(counted.trace, spans=spans))
    chart = shown(qtbot, LayerHeat(), (560, 300))
    chart.show_run(ticked)
    assert chart.explanation == ""
    assert chart.series.labels == [f"layers.{number}" for number in range(6)]


def test_what_is_not_measured_is_never_zero(counted, run):
    assert (run.trace.moments["cycles"] == NOT_MEASURED).all()
    assert (counted.trace.moments["cycles"] > 0).all()
    assert not (counted.trace.moments["tags"] & int(Tag.PROFILED)).any()


def test_a_tile_says_that_nothing_calm_was_left(qtbot, state, run):
    moments = dict(run.trace.moments)
    moments["tags"] = moments["tags"] | int(Tag.PERTURBED)
    disturbed = replace(run, trace=replace(run.trace, moments=moments))
    reading = next(spec for spec in specs() if spec.name == "statTPOT").read(summarize(disturbed))
    assert reading.tone == "warn"
    assert reading.sub.startswith("disturbed · ")
