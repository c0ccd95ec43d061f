"""What quality costs, wherever the window says it: tile, chart of speed against quality, layer errors, trial, form, files."""

from __future__ import annotations

import csv
from dataclasses import replace
from types import SimpleNamespace

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QWidget

from core.analysis.speed_quality import Point, behind_said, placed, point, points
from core.analysis.summary import summarize
from core.config import QualityConfig, WorkloadConfig
from core.errors import Refusal
from core.export.base import exporters
from core.export.figures import CHARTS, SPEED_QUALITY, write_speed_quality
from core.export.speed_quality import cost_axis, cost_place, cost_text, draw_speed_quality, stairs
from core.messages.reason import of_text
from core.notices import Status
from core.records.run import Estimate, Quality, Unavailable
from gui.charts.latency import LatencyChart
from gui.charts.speed_quality import SpeedQualityChart
from gui.last_folder import short_path
from gui.setup.quality_form import QualityForm
from gui.setup.workload_form import WorkloadForm
from gui.status_bar import StatusBar
from gui.theme import DARK, LIGHT, stylesheet
from gui.view_state import ViewState
from gui.views import quality_text
from gui.views.compare.view import CompareView
from gui.views.layers.layer_columns import SQNR, TITLES
from gui.views.layers.layer_errors import worst_layers
from gui.views.layers.view import LayersView
from gui.views.live.tile_readings import specs
from gui.views.live.tiles import Tile
from gui.views.live.view import LiveView
from profilers.trace import KINDS, STAGES, Trace
from tests.support.synthetic_quality import language_quality, layer_errors, session_runs, with_passes
from tests.support.view_context import context


@pytest.fixture(scope="module")
def runs():
    return session_runs(blocks=2)


@pytest.fixture(scope="module")
def run(runs):
    return runs[2]


@pytest.fixture
def state(qtbot):
    return ViewState()


class FakeStore:
    read_only = False

    def __init__(self, runs):
        self.kept = {run.id: run for run in runs}
        self.reads: list[int] = []

    def runs(self):
        names = ("id", "name", "created", "note", "config", "facts")
        return [
            SimpleNamespace(**{name: getattr(run, name) for name in names}, status=run.facts.status, consents=())
            for run in self.kept.values()
        ]

    def read(self, run_id):
        self.reads.append(run_id)
        return self.kept[run_id]


def shown(qtbot, widget, size=(1130, 790)):
    qtbot.addWidget(widget)
    widget.setStyleSheet(stylesheet(DARK))
    widget.set_palette(DARK)
    widget.resize(*size)
    widget.show()
    return widget


def judged(run, **figures):
    quality = Quality({name: Estimate(*value) for name, value in figures.items()}, "shipped text", 64, "float32")
    return replace(run, facts=replace(run.facts, quality=quality))


# -- points ---------------------------------------------------------------------------------------------------------------


def test_each_run_is_a_point_with_its_speed_and_cost(runs):
    found = {one.name: one for one in points(runs)}
    assert len(found) == len(runs)
    plain, both = found["baseline"], found["int8 compiled"]
    assert (plain.baseline, plain.cost, plain.passes) == (True, 0.0, ())
    assert both.passes == ("bfloat16", "int8 weights", "Compiled decode")
    assert (both.cost, both.cost_kind, both.speed_unit) == (0.0138, "kld", "tok/s")
    assert both.cost_error == pytest.approx(0.0138 / 12)
    assert (both.low, both.high) == (None, None)  # too few requests for an interval
    assert 3.5 < both.speed / plain.speed < 1 / 0.24


def test_the_front_is_what_no_other_run_beats(runs):
    front = [one.name for one in points(runs) if one.on_front]
    assert front == ["int8", "int8 compiled", "compiled", "int4"]


def test_overlapping_bars_make_none_of_two_the_better() -> None:
    def one(number: int, speed: float, low: float | None, high: float | None, cost: float) -> Point:
        return Point(number, f"run {number}", ("x",), speed, low, high, cost, None, "kld")

    front = placed(
        [one(1, 100, 95, 105, 0.01), one(2, 98, 93, 103, 0.02), one(3, 80, 78, 82, 0.03), one(4, 80, None, None, 0.03)]
    )
    assert {point.run_id: point.on_front for point in front} == {1: True, 2: True, 3: False, 4: False}
    _, speeds = stairs(front, -3.0, 0.0)
    assert set(speeds) == {100}  # the line only rises


def test_runs_of_another_setup_or_without_a_cost_stay_out_of_the_front(runs):
    found = {one.name: one for one in points(runs)}
    assert str(found["other model"].apart) == "another model"
    assert found["not judged"].cost is None
    assert not found["other model"].on_front
    assert not found["not judged"].on_front
    turned = {one.name: one for one in points(runs, reference=runs[-1].id)}
    assert turned["other model"].apart is None
    assert str(turned["baseline"].apart) == "another model"


@pytest.mark.parametrize(
    ("change", "apart"),
    [
        ({"workload": WorkloadConfig(new_tokens=99)}, "another workload"),
        ({"threads": 7}, "other threads"),
        ({"environment": {"cpu_model": "Other CPU", "torch": "2.13.0"}}, "another machine"),
        ({"environment": {"torch": "2.0"}}, "other versions"),
    ],
)
def test_what_differs_is_named(runs, change, apart):
    plain, fast = runs[0], runs[1]
    if "workload" in change:
        fast = replace(fast, config=replace(fast.config, **change))
    else:
        fast = replace(fast, facts=replace(fast.facts, **change))
    assert str(points([plain, fast], reference=plain.id)[1].apart or "") == apart


def test_a_pass_that_sets_threads_is_no_other_setup(runs):
    threaded = with_passes(runs[1], "threads", quality=language_quality(0.0, lossless=True))
    threaded = replace(threaded, facts=replace(threaded.facts, threads=7))
    assert points([runs[0], threaded], reference=runs[0].id)[1].apart is None


def test_quality_on_another_text_is_not_comparable(runs):
    other = replace(runs[2].facts.quality, text="mine.txt")
    fast = replace(runs[2], id=99, facts=replace(runs[2].facts, quality=other))
    assert str(points([runs[1], runs[2], fast], reference=2)[2].apart).startswith("its quality was measured on mine.txt")


def test_encoders_cost_cosine_distance_and_classifiers_disagreement(runs):
    moments = {name: column.copy() for name, column in runs[1].trace.moments.items()}
    moments["kind"][:] = KINDS.index("forward")
    encoder = replace(runs[1], trace=replace(runs[1].trace, moments=moments))
    found = point(judged(encoder, cosine_mean=(0.998, 0.0002)))
    assert (found.cost, found.cost_kind) == (pytest.approx(0.002), "cosine")
    assert found.speed_unit == "inputs/s"
    assert point(judged(encoder, same_top=(0.97, 0.01))).cost == pytest.approx(0.03)
    plain = point(with_passes(encoder))
    assert placed([plain, found])[0].cost_kind == "cosine"


def test_runs_that_are_going_or_have_no_speed_are_no_points(runs):
    going = replace(runs[0], facts=replace(runs[0].facts, status="running"))
    assert point(going) is None
    assert point(replace(runs[0], trace=Trace(layers=()))) is None
    assert points([]) == []


def test_costs_stand_by_powers_of_ten_and_zero_at_the_left_edge():
    assert cost_axis([0.0, 0.00021, 0.41]) == (-4.0, 0.0)
    assert cost_axis([None, 0.0]) == (-4.0, -1.0)
    assert cost_place(0.0, -4.0) == -5.0
    assert cost_place(0.01, -4.0) == pytest.approx(-2.0)
    assert cost_axis([1e-12, 0.01])[0] == -7.0  # rounding does not stretch the axis
    assert [cost_text(cost) for cost in (None, 0.0, 0.0123, 4.2e-6)] == ["—", "0", "0.0123", "4.2·10⁻⁶"]


def test_the_front_is_drawn_as_stairs(runs):
    xs, ys = stairs(points(runs), -4.0, 1.0)
    assert xs == sorted(xs)
    assert ys == sorted(ys)
    assert xs[0] == -5.0
    assert xs[-1] == 1.0


# -- the chart ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def chart(qtbot, runs):
    chart = shown(qtbot, SpeedQualityChart(), (900, 560))
    chart.show_points(points(runs))
    return chart


def test_the_chart_is_empty_until_there_is_something_to_lay_out(qtbot, runs):
    chart = shown(qtbot, SpeedQualityChart())
    chart.show_points([])
    assert "run the model without passes" in chart.explanation
    chart.show_points(points([runs[7]]))
    assert "1 left out" in chart.explanation


def test_points_stand_where_they_belong_with_bars_and_a_legend(chart):
    x, y = chart.dots["plain"].getData()
    assert x[0] == chart.axis.low - 1
    assert y[0] == chart.points[0].speed
    assert len(chart.dots["best"].getData()[0]) == 4
    assert len(chart.dots["behind"].getData()[0]) == 2
    assert len(chart.dots["apart"].getData()[0]) == 1
    assert len(chart.bars["own"].getData()[0]) % 2 == 0
    assert "unoptimized" in chart.note.text()
    assert chart.axis.tickStrings([chart.axis.low - 1.0, -4.0, -2.0, 0.0], 1, 1) == ["0", "10⁻⁴", "0.01", "1"]
    assert chart.plot.left.unit == "tok/s"


def test_names_do_not_lie_on_each_other_or_on_points(chart):
    chart.grab()
    boxes = [item.mapRectToParent(item.boundingRect()) for item in chart.names if item.isVisible()]
    assert len(boxes) >= 4
    for number, box in enumerate(boxes):
        assert not any(box.intersects(other) for other in boxes[number + 1 :])


def test_hovering_names_run_passes_speed_and_cost(chart):
    one = next(one for one in chart.points if one.name == "int8 compiled")
    chart._hover(cost_place(one.cost, chart.axis.low), one.speed)
    text = chart.hover_text
    assert "int8 compiled · bfloat16 + int8 weights + Compiled decode" in text
    assert "unoptimized" in text
    assert "cost 0.0138 ± 0.00115" in text
    chart._hover(-99, 0)
    assert chart.hover_text == ""


def test_a_click_asks_for_the_run(qtbot, chart):
    one = next(one for one in chart.points if one.name == "bf16")
    with qtbot.waitSignal(chart.run_asked) as asked:
        chart._click(cost_place(one.cost, chart.axis.low), one.speed)
    assert asked.args == [one.run_id]
    chart.mark(one.run_id)
    assert chart.ring.getData()[1][0] == one.speed


def test_runs_to_come_keep_the_axis_still(qtbot, runs):
    chart = shown(qtbot, SpeedQualityChart())
    all_points = points(runs)
    chart.show_points(all_points[:2], [one.cost for one in all_points])
    before = chart.plot.getViewBox().viewRange()[0]
    chart.show_points(all_points)
    assert chart.plot.getViewBox().viewRange()[0] == before


def test_runs_that_took_turns_are_not_called_recorded_apart(runs):
    every = points(runs)
    assert behind_said(every) == "behind, not interleaved"
    shared = [replace(one, test="t1", apart=None) for one in every[:2]]
    assert behind_said(shared) == "behind, in one A/B test"
    alone = replace(every[0], test="", apart=None)
    assert behind_said([*shared, alone]) == "behind, not all interleaved"
    assert behind_said([shared[0], alone]) == "behind, not interleaved"  # its other side is not drawn


def test_the_menu_saves_picture_and_data(qtbot, chart, tmp_path):
    picture, data = tmp_path / "a.svg", tmp_path / "a.csv"
    for action, path in ((chart.menu.save_image, picture), (chart.menu.save_data, data)):
        chart.menu.ask_path = lambda *_, path=path: path
        chart.menu._allow()
        assert action.isEnabled()
        action.trigger()
        chart.menu.join(30)
        assert chart.menu.poll() == (f"Saved {short_path(path)}", path)
    assert "<svg" in picture.read_text(encoding="utf-8")
    with data.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["passes"] for row in rows][:2] == ["", "bfloat16"]
    assert rows[7]["cost"] == ""


# -- the page -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def compare(qtbot, state, runs):
    view = shown(qtbot, CompareView(context(state)))
    view.pages.setCurrentIndex(2)
    view.set_store(FakeStore(runs))
    return view


def test_the_page_lays_out_all_runs_of_the_session(compare, runs):
    page = compare.speed_quality
    assert [one.run_id for one in page.chart.points] == [run.id for run in runs]
    assert "left out" in page.state_line.text()
    assert "another model" in page.state_line.text()
    assert "KLD" in page.axes.text()
    assert set(compare.store.reads) == {run.id for run in runs}
    before = len(compare.store.reads)
    page.set_store(compare.store)
    assert len(compare.store.reads) == before  # each once


def test_nothing_is_read_for_a_page_that_nobody_sees_or_while_a_run_is_going(qtbot, state, runs):
    view = shown(qtbot, CompareView(context(state)))
    page, store = view.speed_quality, FakeStore(runs)
    page.set_store(store)
    assert store.reads == []
    view.show_run(replace(runs[0], id=50, facts=replace(runs[0].facts, status="running")))
    view.pages.setCurrentIndex(2)
    assert store.reads == []
    view.show_run(runs[0])
    assert len(store.reads) == len(runs) - 1  # the one on show is known


def test_a_click_shows_the_run_in_every_view(compare, state, runs):
    compare.speed_quality.chart.run_asked.emit(runs[3].id)
    assert state.current_run is runs[3]
    assert not state.live


def test_a_run_that_cannot_be_read_is_told(compare):
    def fail(_run_id):
        raise Refusal("The session was closed; open it again.")

    compare.store.read = fail
    compare.speed_quality.chart.run_asked.emit(4)
    assert compare.context.say == ["The session was closed; open it again."]


# -- tile -----------------------------------------------------------------------------------------------------------------


def quality_tile(qtbot, run):
    tile = Tile(next(spec for spec in specs() if spec.name == "statQuality"))
    qtbot.addWidget(tile)
    tile.show_summary(summarize(run, intervals=False), run)
    return tile


def test_the_tile_tells_the_cost_with_its_error(qtbot, run):
    tile = quality_tile(qtbot, run)
    assert tile.reading[:4] == ("0.012", "KLD", "same top 96 % · ± 0.001", "good")
    assert "KLD 0.012 ± 0.001 nats" in tile.toolTip()
    assert "Kullback-Leibler" in tile.toolTip()


@pytest.mark.parametrize(
    ("make", "value", "below"),
    [
        (lambda run: with_passes(run, "x", quality=language_quality(0.0, lossless=True)), "equal", "the same tokens"),
        (lambda run: with_passes(run, "x", quality=language_quality(0.03, lossless=False)), "0.03", "not the same tokens"),
        (lambda run: with_passes(run, "x", quality=language_quality(0.00001)), "< 0.0001", "same top"),
        (lambda run: judged(run, cosine_mean=(0.9981, 0.001), neighbours=(0.97, 0.01)), "0.9981", "neighbours 97 %"),
        (
            lambda run: judged(run, same_top=(0.96, 0.01), accuracy=(0.9, 0.02), accuracy_before=(0.91, 0.02)),
            "96",
            "accuracy 90 %",
        ),
        (lambda run: judged(run, token_agreement=(0.7, 0.1)), "70", "of tokens agree"),
    ],
)
def test_each_kind_of_model_has_the_figure_that_fits(qtbot, run, make, value, below):
    tile = quality_tile(qtbot, make(run))
    assert tile.reading.value == value
    assert tile.reading.sub.startswith(below)


def test_a_cost_that_was_not_measured_is_a_dash_with_the_reason(qtbot, run):
    plain = with_passes(run)
    assert quality_text.told(plain).why == "unoptimized: nothing changed"
    tile = quality_tile(qtbot, plain)
    assert (tile.reading.value, tile.reading.sub) == ("—", "unoptimized: nothing changed")
    optimized = with_passes(run, "x")
    assert quality_text.told(optimized).why.startswith("not asked for")
    asked = replace(optimized, config=replace(optimized.config, quality=QualityConfig()))
    assert quality_text.told(asked).why == "not measured (the run is finished)"
    failed = replace(asked.facts, unavailable=(Unavailable("quality", of_text("the model has no tokenizer.")),))
    assert quality_text.told(replace(asked, facts=failed)).why == "the model has no tokenizer"
    going = replace(asked, facts=replace(asked.facts, status="running"))
    assert quality_text.told(going).why == "measured at the end"


@pytest.mark.parametrize("width", [1116, 656, 2200])
def test_no_tile_cuts_its_label_or_number(qtbot, state, run, width):
    small = with_passes(run, "x", quality=language_quality(0.00213))
    view = shown(qtbot, LiveView(context(state)), (width + 24, 800))
    view.show_run(small)
    view.show_slow(small, summarize(small, intervals=False))
    for tile in view.tiles.tiles:
        for label in (tile.label, tile.value, tile.unit):
            if label.isVisible():
                assert label.sizeHint().width() <= label.width() + 1, (tile.objectName(), label.text())


# -- layers ---------------------------------------------------------------------------------------------------------------


def test_layers_show_their_errors_and_name_the_worst(qtbot, state, run):
    errors = {**layer_errors(run), "lm_head": 8.25}
    view = shown(qtbot, LayersView(context(state)), (1300, 800))
    damaged = replace(run, facts=replace(run.facts, quality=language_quality(0.1, layers=errors)))
    view.show_slow(damaged, summarize(damaged, intervals=False))
    assert not view.tree.isColumnHidden(SQNR)

    def text(path, role=Qt.ItemDataRole.DisplayRole):
        index = view.model.index_of(path)
        return view.model.data(view.model.index(index.row(), SQNR, index.parent()), role)

    assert text("lm_head") == "8.2"
    assert text("model.norm") == "exact"
    inner = [value for path, value in errors.items() if path.startswith("model.layers.0.") and value is not None]
    assert text("model.layers.0") == f"min {min(inner):.1f}"
    assert text("model.embed_tokens") == "—"
    assert text("model.embed_tokens", Qt.ItemDataRole.ToolTipRole).startswith("Not measured: this layer has no counterpart")
    links = view.findChild(QLabel, "layerErrors")
    assert links.isVisible()
    assert links.text().index("lm_head") < links.text().index("dB")
    links.linkActivated.emit("lm_head")
    assert state.layer == "lm_head"


def test_layers_sort_by_their_error_worst_first(qtbot, state, run):
    view = shown(qtbot, LayersView(context(state)), (1300, 800))
    damaged = replace(
        run, facts=replace(run.facts, quality=language_quality(0.1, layers={**layer_errors(run), "lm_head": 8.25}))
    )
    view.show_slow(damaged, summarize(damaged, intervals=False))
    view.tree.sortByColumn(SQNR, Qt.SortOrder.AscendingOrder)
    top = view.proxy.index(0, 0)
    assert view.proxy.index(0, 0, top).data() == "lm_head"


def test_without_layer_errors_there_is_no_column_and_a_reason(qtbot, state, runs):
    view = shown(qtbot, LayersView(context(state)), (1300, 800))
    view.show_slow(runs[0], summarize(runs[0], intervals=False))
    assert view.tree.isColumnHidden(TITLES.index("SQNR dB"))
    assert not view.errors.isVisible()
    view.show_column(SQNR, True)
    index = view.model.index_of("lm_head")
    tip = view.model.data(view.model.index(index.row(), SQNR, index.parent()), Qt.ItemDataRole.ToolTipRole)
    assert tip == "Not measured: unoptimized: nothing changed"


def test_the_worst_layers_are_the_innermost():
    assert worst_layers({"": 5.0, "a": 6.0, "a.b": 7.0, "a.c": 9.0, "d": None}) == [("a.b", 7.0), ("a.c", 9.0)]
    assert worst_layers({"": 5.0}) == [("", 5.0)]
    assert worst_layers({}) == []


# -- speculation and kinds ------------------------------------------------------------------------------------------------


def test_guessed_tokens_are_told_below_the_output(qtbot, state, run):
    view = shown(qtbot, LiveView(context(state)))
    strip = view.findChild(QWidget, "speculation")
    view.show_run(run)
    told = {"accepted_share": 0.713, "tokens_per_verify": 2.43, "by_position": [0.9, 0.7, 0.4], "draft_share": None}
    view.show_slow(run, {**summarize(run, intervals=False), "speculation": told})
    assert strip.isVisibleTo(view)
    assert strip.texts == ["Accepted 71.3 % of guessed tokens", "2.43 tokens per check"]
    assert strip.shares == [0.9, 0.7, 0.4]
    assert "2: 70.0 %" in strip.accessibleDescription()
    view.show_slow(run, {**summarize(run, intervals=False), "speculation": None})
    assert not strip.isVisibleTo(view)


@pytest.mark.parametrize("palette", [DARK, LIGHT], ids=["dark", "light"])
def test_every_kind_and_stage_has_a_colour(palette):
    assert set(palette.kinds) == set(KINDS)
    assert set(palette.stages) == set(STAGES)


def test_kinds_with_marks_of_their_own_are_in_the_legend(qtbot, run):
    chart = shown(qtbot, LatencyChart(), (900, 300))
    moments = {name: column.copy() for name, column in run.trace.moments.items()}
    moments["kind"][3::4] = KINDS.index("draft")
    moments["kind"][2::4] = KINDS.index("verify")
    moments["kind"][0] = KINDS.index("encode")
    chart.show_run(replace(run, trace=replace(run.trace, moments=moments)))
    for name in ("verify", "draft", "encode"):
        assert name in chart.note.text()
    drawn = sum(len(chart.dots[name].getData()[0]) for name in ("clean draft", "traced draft"))
    assert drawn > 0


# -- forms ----------------------------------------------------------------------------------------------------------------


def visible(form):
    boxes = {
        "prompt": form.prompt_box,
        "question": form.question_box,
        "image": form.image,
        "audio": form.audio,
        "prompts": form.prompt_set,
        **form._boxes,
    }
    return {name for name, box in boxes.items() if box.isVisibleTo(form)}


@pytest.mark.parametrize(
    ("task", "names"),
    [
        (None, {"prompt", "new_tokens", "prompt_tokens", "prompts", "chat"}),
        ("embedding", {"prompt", "prompt_tokens", "prompts"}),
        ("question-answering", {"prompt", "question", "prompt_tokens"}),
        ("image-classification", {"image", "image_size"}),
        ("image-text", {"prompt", "prompt_tokens", "image", "image_size", "new_tokens"}),
        ("speech", {"audio", "audio_seconds", "new_tokens"}),
        ("module", set()),
    ],
)
def test_only_fields_that_fit_the_kind_of_model_are_shown(qtbot, task, names):
    form = WorkloadForm()
    qtbot.addWidget(form)
    form.set_task(task)
    form.more.setChecked(True)
    assert visible(form) == names | {"batch", "repeats", "warmup"}


def test_a_workload_of_images_and_sounds_is_read_and_shown_again(qtbot, tmp_path):
    picture = tmp_path / "cat.png"
    picture.write_bytes(b"x")
    form = WorkloadForm()
    qtbot.addWidget(form)
    form.set_task("image-text")
    form.image_size.setValue(224)
    assert form.config() == WorkloadConfig(image_size=224)
    form.image.choose = lambda: str(picture)
    form.image.line.actions()[0].trigger()
    assert form.config() == WorkloadConfig(image=str(picture))  # a file has its own size
    assert not form.image_size.isEnabled()
    form.image.line.setText(str(tmp_path / "none.png"))
    with pytest.raises(ValueError, match="There is no image file"):
        form.config()
    form.set_task("speech")
    assert form.config() == WorkloadConfig()
    wanted = WorkloadConfig(audio_seconds=2.5, batch=3)
    form.show_config(wanted)
    assert form.config() == wanted
    form.set_task("question-answering")
    form.show_config(WorkloadConfig(question="Where?"))
    assert form.config().question == "Where?"


def test_a_hidden_empty_prompt_does_not_stand_in_the_way(qtbot):
    form = WorkloadForm()
    qtbot.addWidget(form)
    form.prompt.setPlainText("")
    form.set_task("image-classification")
    assert form.config().prompt == WorkloadConfig.prompt


def test_quality_is_measured_with_passes_unless_switched_off(qtbot, tmp_path):
    form = QualityForm()
    qtbot.addWidget(form)
    assert form.check.objectName() == "qualityCheck"
    assert form.config(has_passes=False) is None
    assert form.config(has_passes=True) == QualityConfig()
    form.set_passes(False)
    assert not form.check.isEnabled()
    assert "nothing changes" in form.check.toolTip()
    mine = tmp_path / "mine.txt"
    mine.write_text("words")
    form.show_config(QualityConfig(str(mine), None, 64), has_passes=True)
    assert form.config(has_passes=True) == QualityConfig(str(mine), None, 64)
    form.text.line.setText("/no/such/file.txt")
    with pytest.raises(ValueError, match="There is no text file"):
        form.config(has_passes=True)
    form.show_config(None, has_passes=True)
    assert form.config(has_passes=True) is None


# -- status ---------------------------------------------------------------------------------------------------------------


def test_the_bar_keeps_its_place_while_texts_change(qtbot):
    bar = StatusBar()
    qtbot.addWidget(bar)
    bar.resize(1440, 32)
    bar.show()
    places = []
    for text in ("Healing 99 of 100", "Healing 100 of 100", "Healing 1 of 100", "Exporting"):
        bar.show_status(Status("preparing", (of_text(text),), 0.5))
        bar.layout().activate()
        assert bar.text.text() == text
        places.append(bar.progress.x())
    assert places[1] == places[2] == places[3]
    bar.show_status(Status("ready", (of_text("Ready"),)))
    assert bar.text.text() == "no model is loaded"


def test_a_long_text_never_pushes_the_bar_out_of_a_small_window(qtbot):
    bar = StatusBar()
    qtbot.addWidget(bar)
    bar.resize(980, 32)
    bar.show()
    bar.show_status(
        Status("preparing", (of_text("Measuring quality of the model on a very long text with many words in it " * 3),), 0.5)
    )
    bar.layout().activate()
    assert bar.minimumSizeHint().width() <= 980
    assert bar.text.text().endswith("…")
    assert bar.log.geometry().right() <= 980


# -- files ----------------------------------------------------------------------------------------------------------------


def test_exporting_several_runs_draws_speed_against_quality_once(runs, tmp_path):
    written = exporters.get("svg").write([runs[0], runs[1]], tmp_path / "out.svg")
    assert written[-1].name == f"out-{SPEED_QUALITY}.svg"
    assert len(written) == 2 * len(CHARTS) + 1
    alone = exporters.get("svg").write([runs[1]], tmp_path / "one.svg")
    assert len(alone) == len(CHARTS)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_figure_names_points_and_axes_without_overlaps(runs, theme):
    from matplotlib.text import Text

    drawn = draw_speed_quality(points(runs), theme)
    texts = [item.get_text() for item in drawn.figure.findobj(Text) if item.get_text()]
    for wanted in ("Speed × quality", "KLD to the unoptimized model, nats", "decode, tok/s", "unoptimized", "0", "0.01"):
        assert wanted in texts
    assert any("1 pale" in text and "1 left out" in text for text in texts)
    renderer = drawn.figure.canvas.get_renderer()
    labels = [item.get_window_extent(renderer) for item in drawn.figure.axes[0].texts]
    assert len(labels) >= 4
    for number, box in enumerate(labels):
        assert not any(box.overlaps(other) for other in labels[number + 1 :])


def test_a_figure_without_points_says_so_and_bad_names_are_refused(tmp_path):
    from matplotlib.text import Text

    empty = draw_speed_quality([], "light")
    assert any("No run of this session" in item.get_text() for item in empty.figure.findobj(Text))
    with pytest.raises(Refusal, match="no picture format"):
        write_speed_quality([], tmp_path / "x.txt")


def test_a_point_knows_whether_it_is_unoptimized():
    assert Point(1, "a", (), 1.0, None, None, 0.0, None, "kld").baseline
    assert not Point(1, "a", ("x",), 1.0, None, None, 0.0, None, "kld").baseline
