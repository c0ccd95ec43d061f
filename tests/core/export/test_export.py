"""Runs become JSON, CSV and pictures; a file is whole or not there, and what cannot be written is a sentence."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core import cli
from core.analysis import series
from core.analysis.summary import summarize
from core.errors import NotWritten, Refusal
from core.export.base import exporters
from core.export.chart_elements import few_rows, spread_out
from core.export.chart_style import font, subtitle
from core.export.figures import CHARTS, chart_table, figure, write_chart_csv, write_figure
from core.export.latency import robust_top
from core.presentation.palette import THEMES
from core.presentation.ticks import labelled
from profilers.trace import KINDS, Recorder
from tests.support.folders import ROOT
from tests.support.synthetic import synthetic_run

RUN = synthetic_run(repeats=2, new_tokens=8, blocks=4)
EMPTY = replace(RUN, trace=Recorder().snapshot())


def texts(drawn):
    from matplotlib.text import Text

    return [item.get_text() for item in drawn.findobj(Text) if item.get_text()]


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    return head, rows


def test_every_format_has_a_file_and_none_is_doubled():
    suffixes = {exporter.id: exporter.suffix for exporter in exporters}
    assert suffixes == {
        **{name: f".{name}" for name in ("json", "csv", "png", "svg", "pdf")},
        "chrome": ".json.gz",
        "speedscope": ".speedscope.json",
    }
    for exporter in exporters:
        assert exporter.check() is None
        assert exporter.title


def test_json_is_the_summary(tmp_path):
    path = tmp_path / "run.json"
    assert exporters.get("json").write([RUN], path) == [path]
    assert json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(summarize(RUN)))
    exporters.get("json").write([RUN, replace(RUN, id=2)], path)
    both = json.loads(path.read_text(encoding="utf-8"))
    assert (both["schema"], [run["id"] for run in both["runs"]]) == (1, [1, 2])
    assert os.listdir(tmp_path) == ["run.json"]


def test_csv_holds_every_moment_with_units_and_empty_cells(tmp_path):
    moments = {name: column.copy() for name, column in RUN.trace.moments.items()}
    moments["latency_ns"][3] = -1
    run = replace(RUN, trace=replace(RUN.trace, moments=moments))
    files = exporters.get("csv").write([run], tmp_path / "out.csv")
    assert sorted(file.name for file in files) == sorted(
        f"out-{name}.csv" for name in ("moments", "requests", "layers", "stages", "memory", "counters", "operators", "quality")
    )
    head, rows = read_csv(tmp_path / "out-moments.csv")
    assert {"moment", "kind", "latency (ns)", "duration (ns)", "kv (bytes)", "clean", "traced", "perturbed"} <= set(head)
    assert len(rows) == 24
    latency = [row[head.index("latency (ns)")] for row in rows]
    assert latency[3] == ""
    assert [int(value) for value in latency if value] == [value for value in moments["latency_ns"].tolist() if value >= 0]
    assert [row[head.index("kind")] for row in rows] == [KINDS[number] for number in moments["kind"]]
    assert {row[head.index("traced")] for row in rows} == {"0", "1"}
    head, rows = read_csv(tmp_path / "out-layers.csv")
    assert "model.layers.3.mlp.down_proj" in {row[head.index("path")] for row in rows}
    assert "self (ns)" in head


def test_csv_numbers_read_back_as_they_were_recorded(tmp_path):
    """Nine digits, as once were written, lose bytes of a gibibyte and all below 10 µs of an hour."""
    recorded = np.array([1098022913.0, 621405.999, 1 / 3, 3600.123456789, 5e-324, 0.0])
    counters = {
        "track": np.zeros(len(recorded), np.int64), "time_ns": np.arange(len(recorded)), "value": recorded,
    }  # fmt: skip
    run = replace(RUN, trace=replace(RUN.trace, counters=counters))
    exporters.get("csv").write([run], tmp_path / "out.csv")
    head, rows = read_csv(tmp_path / "out-counters.csv")
    told = [row[head.index("value")] for row in rows]
    assert [float(value) for value in told] == recorded.tolist()
    assert (told[0], told[-1]) == ("1098022913", "0")


def test_a_folder_takes_the_files_and_several_runs_are_told_apart(tmp_path):
    files = exporters.get("csv").write([RUN, replace(RUN, id=7)], tmp_path / "tables")
    assert {"run1-moments.csv", "run7-layers.csv"} <= {file.name for file in files}
    assert sorted(os.listdir(tmp_path / "tables")) == sorted(file.name for file in files)


@pytest.mark.parametrize("name", CHARTS)
def test_chart_data_is_what_the_chart_shows(name, tmp_path):
    path = tmp_path / "data.csv"
    write_chart_csv(name, RUN, path)
    head, rows = read_csv(path)
    table = chart_table(name, RUN)
    assert len(head) == len(table)
    assert len(rows) == len(next(iter(table.values()))) > 0
    column = next(number for number, values in enumerate(table.values()) if np.asarray(values).dtype.kind == "f")
    values = np.array([float(row[column] or "nan") for row in rows])
    np.testing.assert_allclose(values, np.asarray(list(table.values())[column]), rtol=1e-8)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", CHARTS)
def test_charts_fit_their_frame_and_no_text_lies_on_another(name, theme):
    from matplotlib.text import Text

    drawn = figure(name, RUN, theme)
    drawn.canvas.draw()
    renderer = drawn.canvas.get_renderer()
    boxes = [(item.get_text(), item.get_window_extent(renderer)) for item in drawn.findobj(Text) if item.get_text().strip()]
    width, height = drawn.canvas.get_width_height()
    assert [text for text, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height] == []
    crossing = [
        (one, other)
        for number, (one, a) in enumerate(boxes)
        for other, b in boxes[number + 1 :]
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]
    assert crossing == []
    assert np.asarray(drawn.canvas.buffer_rgba())[2, 2, 0] == int(THEMES[theme].card[1:3], 16)


def test_charts_say_what_they_show():
    assert {"moment", "time to token, ms", "clean", "traced", "perturbed", "warm-up", "prefill", "decode"} <= set(
        texts(figure("latency", RUN))
    )
    assert {"time, s", "resident memory, MiB"} <= set(texts(figure("memory", RUN)))
    assert any(text.startswith("weights  257 MiB") for text in texts(figure("memory", RUN)))
    shown = texts(figure("stages", RUN))
    longest = series.stages(RUN)
    assert f"{100 * longest.share.max():.1f} %" in shown
    assert "median decode moment, scaled to clean time" in shown
    assert "lm_head" in texts(figure("heat", RUN))
    assert {"CPU", "Clock", "time, s"} <= set(texts(figure("machine", RUN)))
    assert "synthetic · SmolLM2-135M-Instruct · bfloat16 · CPU, 2 threads" in texts(figure("machine", RUN))


@pytest.mark.parametrize("name", CHARTS)
def test_a_run_with_nothing_measured_says_so(name, tmp_path):
    shown = texts(figure(name, EMPTY))
    assert any(text.endswith(".") and (" in this run" in text or "No " in text) for text in shown), shown
    write_chart_csv(name, EMPTY, tmp_path / "empty.csv")
    assert len(read_csv(tmp_path / "empty.csv")[1]) == 0


def test_one_straggler_does_not_flatten_the_rest_and_is_counted():
    moments = {name: column.copy() for name, column in RUN.trace.moments.items()}
    for name in ("latency_ns", "duration_ns"):
        moments[name][20] = 9_000_000_000
    run = replace(RUN, trace=replace(RUN.trace, moments=moments))
    drawn = figure("latency", run)
    assert drawn.axes[0].get_ylim()[1] < 100
    assert "▲ 1 above, up to 9.00 s" in texts(drawn)
    assert robust_top(np.array([1.0, 1.1, 0.9, 1.0, 500.0]), np.zeros(5)) < 3


def test_a_running_run_leaves_room_for_what_is_planned():
    run = replace(RUN, facts=replace(RUN.facts, status="running", planned_moments=500))
    assert figure("latency", run).axes[0].get_xlim()[1] > 480
    assert "running" in subtitle(run)


@pytest.mark.parametrize(("kind", "head"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_pictures_are_of_their_kind(kind, head, tmp_path):
    files = exporters.get(kind).write([RUN], tmp_path / f"chart.{kind}")
    assert [file.name for file in files] == [f"chart-{name}.{kind}" for name in CHARTS]
    for file in files:
        assert file.read_bytes().startswith(head)
        if kind == "svg":
            ET.fromstring(file.read_text(encoding="utf-8"))
        else:
            again = tmp_path / f"again.{kind}"
            write_figure(file.stem.removeprefix("chart-"), RUN, again)
            assert again.read_bytes() == file.read_bytes()
            again.unlink()
    assert sorted(os.listdir(tmp_path)) == sorted(file.name for file in files)


def test_charts_can_be_drawn_in_any_thread_without_pyplot(tmp_path):
    write = threading.Thread(target=write_figure, args=("stages", RUN, tmp_path / "a.png", "dark"))
    write.start()
    write.join()
    assert (tmp_path / "a.png").exists()
    code = "import sys, core.export.figures, core.export.base as b; list(b.exporters); print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False", "matplotlib would slow the window's start"
    assert "matplotlib.pyplot" not in sys.modules or sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_text_that_the_bundled_font_lacks_takes_another():
    assert font("Layer clock", 9).get_file().endswith("Inter-Regular.otf")
    assert font("运行", 9).get_file() is None


def test_a_missing_library_is_a_reason_and_a_refusal(monkeypatch, tmp_path):
    monkeypatch.setattr("core.export.figures.find_spec", lambda name: None)
    assert str(exporters.get("pdf").check()) == "needs matplotlib (pip install matplotlib)"
    with pytest.raises(Refusal, match="needs matplotlib"):
        write_figure("latency", RUN, tmp_path / "a.pdf")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("", "is a folder; give the file a name"), ("no/x", "does not exist; make it, or choose another place")],
)
@pytest.mark.parametrize("kind", ["json", "png"])
def test_paths_that_cannot_be_written_are_refused(name, sentence, kind, tmp_path):
    path = tmp_path / (f"{name}.{kind}" if name else f"folder.{kind}")
    if not name:
        path.mkdir()
    with pytest.raises(Refusal, match=sentence):
        exporters.get("json").write([RUN], path) if kind == "json" else write_figure("stages", RUN, path)


def test_an_unknown_picture_format_is_refused(tmp_path):
    with pytest.raises(Refusal, match=r"end in \.png, \.svg or \.pdf"):
        write_figure("stages", RUN, tmp_path / "chart.bmp")
    with pytest.raises(ValueError, match="There is no chart 'pie'"):
        figure("pie", RUN)
    with pytest.raises(ValueError, match="There is no theme 'pink'"):
        figure("heat", RUN, "pink")


def test_a_failed_export_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    path.write_text("old", encoding="utf-8")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(Refusal, match=r"run.json cannot be written \(No space left on device\)"):
        exporters.get("json").write([RUN], path)
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["run.json"]


FULL = Path("/dev/full")
"""Linux's disk that is always full."""


@pytest.mark.parametrize("kind", [one.id for one in exporters])
def test_every_format_says_that_the_disk_is_full(tmp_path, kind):
    exporter = exporters.get(kind)
    path = tmp_path / f"run{exporter.suffix}"
    names = [file.name for file in exporter.write([RUN], path)]
    for name in names:
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to(FULL)
    with pytest.raises(NotWritten, match=rf"{names[0]} cannot be written \(No space left on device\)"):
        exporter.write([RUN], path)
    assert sorted(os.listdir(tmp_path)) == sorted(names)


def test_an_export_to_a_full_disk_is_a_failure_and_no_bad_input(tmp_path, capsys):
    (tmp_path / "run.json").symlink_to(FULL)
    session = str(ROOT / "tests/data/session-v4.tickscope")
    assert cli.main(["export", session, "--run", "1", "--format", "json", "--out", str(tmp_path / "run.json")]) == 1
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_the_middle_of_an_export_leaves_no_half_file(tmp_path, monkeypatch, number, status):
    def killed(file):
        assert len(os.listdir(tmp_path)) == 1
        signal.raise_signal(number)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(os, "fsync", killed)
    session = str(ROOT / "tests/data/session-v4.tickscope")
    was = signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a program's own process; a test runner may ignore it
    try:
        ended = cli.main(["export", session, "--run", "1", "--format", "chrome", "--out", str(tmp_path / "run.json.gz")])
    finally:
        signal.signal(signal.SIGINT, was)
    assert ended == status
    assert os.listdir(tmp_path) == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_no_file_is_written_to_and_a_link_stays_one(tmp_path):
    (tmp_path / "real.json").write_text("old", encoding="utf-8")
    (tmp_path / "run.json").symlink_to(tmp_path / "real.json")
    exporters.get("json").write([RUN], tmp_path / "run.json")
    assert (tmp_path / "run.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text(encoding="utf-8"))["schema"] == 1
    exporters.get("json").write([RUN], Path(os.devnull))
    assert Path(os.devnull).is_char_device()


def test_ticks_and_labels_find_their_places():
    assert labelled(0, 10, 5) == ([0, 2, 4, 6, 8, 10], ["0", "2", "4", "6", "8", "10"])
    assert labelled(0, 0.9, 4) == ([0, 0.25, 0.5, 0.75], ["0", "0.25", "0.50", "0.75"])
    assert spread_out([0.0, 0.1, 5.0], 1.0) == [0.0, 1.0, 5.0]
    labels = ["embed", *(f"layers.{number}" for number in range(62)), "norm", "lm_head"]
    rows = few_rows(labels, most=21)
    assert {0, len(labels) - 1} <= set(rows)
    assert len(rows) <= 21
    assert min(np.diff(rows)) >= 3
