"""``tickscope run`` and ``demo`` with a real, tiny model: JSON, session, signals, exit status, and no Qt."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core import cli
from core.commands import demo
from core.commands.output import write_file
from core.session.store import SessionStore
from tests.support.folders import ROOT
from tests.support.shape import check_run_json

SHAPE = "hidden_size=64&intermediate_size=128&num_hidden_layers=2&num_attention_heads=4&num_key_value_heads=2&vocab_size=256"
TINY = f"arch:llama?{SHAPE}"
SMALL_RUN = ("--prompt-tokens", "8", "--new-tokens", "8", "--repeats", "3", "--warmup", "1", "--threads", "1")
WITHOUT_QT = (
    "import sys\n"
    "from gui.__main__ import main\n"
    "status = main(sys.argv[1:])\n"
    "qt = sorted(name for name in sys.modules if name.partition('.')[0] in ('PySide6', 'pyqtgraph', 'shiboken6'))\n"
    "print('QT', qt, file=sys.stderr)\n"
    "sys.exit(status)\n"
)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """One run in a process of its own, as a person would start it: JSON on stdout and a session file."""
    out = tmp_path_factory.mktemp("run") / "tiny.tickscope"
    argv = [
        "run",
        "--model",
        TINY,
        *SMALL_RUN,
        "--pass",
        "layer_drop:layers=1",
        "--quality",
        "off",
        "--out",
        str(out),
        "--json",
    ]
    command = [sys.executable, "-c", WITHOUT_QT, *argv]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False), out


@pytest.fixture(scope="module")
def measured(done: tuple[subprocess.CompletedProcess[str], Path]) -> dict[str, Any]:
    assert done[0].returncode == 0, done[0].stderr
    value: dict[str, Any] = json.loads(done[0].stdout)
    return value


def test_the_json_is_as_promised(measured: dict[str, Any]) -> None:
    check_run_json(measured)
    assert measured["status"] == "finished"
    assert measured["model"]["spec"] == TINY
    assert measured["target"]["id"] == "cpu"
    assert measured["target"]["threads"] == 1
    assert measured["workload"]["prompt_tokens"] == 8
    assert [len(output["token_ids"]) for output in measured["outputs"]] == [8, 8, 8]
    assert measured["outputs"][0] == measured["outputs"][1]
    assert measured["load_ns"] > 0
    assert measured["cold_start_ns"] > measured["load_ns"]


def test_metrics_hang_together(measured: dict[str, Any]) -> None:
    metrics = measured["metrics"]
    for name in ("ttft_ns", "tpot_ns", "itl_ns", "e2e_ns", "prefill_tokens_per_s", "decode_tokens_per_s"):
        assert metrics[name]["median"] > 0
        assert metrics[name]["min"] <= metrics[name]["median"] <= metrics[name]["max"]
    assert metrics["tpot_ns"]["n"] == 3
    assert metrics["e2e_ns"]["max"] > metrics["ttft_ns"]["min"]
    assert 1e9 / metrics["tpot_ns"]["max"] == pytest.approx(metrics["decode_tokens_per_s"]["min"], rel=1e-6)
    assert metrics["itl_ns"]["p90"] is None  # fewer than 64 gaps


def test_clean_and_traced_moments_alternate(measured: dict[str, Any]) -> None:
    decode = measured["moments"]["decode"]
    assert decode["clean"] + decode["traced"] == 3 * 7
    assert abs(decode["clean"] - decode["traced"]) <= 2
    effect = measured["observer_effect"]["decode"]
    assert effect is None or effect["least"] <= effect["ratio"] <= effect["most"]  # on a busy machine no neighbours may be left


def test_layers_and_stages_of_what_is_left_after_the_pass(measured: dict[str, Any]) -> None:
    paths = {row["path"] for row in measured["layers"]}
    assert "model.layers.0.self_attn" in paths
    assert not any(path.startswith("model.layers.1") for path in paths)
    assert measured["passes"][0]["id"] == "layer_drop"
    assert measured["passes"][0]["weight_bytes_after"] < measured["passes"][0]["weight_bytes_before"]
    shares = [row["share"] for row in measured["stages"] if row["kind"] == "decode"]
    assert sum(shares) == pytest.approx(1)
    assert {"attention", "mlp", "head", "sample"} <= {row["stage"] for row in measured["stages"]}


def test_nothing_is_missing_without_a_reason(measured: dict[str, Any]) -> None:
    reasons = {item["what"]: item["why"] for item in measured["unavailable"]}
    assert {"energy", "cycles"} <= set(reasons)
    assert all(reasons.values())


def test_stdout_is_json_alone_and_stderr_has_the_rest(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    process, out = done
    assert process.stdout.startswith("{")
    assert "Loaded" in process.stderr
    assert f"Kept in {out} as run 1." in process.stderr
    assert "Traceback" not in process.stderr


def test_qt_is_never_imported(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    assert done[0].stderr.splitlines()[-1] == "QT []"


def test_the_session_gives_the_same_run_again(
    done: tuple[subprocess.CompletedProcess[str], Path], measured: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["show", str(done[1]), "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run == measured


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    out, result = tmp_path / "cut.tickscope", tmp_path / "cut.json"
    argv = ["run", "--model", TINY, "--prompt-tokens", "8", "--new-tokens", "1000", "--repeats", "1000", "--warmup", "0"]
    command = [sys.executable, "-m", "gui", *argv, "--threads", "1", "--out", str(out), "--json", str(result)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any("moment" in line for line in process.stderr)  # it runs
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "cancelled" in said
    assert "Traceback" not in errors
    written = json.loads(result.read_text(encoding="utf-8"))
    check_run_json(written)
    assert written["status"] == "cancelled"
    store = SessionStore.open(out, create=False)
    try:
        (head,) = store.runs()
        assert head.status == "cancelled"
        assert len(store.read(head.id).trace.moments["tags"]) > 0
    finally:
        store.close()


def test_a_report_for_people_and_json_beside_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    result = tmp_path / "run.json"
    assert cli.main(["run", "--model", TINY, *SMALL_RUN, "--json", str(result)]) == 0
    said = capsys.readouterr().out
    for part in ("TTFT", "TPOT", "Decode", "Observer effect", "Where the time goes", "Not measured"):
        assert part in said
    check_run_json(json.loads(result.read_text(encoding="utf-8")))
    assert list(tmp_path.iterdir()) == [result]  # without --out no session is kept


def test_a_full_disk_leaves_the_old_json_and_is_a_failure_in_a_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    result = tmp_path / "run.json"
    result.write_text("the old one")
    monkeypatch.setattr(os, "fsync", full)
    assert cli.main(["run", "--model", TINY, *SMALL_RUN, "--json", str(result)]) == 1
    told = capsys.readouterr()
    assert "TTFT" in told.out  # what was measured is shown all the same
    assert f"{result} cannot be written (No space left on device); choose another place or free some space." in told.err
    assert "written to" not in told.err
    assert [(path, path.read_text()) for path in tmp_path.iterdir()] == [(result, "the old one")]


def test_what_is_no_file_is_written_to_and_a_link_stays_one(tmp_path: Path) -> None:
    write_file(Path(os.devnull), "text")
    assert not Path(os.devnull).is_file()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_file(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "text\n"


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (("--model", "no/such/folder"), "no/such/folder"),
        (("--model", "arch:nonsense"), "nonsense"),
        (("--model", TINY, "--prompt-tokens", "4", "--pass", "int8_weight_only", "--pass", "int8_dynamic"), "conflicts"),
        (("--model", TINY, "--prompt-tokens", "99999999"), "100000001 tokens"),  # with the new ones; only memory sets a limit
        (("--model", TINY, "--target", "cuda"), "cuda"),
    ],
)
def test_what_only_the_program_can_refuse(capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], part: str) -> None:
    import torch

    if "cuda" in argv and torch.cuda.is_available():
        argv, part = ("--model", "no/such/folder"), "no/such/folder"
    assert cli.main(["run", *argv, "--new-tokens", "2", "--repeats", "1"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert part.lower() in said.err.lower()
    assert "Traceback" not in said.err


def test_the_demo_without_a_window_writes_its_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "WORKLOAD", replace(demo.WORKLOAD, new_tokens=4, repeats=2))
    folder = tmp_path / "demo"
    assert cli.main(["demo", "--headless", "--out", str(folder), "--model", TINY]) == 0
    said = capsys.readouterr().out
    names = {path.name for path in folder.iterdir()}
    charts = {f"{name}.png" for name in ("latency", "memory", "heat", "stages", "machine")}
    assert charts | {"demo.tickscope", "summary.txt", "summary.md", "summary.json"} <= names
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in charts)
    assert all(str(folder / name) in said for name in names - {"demo.tickscope.wal"})
    check_run_json(json.loads((folder / "summary.json").read_text(encoding="utf-8")))
    assert (folder / "summary.md").read_text(encoding="utf-8").startswith("# Demo")
