"""An imported trace is reported as what it is: its steps and operators, and a dash for what nobody here asked or measured."""

from __future__ import annotations

import json

import pytest

from core import cli
from core.analysis import series
from core.analysis.compare import differing, warnings
from core.analysis.imported import NOT_SAID
from core.analysis.summary import summarize
from core.commands import report
from core.commands.import_trace import imported_text
from core.export.base import exporters
from core.export.chart_style import subtitle
from core.export.chrome_trace import write_trace
from core.export.figures import write_figure
from gui.charts.memory import MemoryChart
from gui.theme import DARK
from tests.support.synthetic import synthetic_run
from tests.support.traces import imported, kernel, memory, slice_of

INVENTED = ("the capital", "float32", "cpu ·", "new tokens", "encoder", "repeats", "switched on", "perturbed", "pauses")


@pytest.fixture
def run(tmp_path):
    events = [slice_of(f"ProfilerStep#{n}", 1000 * n, 900 if n else 990, "user_annotation", 1, 1) for n in range(4)]
    for number in range(4):
        shapes = {"Input Dims": [[4, 32 * (1 + number % 2)]]}
        events += [slice_of("aten::linear", 1000 * number + 10, 100 + number, pid=1, tid=1, **shapes)]
        events += [slice_of("nn.Module: Linear_0", 1000 * number + 5, 200, "python_function", 1, 1)]
        events += [kernel("gemm", 1000 * number + 200, 400, 0)]
    return imported(tmp_path / "t.json", events, footer={"deviceProperties": [{"name": "NVIDIA H100"}], "record_shapes": 1})


def test_the_json_says_nothing_that_the_file_does_not(run):
    found = summarize(run)
    assert set(found["workload"].values()) == {None}
    assert found["workload"].keys() == summarize(synthetic_run())["workload"].keys()
    assert (found["model"]["dtype"], found["target"]["id"], found["requests"]["measured"]) == (None, None, None)
    assert found["observer_effect"]["perturbed_share"] is found["observer_effect"]["paused_ns"] is None
    assert found["noise"]["perturbed_share"] is found["noise"]["busy"] is None
    missing = {one["what"]: one["why"] for one in found["unavailable"]}
    for what in ("workload", "dtype", "target", "ttft_ns", "e2e_ns", "cycles", "energy", "noise", "kv_cache_bytes"):
        assert missing[what] == str(NOT_SAID)
    assert "layers" not in missing, "there are some"
    assert found["layers"][0]["path"] == "Linear_0"


def test_the_report_has_steps_and_operators_and_invents_nothing(run):
    for text in (report.text(summarize(run)), report.markdown(summarize(run))):
        assert not [words for words in INVENTED if words in text]
        assert "NVIDIA H100" in text
        assert "Longest operators by their own time" in text
        assert "record_shapes" in text
    steps = summarize(run)["steps"]
    assert steps == [
        {"process": 0, "steps": 4, "first_ns": 990_000, "median_ns": 900_000, "min_ns": 900_000, "max_ns": 900_000, "n": 3}
    ]


def test_operators_are_one_row_a_name_with_their_shapes_below(run):
    operators = summarize(run)["operators"]
    assert [(one["name"], one["place"], one["calls"], one["self_ns"]) for one in operators] == [
        ("gemm", "kernel", 4, 1_600_000),
        ("aten::linear", "cpu", 4, 406_000),
    ]
    assert [(one["shapes"], one["calls"], one["self_ns"]) for one in operators[1]["shapes"]] == [
        ("[[4, 64]]", 2, 204_000),
        ("[[4, 32]]", 2, 202_000),
    ]
    lines = [line.split() for line in imported_text(run).splitlines()]
    at = next(row for row, line in enumerate(lines) if line[:1] == ["aten::linear"])
    assert [line[:2] for line in lines[at + 1 : at + 3]] == [["[[4,", "64]]"], ["[[4,", "32]]"]]


def test_exports_and_pictures_invent_nothing(run, tmp_path):
    write_trace(run, tmp_path / "o.json")
    head = json.loads((tmp_path / "o.json").read_text())
    assert head["deviceProperties"] == [{"id": 0, "name": "NVIDIA H100"}]
    assert not {"workload", "dtype", "target", "passes"} & head["metadata"].keys()
    assert subtitle(run) == "t.json · trace:t.json · imported"


def test_a_comparison_says_that_nothing_is_known(run):
    other = synthetic_run()
    assert differing(run, other) == differing(other, run) == ()
    assert "imported trace, which does not say its model, workload" in str(warnings(run, other)[0])


def test_an_import_that_fails_leaves_nothing_behind(tmp_path, capsys):
    (tmp_path / "bad.json").write_text('{"traceEvents": [{"ph": "M", "name": "x"}]}')
    session = tmp_path / "new.tickscope"
    assert cli.main(["import", str(tmp_path / "bad.json"), "--out", str(session)]) == 2
    assert "bad.json holds no operator" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.json"]


def test_the_window_has_the_same_on_the_command_line(run, tmp_path, capsys):
    session = tmp_path / "s.tickscope"
    assert cli.main(["import", str(tmp_path / "t.json"), "--out", str(session)]) == 0
    printed = capsys.readouterr().out.partition("Longest operators")[2]
    assert cli.main(["show", str(session)]) == 0
    assert printed.rstrip() in capsys.readouterr().out


def with_memory(tmp_path):
    events = [slice_of("aten::empty", 900, 2000)]
    for number in range(3):
        events += [memory(1100 + 200 * number, (1 + number) << 20), memory(1200 + 200 * number, 5 << 20, device_id=1)]
    return imported(tmp_path / "m.json", [*events, {"ph": "C", "name": "pool", "pid": 1, "ts": 1000, "args": {"bytes": 7}}])


def test_allocations_are_lines_of_each_device(tmp_path):
    lines = series.allocated(with_memory(tmp_path))
    assert [(one.title, one.unit, one.value.tolist()) for one in lines[:2]] == [
        ("GPU 1", "MiB", [5, 5, 5]),
        ("GPU 0", "MiB", [1, 2, 3]),
    ]
    assert lines[2].title == "pool"
    assert series.allocated(synthetic_run()) == [], "its process was watched"


def test_allocations_are_in_the_pictures_and_tables(tmp_path):
    run = with_memory(tmp_path)
    exporters.get("csv").write([run], tmp_path / "o.csv")
    rows = (tmp_path / "o-memory.csv").read_text(encoding="utf-8").splitlines()
    assert (rows[0], len(rows)) == ("time (s),memory,mib", 8)
    write_figure("memory", run, tmp_path / "o.svg")
    write_figure("memory", imported(tmp_path / "n.json", [slice_of("a", 1, 1)]), tmp_path / "n.svg")
    paths = [(tmp_path / name).read_text(encoding="utf-8").count("<path") for name in ("o.svg", "n.svg")]
    assert paths[0] > paths[1] + 10, "lines, ticks and labels where the other has a sentence"


def test_the_memory_chart_of_the_window_shows_allocations(qtbot, tmp_path):
    chart = MemoryChart()
    qtbot.addWidget(chart)
    chart.set_palette(DARK)
    chart.show_run(with_memory(tmp_path))
    assert chart.explanation == ""
    shown = [item for item in chart.lines if item.isVisible()]
    assert [item.getData()[1].tolist() for item in shown[:2]] == [[5, 5, 5], [1, 2, 3]]
    assert not any(area.isVisible() for area in chart.areas.values())
    chart.show_run(synthetic_run())
    assert not any(item.isVisible() for item in chart.lines)
    assert any(area.isVisible() for area in chart.areas.values())
    chart.show_run(imported(tmp_path / "n.json", [slice_of("a", 1, 1)]))
    assert "profile_memory" in chart.explanation
