"""What is declared in one place is found everywhere else: a toy of each, put beside the others, and nothing else touched."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from core.analysis import metrics
from core.analysis.compare import compare, differing
from core.analysis.metrics import FIRST, LOWER, Judged, Metric, Sampled
from core.analysis.observer import SHARED
from core.analysis.samples import RequestTimes
from core.analysis.speed_quality import difference, setting
from core.analysis.summary import summarize
from core.analysis.verdict import judge
from core.commands import report, sessions
from core.glossary import GLOSSARY
from core.records import conditions, noise_floors
from core.records.conditions import Condition
from core.records.run import STATUSES
from core.session import soundness
from profilers.trace import KINDS, MOMENT_COLUMNS, PART_OF, POINTERS, REQUEST_COLUMNS, SPAN_COLUMNS, STAGES, Recorder, Tag
from tests import write_docs
from tests.support.folders import ROOT
from tests.support.synthetic import synthetic_run

DOCS = ROOT / "docs"


def toy_of(times: RequestTimes) -> np.ndarray:
    return times.ttft_ns * 2


TOY = Metric(
    "toy_ns",
    "Toy time",
    "ns",
    LOWER,
    "Twice the time to the first token.",
    "Ours alone.",
    lambda of: Sampled(of.samples.ttft_ns * 2),
    made_of=FIRST,
    listed=True,
    tile=11,
    judged=Judged(4, 0.1, toy_of),
)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Metric:
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, TOY))
    return TOY


# -- metrics --------------------------------------------------------------------------------------------------------------


def test_a_metric_declared_once_is_in_json_reports_lists_comparisons_and_docs(toy: Metric) -> None:
    run = synthetic_run()
    summary = summarize(run)
    assert summary["metrics"]["toy_ns"]["median"] == 2 * summary["metrics"]["ttft_ns"]["median"] > 0
    assert "Toy time" in report.text(summary)
    assert "| Toy time |" in report.markdown(summary)
    assert "Toy time" in sessions._listed([summary])
    found = compare(run, run)
    assert [(tile.unit, tile.ratio) for tile in found.tiles if tile.name == "Toy time"] == [("ns", 1.0)]
    assert "Toy time" in sessions.comparison_text(run, run, found)
    assert any("Toy time" in line and "Twice the time" in line for line in write_docs.table_of_metrics())


def test_a_metric_declared_once_is_judged_and_its_absence_has_a_reason(toy: Metric) -> None:
    (side,) = judge([synthetic_run(), synthetic_run()], {})
    assert list(side.metrics) == ["tpot_ns", "ttft_ns", "e2e_ns", "toy_ns"]
    assert side.metrics["toy_ns"].ratio == pytest.approx(1)
    nothing = summarize(replace(synthetic_run(), trace=Recorder().snapshot()))
    assert "toy_ns" in {item["what"] for item in nothing["unavailable"]}


def test_a_metric_declared_once_has_a_tile(toy: Metric, qtbot: object) -> None:
    from gui.views.live.tiles import Tiles

    tiles = Tiles()
    qtbot.addWidget(tiles)  # type: ignore[attr-defined]
    tiles.show_summary(summarize(synthetic_run()))
    tile = tiles.tiles[-1]
    assert (tile.objectName(), tile.label.text(), tile.unit.text()) == ("statToyTime", "Toy time", "ms")
    assert "Twice the time" in tile.toolTip()


def test_what_is_listed_of_metrics_has_a_column_and_what_is_timed_of_kinds_a_metric() -> None:
    from gui.views.saved_runs import headline
    from gui.views.sessions.session_columns import COLUMNS

    run = synthetic_run()
    found, summary = headline(run), summarize(run)["metrics"]
    assert list(found.metrics) == [one.id for one in metrics.METRICS if one.listed]
    for one in (one for one in metrics.METRICS if one.listed):
        (column,) = (column for column in COLUMNS if column.title == (one.title if one.unit == "ns" else one.unit))
        assert column.key(None, found) == pytest.approx(summary[one.id]["median"])  # type: ignore[arg-type]
        assert one.definition in column.tip(None, found)  # type: ignore[misc, arg-type]
    made_of = {one.made_of for one in metrics.judged()}
    assert set(PART_OF) == set(KINDS)
    assert set(PART_OF.values()) <= made_of


def test_a_metric_in_the_glossary_means_what_its_declaration_says() -> None:
    meanings = {term.word: term.meaning for term in GLOSSARY}
    for metric_id, word in (
        ("ttft_ns", "TTFT"),
        ("tpot_ns", "TPOT"),
        ("itl_ns", "ITL"),
        ("joules_per_token", "energy per token"),
    ):
        assert metrics.explained(metric_id)
        assert meanings[word].startswith(metrics.explained(metric_id))


def test_every_pointer_is_one_of_a_column_and_has_a_sentence_where_it_leads_nowhere() -> None:
    trace = synthetic_run().trace
    assert set(soundness._POINTS_NOWHERE) == {(one.table, one.column) for one in POINTERS}
    for one in POINTERS:
        assert one.column in getattr(trace, one.table)
        assert hasattr(trace, one.to)


def test_metrics_are_declared_whole_and_each_place_is_given_once() -> None:
    ids = [one.id for one in metrics.METRICS]
    assert len(ids) == len(set(ids))
    places = [one.tile for one in metrics.METRICS if one.tile is not None]
    assert len(places) == len(set(places))
    for one in metrics.METRICS:
        assert one.better in (metrics.LOWER, metrics.HIGHER)
        assert one.definition.endswith(".")
        assert (one.made_of == "") == (one.table != metrics.LATENCY), one.id


def test_a_first_token_that_was_disturbed_is_said_of_the_time_without_tokenisation_too() -> None:
    """A list of its own left it among what comes later."""
    run = synthetic_run()
    tags = run.trace.moments["tags"].copy()
    tags[run.trace.moments["kind"] == KINDS.index("prefill")] |= Tag.PERTURBED
    moments = {**run.trace.moments, "tags": tags}
    spreads = summarize(replace(run, trace=replace(run.trace, moments=moments)))["metrics"]
    disturbed = {name for name, spread in spreads.items() if spread.get("disturbed")}
    assert disturbed == {"ttft_ns", "prefill_ns", "prefill_tokens_per_s", "prefill_only_tokens_per_s", "e2e_ns"}


# -- conditions -----------------------------------------------------------------------------------------------------------


def test_a_condition_declared_once_keeps_floors_comparisons_and_points_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    every = frozenset({conditions.FLOOR, conditions.VERDICT, conditions.POINT})
    toy = Condition("environment.toy", conditions.MACHINE, every, lambda config, facts: facts.environment.get("toy"))
    a = synthetic_run(repeats=1)
    b = replace(a, facts=replace(a.facts, environment={**a.facts.environment, "toy": "red"}))
    assert not differing(a, b)
    assert not difference(setting(a), setting(b))
    assert noise_floors.conditions(a.config, a.facts) == noise_floors.conditions(b.config, b.facts)

    monkeypatch.setattr(conditions, "CONDITIONS", (*conditions.CONDITIONS, toy))
    (told,) = differing(a, b)
    assert str(told) == "the machines differ: toy not known and red"
    assert str(difference(setting(a), setting(b))) == "another machine"
    assert noise_floors.conditions(b.config, b.facts)["environment"]["toy"] == "red"
    assert noise_floors.conditions(a.config, a.facts) != noise_floors.conditions(b.config, b.facts)
    assert any("environment.toy" in line for line in write_docs.table_of_conditions())


def test_floors_of_before_are_found_again() -> None:
    """A condition's name is part of the name under which a floor is kept."""
    run = synthetic_run(repeats=1)
    about = noise_floors.conditions(run.config, run.facts)
    assert set(about) == {"environment", "threads", "target", "model", "workload"}
    assert set(about["model"]) == {"spec", "dtype"}
    assert set(about["target"]) == {"id", "name"}
    assert set(about["environment"]) == {
        *("machine", "os", "os_release", "cpu_model", "cpu_features", "cpu_cores_logical", "cpu_affinity", "cpu_quota"),
        *("cpu_governor", "smt_active", "memory_bytes", "power_source", "variables"),
        *("python", "tickscope", "torch", "transformers", "torchao", "numpy"),
    }


# -- workload fields ------------------------------------------------------------------------------------------------------

WITH_TOY = """
import dataclasses, sys, types
from pathlib import Path

import core

source = Path("core/config.py").read_text(encoding="utf-8")
before = "    def __post_init__(self) -> None:\\n        for name, one in workload_fields()"
told = "'Toy', 'How many toys', minimum=2, maximum=9, none='auto', place=9, metavar='N|auto'"
toy = f"    toy_tokens: int | None = _asked(None, {told})\\n"
assert source.count(before) == 1
config = types.ModuleType("core.config")
sys.modules["core.config"] = core.config = config
exec(compile(source.replace(before, toy + before), "core/config.py", "exec"), config.__dict__)

from PySide6.QtWidgets import QApplication

from core.analysis.compare import differing
from core.analysis.speed_quality import setting
from core.cli import parser
from core.commands.configure import run_config
from core.records import noise_floors
from core.session.codec import config_from_json, to_json
from gui.setup.workload_form import WorkloadForm
from tests import write_docs
from tests.support.synthetic import synthetic_run

asked = run_config(parser().parse_args(["run", "--model", "package:any", "--toy-tokens", "5"]))
assert asked.workload.toy_tokens == 5
assert run_config(parser().parse_args(["run", "--model", "package:any"])).workload.toy_tokens is None
assert config_from_json(to_json(asked)).workload.toy_tokens == 5
try:
    config.WorkloadConfig(toy_tokens=1)
except ValueError as error:
    assert str(error) == "toy tokens is 1; give at least 2."
else:
    raise AssertionError("a limit is not kept")

app = QApplication([])
form = WorkloadForm()
box = form._boxes["toy_tokens"]
assert (box.label.text(), box.editor.objectName(), box.toolTip()) == ("Toy", "toyTokensSpin", "How many toys")
assert (box.editor.text(), form.config().toy_tokens) == ("auto", None)
form.show_config(asked.workload)
assert form.config().toy_tokens == 5

a = synthetic_run(repeats=1)
b = dataclasses.replace(a, config=dataclasses.replace(a.config, workload=dataclasses.replace(a.config.workload, toy_tokens=3)))
(told,) = differing(a, b)
assert str(told) == "the workloads differ: toy tokens not known and 3"
assert setting(a) != setting(b)
assert noise_floors.conditions(b.config, b.facts)["workload"]["toy_tokens"] == 3
assert any("`toy_tokens`" in line for line in write_docs.table_of_workload())
print("found everywhere")
"""


def test_a_workload_field_declared_once_is_in_form_switches_checks_conditions_file_and_docs() -> None:
    """In a process of its own, whose ``core/config.py`` has one line more."""
    done = subprocess.run([sys.executable, "-c", WITH_TOY], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "found everywhere", done.stderr


# -- colours and marks ----------------------------------------------------------------------------------------------------

TOY_KIND = """
import dataclasses, importlib, sys, types
from pathlib import Path

def changed(name, before, after):
    path = Path(name.replace(".", "/") + ".py")
    source = path.read_text(encoding="utf-8")
    assert source.count(before) == 1, (name, before)
    parent, _, last = name.rpartition(".")
    sys.modules[name] = module = types.ModuleType(name)
    setattr(importlib.import_module(parent), last, module)
    exec(compile(source.replace(before, after), str(path), "exec"), module.__dict__)

changed("profilers.trace", '"draft": LATER,', '"draft": LATER, "toy": LATER,')
changed("core.presentation.palette", '    "draft": "sand",', '    "draft": "sand", "toy": "purple",')
changed("core.presentation.marks", '    "draft": Mark(', '    "toy": Mark("s", "s", "■", 1.2, "plays"), "draft": Mark(')

from PySide6.QtWidgets import QApplication

from core.export.latency import draw_latency
from core.presentation.palette import THEMES
from gui.charts.latency import MARKS, LatencyChart
from gui.theme import DARK
from profilers.trace import KINDS
from tests.support.synthetic import synthetic_run

run = synthetic_run()
kinds = run.trace.moments["kind"].copy()
kinds[2::2] = KINDS.index("toy")
run = dataclasses.replace(run, trace=dataclasses.replace(run.trace, moments={**run.trace.moments, "kind": kinds}))
colour = THEMES["dark"].by_name["purple"]

app = QApplication([])
chart = LatencyChart()
chart.set_palette(DARK)
chart.show_run(run)
dots = chart.dots["clean toy"]
assert DARK.kinds["toy"] == dots.opts["pen"].color().name() == colour
assert (dots.opts["symbol"], MARKS["traced toy"].hollow) == ("s", True)
assert "■ toy: plays" in chart.note.toolTip()
assert len(dots.data) + len(chart.dots["traced toy"].data) > 0

lines = [line for axes in draw_latency(run, "dark").figure.axes for line in axes.lines]
assert any((line.get_marker(), line.get_color()) == ("s", colour) for line in lines)
print("found everywhere")
"""


def test_a_kind_with_its_colour_and_mark_looks_alike_in_window_and_exports() -> None:
    """In a process of its own, in which a kind of moment is declared, with a colour and a mark, each in its one place."""
    done = subprocess.run([sys.executable, "-c", TOY_KIND], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "found everywhere", done.stderr


# -- docs -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "name"), write_docs.TABLES)
def test_the_tables_of_the_docs_are_what_the_code_declares(page: str, name: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert write_docs.filled(text, name, write_docs.TABLES[page, name]()) == text, "run: make docs"


def test_the_page_of_measures_says_how_much_wider_the_observer_effect_s_interval_is_and_that_is_right() -> None:
    page = " ".join((DOCS / "measures.md").read_text(encoding="utf-8").split())
    assert "the interval is √(4/3) as wide" in page
    noise = np.random.default_rng(1).normal(size=(20_000, 2 * 50 + 1))  # C T C T … C
    traced, clean = noise[:, 1::2], noise[:, ::2]
    effects = traced - (clean[:, :-1] + clean[:, 1:]) / 2
    inflation = effects.mean(axis=1).std() / (effects.std() / np.sqrt(effects.shape[1]))
    assert inflation == pytest.approx(SHARED, rel=0.02)


@pytest.mark.parametrize("word", [*KINDS, *STAGES, *STATUSES, *REQUEST_COLUMNS, *MOMENT_COLUMNS, *SPAN_COLUMNS])
def test_the_page_of_the_session_file_knows_every_kind_stage_status_and_column(word: str) -> None:
    assert f"`{word}`" in (DOCS / "session-file.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_of_measures_knows_every_kind_of_moment(kind: str) -> None:
    (row,) = (line for line in (DOCS / "measures.md").read_text(encoding="utf-8").split("\n") if line.startswith("| moment |"))
    assert f"`{kind}`" in row
