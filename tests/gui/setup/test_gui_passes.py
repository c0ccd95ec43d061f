"""The list of passes with as many as there will be: groups, filter, badges, missing packages, reports, gains and options."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QContextMenuEvent, QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QComboBox, QLineEdit

from core.messages.reason import of_text
from core.pass_api.base import PassReport
from core.planning.gains import Prediction
from core.records.run import ABTestPart
from gui.elided import elided_words
from gui.setup.baselines import Baselines, Gains
from gui.setup.options_form import OptionsForm
from gui.setup.pass_list import COPIED, COPY
from gui.setup.pass_rows import BADGE, BUTTON, GROUP
from gui.setup.pass_text import details, gain_text, install_command, short_reason
from gui.setup.sidebar import Choices, Sidebar
from gui.setup.switch_list import ID, LINE, SwitchDelegate
from gui.theme import DARK, apply, load_fonts
from tests.gui.setup.test_gui_setup import INSTRUMENTS, SOURCES, FakeKnowledge, at_once
from tests.support.fakes import FakeProgram
from tests.support.synthetic import synthetic_run
from tests.support.synthetic_quality import MISSING, catalogue, reasons, with_passes


@pytest.fixture
def sidebar(qtbot):
    targets = FakeProgram().probe_targets()
    choices = Choices(SOURCES, catalogue(), targets, FakeKnowledge(), reasons, INSTRUMENTS)
    sidebar = Sidebar(choices, at_once)
    qtbot.addWidget(sidebar)
    sidebar.set_palette(DARK)
    sidebar.resize(300, 1600)
    sidebar.show()
    return sidebar


def heading(sidebar, group):
    items = [sidebar.passes.item(row) for row in range(sidebar.passes.count())]
    return next(item for item in items if item.data(GROUP) == group)


def seen(sidebar):
    return [item.data(ID) for item in sidebar.passes.rows() if not item.isHidden()]


def click(sidebar, item, at=None):
    rect = sidebar.passes.visualItemRect(item)
    QTest.mouseClick(sidebar.passes.viewport(), Qt.MouseButton.LeftButton, pos=at or rect.topLeft() + QPoint(8, 8))


# -- groups and filter ----------------------------------------------------------------------------------------------------


def test_many_passes_stand_folded_below_their_headings(sidebar):
    groups = [sidebar.passes.item(row).data(GROUP) for row in range(sidebar.passes.count())]
    assert [group for group in groups if group] == list(dict.fromkeys(one.phase.title for one in catalogue()))
    assert seen(sidebar) == ["autocast", "bfloat16", "float16", "mixed_precision"]
    assert heading(sidebar, "Quantization").data(LINE) == "5"
    assert sidebar.passes.height() < 500  # of some 1 400 with all of them


def test_a_heading_unfolds_by_mouse_and_keyboard(qtbot, sidebar):
    group = heading(sidebar, "Quantization")
    before = sidebar.passes.height()
    click(sidebar, group)
    assert "int4_weight_only" in seen(sidebar)
    qtbot.waitUntil(lambda: sidebar.passes.height() > before, timeout=3000)
    QTest.keyClick(sidebar.passes, Qt.Key.Key_Left)
    assert "int4_weight_only" not in seen(sidebar)
    QTest.keyClick(sidebar.passes, Qt.Key.Key_Space)
    assert "int4_weight_only" in seen(sidebar)
    assert "unfolded, 5 passes, 0 on" in group.data(Qt.ItemDataRole.AccessibleTextRole)


def test_what_is_switched_on_is_seen_and_named_on_a_folded_heading(sidebar):
    sidebar.passes.item_of("compile_decode").setCheckState(Qt.CheckState.Checked)
    assert "compile_decode" in seen(sidebar)
    assert heading(sidebar, "Compilation").data(LINE) == "1 on"
    sidebar.passes.toggle("Compilation")
    assert heading(sidebar, "Compilation").data(LINE) == "Compiled decode"
    assert sidebar.passes.chosen() == ("compile_decode",)


def test_the_filter_looks_into_names_and_descriptions_of_all_groups(sidebar):
    field = sidebar.findChild(QLineEdit, "passFilter")
    assert field.placeholderText() == f"Filter {len(catalogue())} passes"
    field.setText("INT8")
    assert seen(sidebar) == ["int8_dynamic", "int8_weight_only"]
    assert heading(sidebar, "Precision").isHidden()
    field.setText("nothing is called that")
    assert seen(sidebar) == []
    assert sidebar.pass_head.no_match.isVisibleTo(sidebar)
    field.clear()
    assert seen(sidebar) == ["autocast", "bfloat16", "float16", "mixed_precision"]
    assert not sidebar.pass_head.no_match.isVisibleTo(sidebar)


def test_nothing_in_the_sidebar_is_wider_than_it(qapp, sidebar):
    load_fonts()
    apply(qapp, "dark")
    sidebar.set_palette(DARK)
    sidebar.passes.toggle("Other engines")
    sidebar.quality.more.click()
    for task in (None, "image-text", "speech", "question-answering", "embedding"):
        sidebar.workload.set_task(task)
        body = sidebar._scroll.widget()
        assert body.minimumSizeHint().width() <= sidebar._scroll.viewport().width(), task


# -- rows -----------------------------------------------------------------------------------------------------------------


def test_lossless_passes_carry_a_badge_and_say_what_it_means(sidebar):
    item = sidebar.passes.item_of("prompt_lookup")
    assert item.data(BADGE) == "lossless"
    assert "Claims the same tokens" in item.toolTip()
    assert item.data(Qt.ItemDataRole.AccessibleDescriptionRole).endswith("lossless")
    assert not sidebar.passes.item_of("bfloat16").data(BADGE)


@pytest.mark.parametrize(
    ("reason", "command", "short"),
    [
        (MISSING["llama_cpp"], "pip install 'tickscope[llama]'", "needs cyllama"),
        (of_text("conflicts with bfloat16 (both set it)"), "", "conflicts with bfloat16 (both set it)"),
    ],
)
def test_a_command_is_found_in_a_reason(reason, command, short):
    assert install_command(reason) == command
    assert short_reason(reason) == short


def test_a_missing_package_offers_its_command_to_copy(sidebar):
    sidebar.passes.toggle("Other engines")
    item = sidebar.passes.item_of("llama_cpp")
    assert not item.flags() & Qt.ItemFlag.ItemIsEnabled
    assert item.data(LINE) == "needs cyllama"
    assert item.data(BUTTON) == COPY
    assert "pip install 'tickscope[llama]'" in item.toolTip()
    assert "pip install 'tickscope[llama]'" in item.data(Qt.ItemDataRole.AccessibleDescriptionRole)
    rect = sidebar.passes.visualItemRect(item)
    click(sidebar, item, QPoint(rect.right() - 20, rect.center().y()))
    assert QGuiApplication.clipboard().text() == "pip install 'tickscope[llama]'"
    assert item.data(BUTTON) == COPIED
    assert "llama_cpp" not in sidebar.passes.chosen()


def test_the_command_is_in_the_menu_of_the_row_and_by_keyboard_in_that_of_the_list(qtbot, sidebar):
    menu = sidebar.passes.command_menu("bitsandbytes")
    assert [action.text() for action in menu.actions()] == ["Copy install command"]
    menu.actions()[0].trigger()
    assert QGuiApplication.clipboard().text() == "pip install 'tickscope[bitsandbytes]'"
    menu.deleteLater()
    assert sidebar.passes.command_menu("bfloat16") is None
    event = QContextMenuEvent(QContextMenuEvent.Reason.Keyboard, QPoint(5, 5), sidebar.passes.mapToGlobal(QPoint(5, 5)))
    sidebar.passes.contextMenuEvent(event)
    popup = QGuiApplication.instance().activePopupWidget()
    assert [action.text() for action in popup.actions()] == [
        "Copy install command of bitsandbytes",
        "Copy install command of llama.cpp",
    ]
    popup.close()


def test_the_options_open_right_below_their_row(qtbot, sidebar):
    sidebar.passes.toggle("Quantization")
    row = sidebar.passes.item_of("int4_weight_only")
    click(sidebar, row)
    options = sidebar._options
    assert options.isVisible()
    assert sidebar.forms["int4_weight_only"].isVisible()
    gap = options.geometry().top() - sidebar.passes.visualItemRect(row).bottom()
    assert 0 <= gap < 10
    following = sidebar.passes.visualItemRect(sidebar.passes.item_of("int8_dynamic"))
    assert following.top() >= options.geometry().bottom()
    qtbot.waitUntil(lambda: sidebar.passes.height() >= options.geometry().bottom(), timeout=3000)


def test_in_a_low_window_the_list_scrolls_and_what_is_below_it_keeps_its_place(qtbot, sidebar):
    sidebar.passes.toggle("Quantization")
    sidebar.resize(300, 640)
    qtbot.waitUntil(lambda: sidebar.passes.height() == sidebar.passes.least_height, timeout=3000)
    assert sidebar.passes.verticalScrollBar().maximum() > 0
    top = sidebar.workload.mapTo(sidebar._scroll.widget(), QPoint(0, 0)).y()
    assert top < 800  # of some 1 300 with the whole list
    sidebar.passes.scrollToItem(sidebar.passes.item_of("int4_weight_only"))
    click(sidebar, sidebar.passes.item_of("int4_weight_only"))
    seen_part = sidebar.passes.viewport().rect()
    qtbot.waitUntil(lambda: seen_part.intersects(sidebar._options.geometry()), timeout=3000)


def test_a_click_on_a_switch_below_open_options_reaches_it(sidebar):
    sidebar.passes.toggle("Quantization")
    click(sidebar, sidebar.passes.item_of("int4_weight_only"))
    later = sidebar.passes.item_of("int8_weight_only")
    at = SwitchDelegate.switch_rect(sidebar.passes.visualItemRect(later)).center()
    click(sidebar, later, at)  # the options close above it, which moves it: only after the click
    assert sidebar.passes.chosen() == ("int8_weight_only",)
    assert sidebar.forms["int8_weight_only"].isVisible()


def test_a_hidden_group_takes_its_options_with_it(sidebar):
    sidebar.passes.toggle("Quantization")
    sidebar.passes.setCurrentItem(sidebar.passes.item_of("int4_weight_only"))
    assert sidebar._options.isVisible()
    sidebar.passes.toggle("Quantization")
    assert not sidebar._options.isVisible()


# -- after a run ----------------------------------------------------------------------------------------------------------


REPORT = PassReport(
    "bfloat16",
    "bfloat16",
    {},
    211,
    of_text("211 modules → bfloat16, 513 → 257 MiB"),
    kernels=tuple(f"aten::kernel_{number}" for number in range(8)),
    notes=(of_text("The head stays tied to the embedding."),),
    predicted={"decode": 1.9},
    prediction=of_text("Decode reads half the bytes."),
)


def test_a_row_says_what_it_changed_and_its_tooltip_the_rest(sidebar):
    sidebar.passes.choose(["bfloat16"])
    sidebar.passes.show_reports([REPORT], Gains({"decode": 1.72}))
    item = sidebar.passes.item_of("bfloat16")
    assert item.data(LINE) == str(REPORT.summary)
    for part in ("stays tied", "predicted 1.90×, not interleaved 1.72×", "half the bytes", "aten::kernel_0", "and 2 more"):
        assert part in item.toolTip(), part
    sidebar.passes.setCurrentItem(item)
    sidebar.show_reports([REPORT])
    assert sidebar._options.told.text().startswith(str(REPORT.summary))
    assert "A run without passes gives a figure beside" in sidebar._options.told.text()


def test_gains_of_several_passes_are_told_as_those_of_all():
    assert gain_text(REPORT, Gains({"decode": 1.72, "prefill": 2.0}), alone=True) == (
        "decode: predicted 1.90×, not interleaved 1.72×; prefill: not interleaved 2.00×"
    )
    assert (
        gain_text(REPORT, Gains({"decode": 3.0}), alone=False)
        == "decode: predicted 1.90×, not interleaved 3.00× with all passes"
    )
    assert gain_text(replace(REPORT, predicted={}), Gains({"decode": 3.0}), alone=False) == ""
    assert details(replace(REPORT, predicted={}, prediction=None, notes=(), kernels=()), Gains(), True) == [str(REPORT.summary)]


def test_the_gain_is_measured_against_the_last_run_without_passes():
    plain = with_passes(synthetic_run(repeats=3, new_tokens=16, blocks=1))
    fast = with_passes(synthetic_run(repeats=3, new_tokens=16, blocks=1, scale=0.5, seed=1), "bfloat16")
    known = Baselines()
    assert known.measured(fast) == Gains()
    known.remember(fast)  # has passes, so it is none
    assert known.measured(fast) == Gains()
    known.remember(plain)
    assert known.measured(fast).by_kind["decode"] == pytest.approx(2.0, rel=0.03)
    other = replace(fast, config=replace(fast.config, model=replace(fast.config.model, spec="arch:gpt2")))
    assert known.measured(other) == Gains()


def test_the_window_shows_the_gain_of_a_run_after_one_without_passes(sidebar):
    plain = with_passes(synthetic_run(repeats=3, new_tokens=16, blocks=1))
    fast = with_passes(
        synthetic_run(repeats=3, new_tokens=16, blocks=1, scale=0.5, seed=1), "bfloat16", predicted={"decode": 1.9}
    )
    sidebar.passes.choose(["bfloat16"])
    sidebar.show_outcome([plain])
    sidebar.show_outcome([fast])
    assert "predicted 1.90×, not interleaved 2.0" in sidebar.passes.item_of("bfloat16").toolTip()
    sidebar.show_outcome([])
    assert "predicted" not in sidebar.passes.item_of("bfloat16").toolTip()


def test_sides_of_one_ab_test_are_not_called_recorded_apart(sidebar):
    """Whose plain side took turns with it was told as if it had been recorded at another time."""
    alone = with_passes(synthetic_run(repeats=3, new_tokens=16, blocks=1))
    fast = with_passes(
        synthetic_run(repeats=3, new_tokens=16, blocks=1, scale=0.5, seed=1), "bfloat16", predicted={"decode": 1.9}
    )
    sides = [replace(run, facts=replace(run.facts, trial=ABTestPart("t1", side, 2))) for side, run in enumerate((alone, fast))]
    sidebar.passes.choose(["bfloat16"])
    sidebar.show_outcome(sides)
    tip = sidebar.passes.item_of("bfloat16").toolTip()
    assert "predicted 1.90×, in the A/B test 2.0" in tip
    assert "nterleaved" not in tip
    apart = Baselines()
    apart.remember(sides[0])
    assert apart.measured(sides[1]).interleaved
    assert not apart.measured(fast).interleaved
    other = replace(fast, facts=replace(fast.facts, trial=ABTestPart("t2", 1, 2)))
    assert not apart.measured(other).interleaved


def test_sorting_by_gain_waits_for_gains(sidebar):
    order = sidebar.pass_head.order
    by_gain = order.model().item(1)
    assert not by_gain.isEnabled()
    assert "no gain is predicted yet" in order.toolTip()
    sidebar.passes.show_predictions({"bfloat16": Prediction("bfloat16", why="not on this machine")})
    assert not by_gain.isEnabled()
    sidebar.passes.show_predictions({"bfloat16": Prediction("bfloat16", 1.4, {"decode": 1.4})})
    assert by_gain.isEnabled()
    assert "They are no measurements" in order.toolTip()
    order.setCurrentIndex(1)
    sidebar.passes.show_predictions({})
    assert not by_gain.isEnabled()
    assert order.currentIndex() == 0  # with the gains goes the order by them


def test_five_passes_are_seen_in_the_smallest_window(qtbot, sidebar):
    """With Target unfolded two and a half were left of the list, which scrolled within them."""
    sidebar.resize(300, 480)
    for section in sidebar.sections.values():
        section.set_open(True)
    shown = sidebar.passes
    qtbot.waitUntil(lambda: shown.height() <= shown.least_height, timeout=3000)
    assert shown.height() == shown.least_height > 5 * shown.visualItemRect(shown.item_of("bfloat16")).height()


def test_a_summary_ends_with_a_whole_word(sidebar):
    metrics = sidebar.passes.fontMetrics()
    text = "Weights and activations in sixteen bits"
    width = metrics.horizontalAdvance("Weights and activations in six")
    assert elided_words(metrics, text, width) == "Weights and activations in …"
    assert elided_words(metrics, text, metrics.horizontalAdvance(text)) == text
    assert elided_words(metrics, "Unbreakable", metrics.horizontalAdvance("Unbr…")).endswith("…")


# -- options --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Optional:
    text: str | None = None
    share: float | None = field(default=None, metadata={"minimum": 0.0, "maximum": 1.0})
    count: int | None = field(default=None, metadata={"minimum": 1})
    way: str | None = field(default=None, metadata={"choices": ("a", "b")})
    on: bool | None = None
    rate: float = field(default=0.0001, metadata={"minimum": 0.000001, "maximum": 1.0})


def test_options_that_may_be_none_are_automatic_until_they_are_set(qtbot):
    form = OptionsForm(Optional)
    qtbot.addWidget(form)
    nothing = {"text": None, "share": None, "count": None, "way": None, "on": None, "rate": 0.0001}
    assert form.values() == nothing
    for name in ("share", "count"):
        assert form.editors[name].text() == "auto"
    assert form.editors["rate"].text() == "0.0001"
    way = form.editors["way"]
    assert isinstance(way, QComboBox)
    assert [way.itemText(row) for row in range(way.count())] == ["auto", "a", "b"]
    chosen = {"text": "x", "share": 0.25, "count": 3, "way": "b", "on": False, "rate": 0.003}
    form.set_values(chosen)
    assert form.values() == chosen
    form.set_values(nothing)
    assert form.values() == nothing


def test_a_step_from_automatic_is_the_least_value_and_back(qtbot):
    form = OptionsForm(Optional)
    qtbot.addWidget(form)
    share = form.editors["share"]
    share.stepUp()
    assert form.values()["share"] == 0.0
    share.stepUp()
    assert 0 < form.values()["share"] <= 0.1
    share.setValue(0.0)
    share.stepDown()
    assert form.values()["share"] is None
    rate = form.editors["rate"]
    rate.stepUp()
    assert form.values()["rate"] == pytest.approx(0.00011)
