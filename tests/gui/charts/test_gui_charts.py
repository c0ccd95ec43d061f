"""The charts: that the data arrives in the curves, that ranges keep still, and that hover, selection and menus work."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QColor, QFocusEvent, QGuiApplication
from PySide6.QtWidgets import QApplication, QWidget

from core.analysis import series
from core.config import PassConfig
from core.messages.reason import of_text
from core.presentation.ticks import nice_limit, nice_spacing, plain_number
from core.records.run import Unavailable
from gui.charts.axis import Axis
from gui.charts.card import START_HINT
from gui.charts.heat import LayerHeat
from gui.charts.latency import MARKS, LatencyChart
from gui.charts.machine import MachineChart, binned
from gui.charts.memory import MemoryChart
from gui.charts.menu import as_tsv
from gui.charts.stages import StageBars
from gui.last_folder import short_path
from gui.theme import DARK, LIGHT
from gui.view_state import ViewState
from gui.views.live.view import LiveView
from profilers.trace import Columns, Layer, Tag, Trace
from tests.support.fakes import first_moments
from tests.support.synthetic import synthetic_run
from tests.support.trials import synthetic_trial
from tests.support.view_context import context

CHARTS = (LatencyChart, MemoryChart, LayerHeat, StageBars, MachineChart)


@pytest.fixture(scope="module")
def run():
    return synthetic_run(repeats=3, warmup=1, new_tokens=16, blocks=6)


def shown(qtbot, chart_type, run=None, size=(560, 300)):
    chart = chart_type()
    qtbot.addWidget(chart)
    chart.set_palette(DARK)
    chart.resize(*size)
    chart.show()
    if run is not None:
        chart.show_run(run)
    return chart


def changed_moments(run, **columns):
    """The run with other values in columns of its moments."""
    moments = {name: values.copy() for name, values in run.trace.moments.items()}
    for name, values in columns.items():
        moments[name][:] = values
    return replace(run, trace=replace(run.trace, moments=moments))


@pytest.mark.parametrize("chart_type", [LatencyChart, LayerHeat, StageBars])
def test_of_a_run_that_is_over_nothing_is_not_yet_there(qtbot, chart_type, run):
    """A run cancelled before its first moment said "yet", as if something were still to come."""
    chart = shown(qtbot, chart_type)
    begun = first_moments(run, 0, "running")
    chart.show_run(begun)
    assert " yet" in chart.explanation
    chart.show_run(replace(begun, facts=replace(begun.facts, status="cancelled")))
    assert chart.explanation
    assert " yet" not in chart.explanation


def test_a_name_that_has_no_room_keeps_its_end(qtbot):
    axis = Axis("left")
    axis.setWidth(80)
    axis.name_values(["layers.0", "Sequential_0.Transformer_0.Block_11"])
    short, long = axis.tickStrings([0.5, 1.5], 1.0, 1.0)
    assert short == "layers.0"
    assert long.endswith("_11")
    assert len(long) < 20


@pytest.mark.parametrize("chart_type", CHARTS)
def test_no_run_and_an_empty_run_say_what_is_missing(qtbot, chart_type, run):
    chart = shown(qtbot, chart_type)
    assert chart.explanation
    chart.show_run(None)
    assert chart.explanation
    empty = replace(run, trace=Trace(layers=run.trace.layers), facts=replace(run.facts, status="running"))
    chart.show_run(empty)
    if chart_type is MachineChart:
        assert {cell.value.text() for cell in chart.cells.values()} == {"—"}
        assert chart.cells["cpu"].reason.text() == "waiting for the first sample"
    else:
        assert chart.explanation.startswith("No ")
    chart.show_run(run)
    assert chart.explanation == ""


def test_the_first_chart_says_how_to_start(qtbot):
    assert START_HINT in shown(qtbot, LatencyChart).explanation


def test_latency_dots_are_the_moments_sorted_by_what_they_are(qtbot, run):
    chart = shown(qtbot, LatencyChart, run)
    data = series.latency(run)
    drawn = {name: item.getData() for name, item in chart.dots.items()}
    assert sum(len(x) for x, _ in drawn.values()) == len(data.moment)
    x, y = drawn["clean"]
    expected = ~data.traced & ~data.warmup & ~data.perturbed & (data.kind == 2) & (data.latency_ms <= chart.limit_ms)
    np.testing.assert_array_equal(x, data.moment[expected])
    np.testing.assert_allclose(y, data.latency_ms[expected])
    assert len(drawn["warm-up"][0]) == np.count_nonzero(data.warmup & (data.latency_ms <= chart.limit_ms))
    assert len(drawn["perturbed"][0]) == np.count_nonzero(data.perturbed & ~data.warmup)


def test_latency_median_line_is_the_clean_median_and_labelled(qtbot, run):
    chart = shown(qtbot, LatencyChart, run)
    median = series.latency(run).clean_median_ms
    assert set(chart.median_line.getData()[1]) == {median}
    assert any(text.startswith("median\n12") for text in chart.plot.labels.texts)


def test_one_outlier_does_not_flatten_the_rest(qtbot, run):
    before = shown(qtbot, LatencyChart, run).limit_ms
    latency = run.trace.moments["latency_ns"].copy()
    latency[40] = 3_000_000_000
    chart = shown(qtbot, LatencyChart, changed_moments(run, latency_ns=latency))
    assert chart.limit_ms == before
    x, y = chart.dots["outlier"].getData()
    assert list(x) == [40]
    assert before < y[0] < before * 1.06
    assert any(text.startswith("▲ 1 up to\n3.00 s") for text in chart.plot.labels.texts)


def test_latency_axes_start_at_zero_and_do_not_jump_while_running(qtbot, run):
    chart = shown(qtbot, LatencyChart)
    ranges = []
    for count in (20, 30, 45, 60):
        chart.show_run(first_moments(run, count, "running"))
        ranges.append(chart.plot.getViewBox().viewRange())
    planned = run.facts.planned_moments
    assert all(x == ranges[0][0] for x, _ in ranges)
    warm = int(np.count_nonzero(series.latency(run).warmup))
    assert ranges[0][0][0] < warm < planned <= ranges[0][0][1]
    assert all(y[0] == 0 for _, y in ranges)
    tops = [y[1] for _, y in ranges]
    assert tops == sorted(tops)
    assert len(set(tops)) <= 2


def test_a_zoom_stays_until_it_is_reset(qtbot, run):
    chart = shown(qtbot, LatencyChart, first_moments(run, 30, "running"))
    view = chart.plot.getViewBox()
    whole = view.viewRange()
    view.setRange(xRange=(5, 10), yRange=(0, 20), padding=0)
    view.sigRangeChangedManually.emit([True, True])
    chart.show_run(first_moments(run, 50, "running"))
    assert view.viewRange()[0] == pytest.approx([5, 10])
    chart.menu.reset_view.trigger()
    assert view.viewRange()[0] == pytest.approx(whole[0])


def test_latency_hover_tells_the_moment(qtbot, run):
    chart = shown(qtbot, LatencyChart, run)
    data = series.latency(run)
    row = 21
    chart.plot.pointer_moved.emit(float(row), float(data.latency_ms[row]))
    assert chart.hover_text.startswith(f"moment {row} · {data.latency_ms[row]:.1f} ms (decode, ")
    chart.plot.pointer_moved.emit(float(row), 1.0)
    assert chart.hover_text == ""


def test_a_pointer_over_the_plot_is_enough_for_a_hover(qtbot, run):
    chart = shown(qtbot, LayerHeat, run)
    qtbot.waitExposed(chart)
    view = chart.plot.getViewBox()
    at = chart.plot.mapFromScene(view.mapViewToScene(view.viewRect().center()))
    qtbot.mouseMove(chart.plot.viewport(), at - QPoint(3, 3))
    qtbot.mouseMove(chart.plot.viewport(), at)
    qtbot.waitUntil(lambda: " · moment " in chart.hover_text, timeout=3000)


def test_memory_areas_add_up_and_are_named(qtbot, run):
    chart = shown(qtbot, MemoryChart, run)
    data = series.memory(run)
    total = sum(data.kinds.values())
    np.testing.assert_allclose(chart.areas["activations"].getData()[1], total)
    np.testing.assert_allclose(chart.areas["other"].getData()[1], data.kinds["other"])
    assert sorted(text.split(" ")[0] for text in chart.plot.labels.texts) == [
        "KV",
        "activations",
        "framework",
        "other",
        "weights",
    ]
    chart.plot.pointer_moved.emit(float(data.time_s[5]), 100.0)
    assert "in all\nactivations" in chart.hover_text
    assert "weights 257 MiB" in chart.hover_text


def test_memory_labels_do_not_lie_on_each_other(qtbot, run):
    chart = shown(qtbot, MemoryChart, run, size=(380, 190))
    boxes = sorted((item.y(), item.y() + item.boundingRect().height()) for item in chart.plot.labels._items if item.isVisible())
    assert len(boxes) == 5
    assert all(below[0] >= above[1] - 2 for above, below in pairwise(boxes))


def test_memory_of_a_long_run_is_thinned(qtbot, run):
    counters = Columns({"track": "i2", "time_ns": "i8", "value": "f8"}, 8)
    counters.extend({"track": np.zeros(5000), "time_ns": np.arange(5000) * 10**6, "value": np.full(5000, 2.0**30)})
    chart = shown(qtbot, MemoryChart, replace(run, trace=replace(run.trace, counters=counters.view())))
    x, _ = chart.areas["other"].getData()
    assert len(x) <= 600
    assert (x[0], x[-1]) == (0.0, 4.999)


def test_memory_that_was_not_measured_says_why(qtbot, run):
    facts = replace(run.facts, unavailable=(Unavailable("host_memory", of_text("this system does not tell it")),))
    chart = shown(qtbot, MemoryChart, replace(run, trace=replace(run.trace, tracks=()), facts=facts))
    assert chart.explanation == "Memory was not measured: this system does not tell it."


def test_heat_image_is_the_matrix(qtbot, run):
    chart = shown(qtbot, LayerHeat, run)
    data = series.heat(run)
    distance = np.abs(np.arange(data.moments[-1] + 1)[:, None] - data.moments[None, :])
    shown_at = chart._column_of
    assert (distance[np.arange(len(shown_at)), shown_at] == distance.min(axis=1)).all()
    np.testing.assert_array_equal(chart.image.image, data.values[:, shown_at])
    np.testing.assert_array_equal(chart.image.image[:, data.moments], data.values)
    assert tuple(chart.image.getLevels()) == (0.0, chart.limit)
    names = chart.plot.left.labels
    assert list(names.values()) == data.labels


def test_heat_colours_are_for_the_blocks_and_the_bar_says_that_more_is_cut(qtbot):
    chart = shown(qtbot, LayerHeat, synthetic_run(repeats=2, new_tokens=12, blocks=30))
    matrix = chart.series.values
    head, block = np.nanmedian(matrix[-1]), np.nanmedian(matrix[5])
    assert chart.bar.texts[0].endswith(" ms")
    usual = chart.limit
    assert block < usual < 4 * block
    chart.full_range.trigger()
    assert chart.limit >= head
    assert chart.bar.limit == chart.limit


def test_requests_that_were_not_traced_stay_blank_in_the_heat(qtbot):
    """A side of an A/B test has one request in four traced: its first and last moments filled the three beside it."""
    side, _ = synthetic_trial(rounds=8, new_tokens=30)
    heat = shown(qtbot, LayerHeat, side)
    traced = (side.trace.moments["tags"] & int(Tag.TRACED)) != 0
    at = np.arange(len(heat._column_of))
    drawn = np.isfinite(heat.image.image).any(axis=0)
    assert drawn[traced[at]].all()
    between = np.flatnonzero(~traced[at] & ~drawn)
    assert len(between) > 30
    assert heat._cell(float(between[len(between) // 2]) + 0.5, 0.5) is None
    assert "not traced" in heat.note.text()


def test_heat_hover_click_and_keys_select_a_layer(qtbot, run):
    chart = shown(qtbot, LayerHeat, run)
    qtbot.waitExposed(chart)
    row = chart.series.labels.index("layers.3")
    chart.plot.pointer_moved.emit(float(chart.series.moments[2]) + 0.5, row + 0.5)
    value = chart.series.values[row, 2]
    assert chart.hover_text.startswith(f"model.layers.3 · moment {chart.series.moments[2]} · ")
    assert f"{value * 1000:.0f}"[:2] in chart.hover_text.replace(".", "")
    with qtbot.waitSignal(chart.layer_selected) as clicked:
        view = chart.plot.getViewBox()
        at = chart.plot.mapFromScene(view.mapViewToScene(view.viewRect().center()))
        qtbot.mouseClick(chart.plot.viewport(), Qt.MouseButton.LeftButton, pos=at)
    assert clicked.args[0] in chart._paths
    chart.select_layer("model.layers.3")
    with qtbot.waitSignal(chart.layer_selected) as stepped:
        qtbot.keyClick(chart.plot, Qt.Key.Key_Down)
    assert stepped.args == ["model.layers.4"]


def test_heat_frames_the_row_that_the_selected_layer_is_inside(qtbot, run):
    chart = shown(qtbot, LayerHeat, run)
    chart.select_layer("model.layers.3.mlp.up_proj")
    assert chart.series.labels[chart.selected_row] == "layers.3"
    assert chart._frame.isVisible()
    chart.select_layer("")
    assert chart.selected_row is None
    assert not chart._frame.isVisible()


def test_the_same_moment_is_at_the_same_place_in_latency_and_heat(qtbot, run):
    view = LiveView(context(ViewState("dark")))
    qtbot.addWidget(view)
    view.set_palette(DARK)
    view.resize(1130, 800)
    view.show()
    view.show_run(run)

    def pixel(chart, moment):
        plot = chart.plot
        at = plot.mapFromScene(plot.getViewBox().mapViewToScene(QPointF(moment, 0)))
        return plot.mapTo(chart, at).x()

    for moment in (20, 40, 60):
        qtbot.waitUntil(lambda moment=moment: abs(pixel(view.latency, moment) - pixel(view.heat, moment)) <= 1, timeout=3000)
    box = view.latency.plot.getViewBox()
    box.setRange(xRange=(30, 40), padding=0)
    box.sigRangeChangedManually.emit([True, True])
    assert view.heat.plot.getViewBox().viewRange()[0] == pytest.approx([30, 40])
    view.heat.menu.reset_view.trigger()
    assert view.latency.plot.getViewBox().viewRange()[0] == pytest.approx(view.heat.plot.getViewBox().viewRange()[0])
    assert box.viewRange()[0][1] > 60


def test_warm_up_is_folded_until_it_is_asked_for(qtbot, run):
    chart = shown(qtbot, LatencyChart, run)
    warm = int(np.count_nonzero(series.latency(run).warmup))
    assert chart.folded == warm > 0
    assert warm - 2 < chart.plot.getViewBox().viewRange()[0][0] < warm
    assert f"{warm} are folded away" in chart.note.toolTip()
    chart.show_warmup.trigger()
    assert chart.folded == 0
    assert chart.plot.getViewBox().viewRange()[0][0] < 0
    only = shown(qtbot, LatencyChart, first_moments(run, warm - 2, "running"))
    assert only.folded == 0
    assert only.plot.getViewBox().viewRange()[0][0] < 0


def test_what_was_perturbed_lies_below_what_counts_and_every_mark_is_explained(qtbot, run):
    latency = run.trace.moments["latency_ns"].copy()
    latency[40] = 3_000_000_000
    chart = shown(qtbot, LatencyChart, changed_moments(run, latency_ns=latency), size=(900, 300))
    below = max(chart.dots[name].zValue() for name in ("perturbed", "warm-up"))
    assert below < min(chart.dots[name].zValue() for name in MARKS if name not in ("perturbed", "warm-up"))
    assert chart.dots["perturbed"].opts["pen"].color().alphaF() < 0.7
    drawn = {name for name, dots in chart.dots.items() if len(dots.getData()[0])}
    assert drawn >= {"clean", "traced", "perturbed", "outlier"}
    for name in ("clean", "traced", "prefill", "perturbed", "warm-up", "above the axis"):
        assert f"{name}:" in chart.note.toolTip()
        assert name in chart.note.text()


@pytest.mark.parametrize(
    ("chart_type", "said"),
    [
        (LatencyChart, "median of clean decode moments 12"),
        (MemoryChart, "weights 257 MiB"),
        (LayerHeat, "Highest medians: lm_head "),
        (StageBars, "MLP "),
        (MachineChart, "CPU 195 %"),
    ],
)
def test_the_keyboard_reaches_every_chart_and_a_reader_its_values(qtbot, run, chart_type, said):
    chart = shown(qtbot, chart_type, run)
    qtbot.waitExposed(chart)
    stop = next(widget for widget in (chart, *chart.findChildren(QWidget)) if widget in chart._readable)
    assert stop.focusPolicy() & Qt.FocusPolicy.TabFocus
    assert stop.accessibleName() == chart.title.text()
    assert said in stop.accessibleDescription()
    assert stop.accessibleDescription() == chart.accessibleDescription()
    QApplication.sendEvent(stop, QFocusEvent(QEvent.Type.FocusIn))
    assert chart.property("focused")
    QApplication.sendEvent(stop, QFocusEvent(QEvent.Type.FocusOut))
    assert not chart.property("focused")


def test_a_running_chart_tells_its_values_when_someone_comes_to_it(qtbot, run):
    chart = shown(qtbot, LatencyChart, first_moments(run, 40, "running"))
    assert "moments" not in chart.plot.accessibleDescription()
    QApplication.sendEvent(chart.plot, QFocusEvent(QEvent.Type.FocusIn))
    assert chart.plot.accessibleDescription().startswith("40 moments, ")


def test_a_low_chart_still_has_several_numbers_at_its_side(qtbot, run):
    chart = shown(qtbot, LatencyChart, run, size=(560, 150))
    low, high = chart.plot.getViewBox().viewRange()[1]
    (_, values), *_ = chart.plot.left.tickValues(low, high, chart.plot.getViewBox().boundingRect().height())
    assert len(values) >= 3


def compiled(run):
    """As a compiled decode leaves it: no decode moment has spans."""
    prefill = np.isin(run.trace.spans["moment"], np.flatnonzero(run.trace.moments["kind"] == 0))
    spans = {name: column[prefill] for name, column in run.trace.spans.items()}
    tags = np.where(run.trace.moments["kind"] == 2, int(Tag.CLEAN), run.trace.moments["tags"])
    moments = dict(run.trace.moments) | {"tags": tags.astype("i4")}
    config = replace(run.config, passes=(PassConfig("compile_decode"),))
    return replace(run, config=config, trace=replace(run.trace, moments=moments, spans=spans))


def test_a_compiled_decode_explains_that_it_hides_its_layers(qtbot, run):
    stages = shown(qtbot, StageBars, compiled(run))
    assert "no compiled decode has run with the clock inside" in stages.explanation
    stages.choose_kind("prefill")
    assert stages.explanation == ""
    heat = shown(qtbot, LayerHeat, compiled(run), size=(900, 300))
    assert "no compiled decode has run with the clock inside" in heat.note.text()


def test_stage_bars_are_the_stages_longest_first(qtbot, run):
    chart = shown(qtbot, StageBars, run)
    data = series.stages(run)
    assert sorted(row[0] for row in chart.bars.rows) == sorted(data.stages)
    times = [row[2] for row in chart.bars.rows]
    assert times == sorted(times, reverse=True)
    assert sum(row[3] for row in chart.bars.rows) == pytest.approx(1)
    chart.bars.hovered.emit(0)
    assert "of a median decode moment" in chart.hover_text
    chart.bars.hovered.emit(-1)
    assert chart.hover_text == ""


def test_stage_bars_show_the_chosen_kind_and_mark_the_selected_layer(qtbot, run):
    chart = shown(qtbot, StageBars, run)
    assert [action.text() for action in chart.kind_menu.actions()] == ["prefill", "decode"]
    chart.kind_menu.actions()[0].trigger()
    assert chart.series.kind == "prefill"
    chart.select_layer("model.layers.0.mlp.up_proj")
    assert chart.bars.marked == "mlp"


def test_machine_shows_each_track_with_its_latest_value(qtbot, run):
    chart = shown(qtbot, MachineChart, run)
    assert list(chart.cells) == ["cpu", "frequency", "switches"]
    assert chart.cells["cpu"].value.text() == "195 %"
    assert chart.cells["frequency"].value.text() == "3.40 GHz"
    x, y = chart.cells["cpu"].curve.getData()
    np.testing.assert_allclose(y, series.machine(run)[0].value)
    chart.cells["cpu"].plot.pointer_moved.emit(float(x[3]), 50.0)
    assert chart.hover_text == f"{y[3]:.0f} % at {x[3]:.2f} s"


def test_a_machine_track_that_is_missing_shows_a_dash_and_the_reason(qtbot, run):
    tracks = tuple(replace(track, name="rss") if track.name == "frequency" else track for track in run.trace.tracks)
    tracks = tuple(replace(track, unit="bytes") if track.name == "rss" else track for track in tracks)
    facts = replace(run.facts, unavailable=(Unavailable("frequency", of_text("the system does not tell the clock")),))
    chart = shown(qtbot, MachineChart, replace(run, trace=replace(run.trace, tracks=tracks), facts=facts))
    assert chart.cells["frequency"].value.text() == "—"
    assert chart.cells["frequency"].reason.text() == "the system does not tell the clock"
    assert chart.cells["frequency"].plot.isHidden()


def test_binned_keeps_the_peaks_of_rare_events():
    value = np.zeros(4000)
    value[1234] = 7
    _, peaks = binned(np.arange(4000.0), value, peaks=True)
    _, means = binned(np.arange(4000.0), value, peaks=False)
    assert len(peaks) == len(means) == 160
    assert peaks.max() == 7
    assert means.max() == pytest.approx(7 / 25)


@pytest.mark.parametrize("chart_type", CHARTS)
def test_painting_is_reported(qtbot, chart_type, run):
    chart = shown(qtbot, chart_type, run)
    painted: list[int] = []
    chart.set_paint_meter(painted.append)
    chart.grab()
    assert painted
    assert all(duration > 0 for duration in painted)


@pytest.mark.parametrize("chart_type", CHARTS)
def test_both_palettes_and_their_colours(qtbot, chart_type, run):
    chart = shown(qtbot, chart_type, run)
    for palette in (LIGHT, DARK):
        chart.set_palette(palette)
        for plot in chart.plots:
            assert plot.backgroundBrush().color() == QColor(palette.card)
        assert chart.explanation == ""


def test_palette_reaches_dots_and_areas(qtbot, run):
    latency, memory = shown(qtbot, LatencyChart, run), shown(qtbot, MemoryChart, run)
    for palette in (LIGHT, DARK):
        latency.set_palette(palette)
        memory.set_palette(palette)
        assert latency.dots["clean"].opts["brush"].color() == QColor(palette.series[0])
        assert memory.areas["weights"].opts["brush"].color() == QColor(palette.memory["weights"])


@pytest.mark.parametrize("chart_type", CHARTS)
def test_every_menu_entry_of_every_chart(qtbot, chart_type, run, tmp_path):
    chart = shown(qtbot, chart_type, run)
    menu = chart.menu
    for suffix, begins in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        path = tmp_path / f"chart.{suffix}"
        menu.ask_path = lambda *_, path=path: path
        menu.save_image.trigger()
        menu.join(60)
        assert menu.poll() == (f"Saved {short_path(path)}", path)
        assert path.read_bytes().startswith(begins)
    path = tmp_path / "chart.csv"
    menu.ask_path = lambda *_: path
    menu.save_data.trigger()
    menu.join(60)
    assert menu.poll() == (f"Saved {short_path(path)}", path)
    assert menu.poll() is None
    rows = list(csv.reader(path.open(encoding="utf-8")))
    assert len(rows[0]) == len(chart.table())
    assert len(rows) - 1 == len(next(iter(chart.table().values()))) > 0
    menu.copy_data.trigger()
    lines = QGuiApplication.clipboard().text().splitlines()
    assert lines[0].split("\t") == list(chart.table())
    assert len(lines) == len(rows)
    menu.copy_image.trigger()
    assert QGuiApplication.clipboard().pixmap().width() >= chart.width()
    menu.reset_view.trigger()


def test_latency_data_are_the_moments(qtbot, run):
    chart = shown(qtbot, LatencyChart, run)
    chart.menu.copy_data.trigger()
    lines = [line.split("\t") for line in QGuiApplication.clipboard().text().splitlines()]
    data = series.latency(run)
    assert len(lines) - 1 == len(data.moment)
    assert float(lines[5][lines[0].index("latency_ms")]) == pytest.approx(data.latency_ms[4])
    assert lines[1][lines[0].index("kind")] == "prefill"


def test_saving_that_fails_or_is_called_off(qtbot, run, tmp_path):
    chart = shown(qtbot, LatencyChart, run)
    asked = []
    chart.menu.ask_path = lambda *question: asked.append(question)
    chart.menu.save_image.trigger()
    assert not chart.menu.busy
    assert Path(asked[0][2]).name == "synthetic latency.png"
    chart.menu.ask_path = lambda *_: tmp_path / "no such folder" / "chart.png"
    chart.menu.save_image.trigger()
    chart.menu.join(60)
    text, made = chart.menu.poll()
    assert text.startswith("chart.png could not be written: ")
    assert made is None


def test_the_menu_is_reachable_by_mouse_and_keyboard(qtbot, run):
    chart = shown(qtbot, LatencyChart, run)
    assert chart.menu_button.focusPolicy() & Qt.FocusPolicy.TabFocus
    qtbot.keyClick(chart.menu_button, Qt.Key.Key_Space)
    assert chart.menu.isVisible()
    chart.menu.close()
    chart.plot.viewport().customContextMenuRequested.emit(QPoint(20, 20))
    assert chart.menu.isVisible()
    assert [action.text() for action in chart.menu.actions() if action.text()] == [
        "Save image…",
        "Save data…",
        "Copy image",
        "Copy data",
        "Reset view",
        "Show warm-up",
    ]
    chart.menu.close()


def test_the_menu_of_an_empty_chart_has_nothing_to_save(qtbot):
    chart = shown(qtbot, MemoryChart)
    chart.menu.aboutToShow.emit()
    assert not chart.menu.save_image.isEnabled()


def test_keys_that_a_chart_does_not_know_go_to_the_window(qtbot, run):
    chart = shown(qtbot, LayerHeat, run)
    passed = []
    chart.keyPressEvent = lambda event: passed.append(event.key())
    qtbot.keyClick(chart.plot, Qt.Key.Key_F5)
    assert passed == [Qt.Key.Key_F5]


def test_thousands_of_layers_keep_to_a_readable_number_of_rows(qtbot):
    run = synthetic_run(repeats=1, warmup=1, new_tokens=4, blocks=300)
    assert len(run.trace.layers) > 3000
    chart = shown(qtbot, LayerHeat, run)
    assert len(chart.series.labels) <= 64
    ticks = chart.plot.left.tickValues(0, len(chart.series.labels), 200)[0][1]
    assert 2 <= len(ticks) <= 14


def test_axis_ticks_are_few_round_and_carry_the_unit():
    axis = Axis("left", "ms")
    [(spacing, values)] = axis.tickValues(0, 15, 160)
    assert values == [0, 5, 10, 15]
    assert axis.tickStrings(values, 1, spacing) == ["0", "5", "10", "15 ms"]
    [(spacing, values)] = axis.tickValues(0, 0.6, 160)
    assert axis.tickStrings(values, 1, spacing)[-1] == "0.6 ms"
    axis.name_values(["embed", *(f"layers.{number}" for number in range(30)), "norm", "head"])
    [(_, values)] = axis.tickValues(0, 33, 200)
    names = axis.tickStrings(values, 1, 1)
    assert (names[0], names[-1]) == ("embed", "head")
    assert names[1:-1] == ["layers.5", "layers.10", "layers.15", "layers.20", "layers.25"]


@pytest.mark.parametrize(("value", "limit"), [(12.4, 15), (0.101, 0.12), (1000, 1000), (1001, 1200), (0, 1), (math.nan, 1)])
def test_limits_are_round(value, limit):
    assert nice_limit(value) == pytest.approx(limit)


def test_tick_numbers_have_the_decimals_they_need():
    assert nice_spacing(640, 5, whole=True) == 200
    assert nice_spacing(3, 10, whole=True) == 1
    assert plain_number(0.05, 0.05) == "0.05"
    assert plain_number(12000, 500) == "12 000"


def test_tsv_has_empty_cells_for_what_was_not_measured():
    assert as_tsv({"a": [1, None], "b": [math.nan, 2.5]}) == "a\tb\n1\t\n\t2.5\n"
    assert as_tsv({"resident": [1098022913.0]}) == "resident\n1098022913\n"


def test_layers_without_a_list_are_drawn_too(qtbot, run):
    layers = tuple(Layer(layer.path, "Thing", layer.stage, layer.parent) for layer in run.trace.layers)
    chart = shown(qtbot, LayerHeat, replace(run, trace=replace(run.trace, layers=layers)))
    assert chart.explanation == ""
    assert chart.series.labels


def test_charts_go_away_with_their_window(qtbot, run):
    import shiboken6

    chart = MachineChart()
    chart.set_palette(DARK)
    chart.resize(560, 200)
    chart.show()
    chart.show_run(run)
    plot = chart.cells["cpu"].plot
    chart.deleteLater()
    qtbot.waitUntil(lambda: not shiboken6.isValid(plot), timeout=3000)


def test_file_dialog_adds_the_chosen_ending(monkeypatch, qtbot):
    from gui.charts import menu

    monkeypatch.setattr(menu.QFileDialog, "getSaveFileName", lambda *_: ("/somewhere/picture", "SVG drawing (*.svg)"))
    assert menu.ask_path(None, "", "", "") == Path("/somewhere/picture.svg")
    monkeypatch.setattr(menu.QFileDialog, "getSaveFileName", lambda *_: ("", ""))
    assert menu.ask_path(None, "", "", "") is None


def test_another_run_of_the_same_shape_is_drawn_anew(qtbot, run):
    chart = shown(qtbot, LatencyChart, run)
    other = replace(synthetic_run(repeats=3, warmup=1, new_tokens=16, blocks=6, seed=5), id=9)
    chart.show_run(other)
    _, y = chart.dots["clean"].getData()
    data = series.latency(other)
    clean = ~data.traced & ~data.warmup & ~data.perturbed & (data.kind == 2) & (data.latency_ms <= chart.limit_ms)
    np.testing.assert_allclose(y, data.latency_ms[clean])


def test_the_first_prefill_does_not_set_the_scale_of_the_rest(qtbot, run):
    chart = shown(qtbot, LatencyChart, first_moments(run, 1, "running"))
    assert chart.limit_ms >= 40
    chart.show_run(first_moments(run, 40, "running"))
    chart.show_run(first_moments(run, 45, "running"))
    assert chart.limit_ms <= 20


def test_a_legend_without_room_for_all_keeps_what_is_drawn(qtbot, run):
    tags = run.trace.moments["tags"]
    chart = shown(qtbot, LatencyChart, changed_moments(run, tags=tags | int(Tag.PERTURBED)), (430, 300))
    legend = chart.note.text()
    assert "perturbed" in legend
    assert "clean" not in legend  # there is none to tell from others
