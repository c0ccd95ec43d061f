"""The command line without a model: usage, listings, sessions, exports, and following a program."""

from __future__ import annotations

import io
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core import cli
from core.commands import following
from core.commands.arguments import parser
from core.commands.configure import run_config, split_pass
from core.commands.following import Progress, Stop, follow, interrupts, line
from core.commands.output import table
from core.errors import Refusal
from core.messages.reason import of_text
from core.notices import Notice, Status
from core.pass_api.options import by_name
from core.records.deltas import Written
from core.session.store import SessionStore
from tests.support.folders import ROOT
from tests.support.shape import check_run_json
from tests.support.synthetic import synthetic_run

Capture = pytest.CaptureFixture[str]


def refused(capsys: Capture, *argv: str) -> str:
    """The one sentence that a bad command line gets."""
    assert cli.main(list(argv)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("tickscope: ")
    assert said.err.count("\n") == 1
    return said.err


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session of three runs: two alike, one twice as slow."""
    path = tmp_path_factory.mktemp("sessions") / "three.tickscope"
    store = SessionStore.open(path)
    for seed, scale in ((1, 1.0), (2, 1.0), (3, 2.0)):
        run = synthetic_run(repeats=4, blocks=4, seed=seed, scale=scale)
        number = store.begin(run)
        store.append(number, run.trace, Written())
        store.update(number, run.facts)
    store.close()
    return path


# -- window or command ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "request_"),
    [
        ([], cli.WindowRequest()),
        (["a.tickscope"], cli.WindowRequest(session=Path("a.tickscope"))),
        (["demo"], cli.WindowRequest(demo=True)),
        (["demo", "--headless"], None),
        (["demo", "--out", "x"], None),
        (["run", "--model", "x"], None),
        (["--help"], None),
        (["show", "a.tickscope"], None),
        (["nonsense"], None),
    ],
)
def test_who_gets_the_window(argv: list[str], request_: cli.WindowRequest | None) -> None:
    assert cli.window_request(argv) == request_


def test_help_and_version_end_well(capsys: Capture) -> None:
    assert cli.main(["--help"]) == 0
    assert "compare" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tickscope ")
    assert cli.main(["run", "--help"]) == 0
    assert "--prompt-file" in capsys.readouterr().out


# -- bad usage ------------------------------------------------------------------------------------------------------------


def test_an_unknown_command_names_those_there_are(capsys: Capture) -> None:
    assert "'rum'" in refused(capsys, "rum")


RUN = ("run", "--model", "arch:llama")


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (("run",), "--model"),
        ((*RUN, "--repeats", "many"), "--repeats"),
        ((*RUN, "--repeats", "0"), "repeats is 0"),
        ((*RUN, "--new-tokens", "0"), "new tokens is 0"),
        ((*RUN, "--prompt", " "), "prompt is empty"),
        ((*RUN, "--prompt", "a", "--prompt-tokens", "3"), "not allowed with"),
        ((*RUN, "--threads", "0"), "0 threads"),
        ((*RUN, "--pass", "magic"), "'magic'"),
        ((*RUN, "--pass", "bfloat16", "--pass", "bfloat16"), "named twice"),
        ((*RUN, "--pass", "layer_drop:depth=3"), "depth"),
        ((*RUN, "--pass", "layer_drop:3"), "key=value"),
        ((*RUN, "--pass", ":a=b"), "names no pass"),
        ((*RUN, "--target", "abacus"), "abacus"),
        ((*RUN, "--profiler", "oracle"), "oracle"),
        (("run", "--model", "what:ever"), "what"),
        (("run", "--model", " "), "No model is chosen"),
        ((*RUN, "--json", "/no/such/folder/run.json"), "no folder"),
        ((*RUN, "--out", "/no/such/folder/run.tickscope"), "no folder"),
        (("show", "x.tickscope", "--verbose"), "--verbose"),
        (("passes", "--target", "abacus"), "abacus"),
    ],
)
def test_bad_usage_is_one_sentence(capsys: Capture, argv: tuple[str, ...], part: str) -> None:
    assert part in refused(capsys, *argv)


def test_prompt_files_that_cannot_be_used(capsys: Capture, tmp_path: Path) -> None:
    cases: dict[str, tuple[bytes | None, str]] = {
        "missing.txt": (None, "no prompt file"),
        "binary.bin": (b"\xff\xfe\x00\x01", "not a UTF-8 text file"),
        "zeros.bin": (b"a\0b", "not a text file"),
        "empty.txt": (b" \n", "is empty"),
    }
    for name, (content, part) in cases.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        assert part in refused(capsys, *RUN, "--prompt-file", str(path))
    assert "cannot be read" in refused(capsys, *RUN, "--prompt-file", str(tmp_path))


def test_switches_become_the_config(tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Wie geht's?\n", encoding="utf-8")
    argv = [
        *("run", "--model", "arch:gpt2?n_layer=4", "--dtype", "bfloat16", "--trust-remote-code", "--allow-pickle", "--force"),
        *("--pass", "layer_drop:layers=0,2-3", "--pass", "threads:count=1", "--threads", "2", "--prompt-file", str(prompt)),
        *("--new-tokens", "9", "--batch", "2", "--repeats", "3", "--warmup", "0", "--seed", "5", "--profiler", "layer_clock"),
        *("--name", "mine"),
    ]
    config = run_config(parser().parse_args(argv))
    assert config.model.spec == "arch:gpt2?n_layer=4"
    assert (config.model.dtype, config.model.seed) == ("bfloat16", 5)
    assert config.model.trust_remote_code
    assert config.model.allow_pickle
    assert config.model.force
    passes = [(one.id, by_name(one.options)) for one in config.passes]
    assert passes == [
        ("layer_drop", {"layers": "0,2-3", "by": "place", "share": 0.1}),  # typed, and what is not said as it is by itself
        ("threads", {"count": 1}),
    ]
    assert config.target.threads == 2
    assert config.workload.prompt == "Wie geht's?\n"
    assert (config.workload.new_tokens, config.workload.batch, config.workload.repeats, config.workload.warmup) == (9, 2, 3, 0)
    assert config.profilers == ("layer_clock",)
    assert config.name == "mine"


def test_code_and_pickles_need_an_explicit_switch() -> None:
    model = run_config(parser().parse_args(list(RUN))).model
    assert (model.trust_remote_code, model.allow_pickle, model.force) == (False, False, False)


def test_no_profilers_at_all_can_be_asked_for() -> None:
    assert run_config(parser().parse_args([*RUN, "--profiler", "none"])).profilers == ()
    assert "layer_clock" in run_config(parser().parse_args(list(RUN))).profilers


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("bfloat16", {}),
        ("layer_drop:layers=20-24,28", {"layers": "20-24,28"}),
        ("x:a=1,b=2", {"a": "1", "b": "2"}),
        ("x:a=1,2,b=c=d", {"a": "1,2", "b": "c=d"}),
    ],
)
def test_options_of_a_pass(text: str, options: dict[str, str]) -> None:
    assert split_pass(text)[1] == options


# -- listings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["models", "passes", "targets", "profilers", "formats"])
def test_a_listing_has_the_promised_keys(capsys: Capture, what: str) -> None:
    assert cli.main([what, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert list(listed) == [what]
    assert listed[what]
    for row in listed[what]:
        assert {"id", "title", "available", "reason", "options"} <= row.keys()
        assert row["available"] is (row["reason"] is None)
        assert isinstance(row["options"], dict)
    assert cli.main([what]) == 0
    said = capsys.readouterr().out
    assert all(row["id"] in said for row in listed[what])


def test_every_pass_and_target_is_listed(capsys: Capture) -> None:
    cli.main(["passes", "--json"])
    passes = {row["id"]: row for row in json.loads(capsys.readouterr().out)["passes"]}
    assert {"bfloat16", "int8_dynamic", "int8_weight_only", "compile_decode", "layer_drop", "threads"} <= set(passes)
    assert passes["layer_drop"]["options"]["layers"]["default"] == "auto"
    assert passes["threads"]["options"]["count"]["minimum"] == 1
    cli.main(["targets", "--json"])
    targets = {row["id"]: row for row in json.loads(capsys.readouterr().out)["targets"]}
    assert {"cpu", "cuda", "mps", "xpu"} <= set(targets)
    assert targets["cpu"]["available"]
    assert all(row["reason"] for row in targets.values() if not row["available"])


def test_headless_commands_import_neither_qt_nor_torch(session: Path) -> None:
    code = (
        "import sys\n"
        "from gui.__main__ import main\n"
        "for argv in (['passes'], ['targets'], ['models'], ['profilers'], ['formats'], ['show', sys.argv[1], '--json']):\n"
        "    assert main(argv) == 0, argv\n"
        "heavy = {name.partition('.')[0] for name in sys.modules} & {'PySide6', 'pyqtgraph', 'torch', 'transformers'}\n"
        "print('LOADED', sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(session)], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


# -- sessions -------------------------------------------------------------------------------------------------------------


def test_show_gives_every_run_in_the_promised_shape(capsys: Capture, session: Path) -> None:
    assert cli.main(["show", str(session), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["schema"], len(shown["runs"])) == (1, 3)
    for run in shown["runs"]:
        check_run_json(run)
    assert cli.main(["show", str(session), "--run", "3", "--json"]) == 0
    assert [run["id"] for run in json.loads(capsys.readouterr().out)["runs"]] == [3]


def test_show_for_people(capsys: Capture, session: Path) -> None:
    assert cli.main(["show", str(session)]) == 0
    listed = capsys.readouterr().out
    assert listed.count("synthetic") == 3
    assert "TPOT" in listed
    assert cli.main(["show", str(session), "--run", "2"]) == 0
    full = capsys.readouterr().out
    for part in (
        "TTFT",
        "Observer effect",
        "Where the time goes: median decode, scaled to clean",
        "no energy counter",
        "tok/s",
    ):
        assert part in full
    assert "None" not in full
    assert "nan" not in full.lower().split()


def test_sessions_that_cannot_be_shown(capsys: Capture, session: Path, tmp_path: Path) -> None:
    refused(capsys, "show", str(tmp_path / "none.tickscope"))
    broken = tmp_path / "broken.tickscope"
    broken.write_text("not a session")
    refused(capsys, "show", str(broken))
    assert "run 9" in refused(capsys, "show", str(session), "--run", "9")


def test_an_empty_session_is_no_error(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "empty.tickscope"
    SessionStore.open(path).close()
    assert cli.main(["show", str(path)]) == 0
    assert "no runs yet" in capsys.readouterr().out
    assert cli.main(["show", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "runs": []}
    assert "no runs yet" in refused(capsys, "compare", str(path), str(path))


def test_compare_of_two_runs_in_one_file(capsys: Capture, session: Path) -> None:
    assert cli.main(["compare", f"{session}#1", "#3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["a"]["run"], found["b"]["run"]) == (1, 3)
    tpot = next(tile for tile in found["tiles"] if tile["name"] == "TPOT")
    assert tpot["ratio"] == pytest.approx(2, rel=0.1)
    assert {"path", "stage", "kind", "a_ns", "b_ns", "delta_ns", "ratio"} <= found["layers"][0].keys()
    assert any("interleaved" in warning for warning in found["warnings"])
    assert cli.main(["compare", f"{session}#1", str(session)]) == 0
    said = capsys.readouterr().out
    assert "B / A" in said
    assert "Layers that differ most" in said
    assert "No verdict: Recorded apart" in said


def test_compare_with_what_is_not_there(capsys: Capture, session: Path) -> None:
    assert "run 7" in refused(capsys, "compare", f"{session}#7", str(session))
    assert "names no run" in refused(capsys, "compare", f"{session}#last", str(session))
    assert "names no session" in refused(capsys, "compare", "#1", str(session))


def test_a_file_with_a_hash_in_its_name(capsys: Capture, session: Path, tmp_path: Path) -> None:
    odd = tmp_path / "run#1.tickscope"
    odd.write_bytes(session.read_bytes())
    assert cli.main(["compare", str(odd), "#1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["a"]["run"] == 3


# -- export ---------------------------------------------------------------------------------------------------------------


def test_export_of_a_run_as_json(capsys: Capture, session: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.json"
    assert cli.main(["export", str(session), "--format", "json", "--out", str(out), "--run", "1"]) == 0
    written = capsys.readouterr().out.split("\n")
    assert str(out) in written
    assert json.loads(out.read_text(encoding="utf-8"))


def test_export_of_one_chart(capsys: Capture, session: Path, tmp_path: Path) -> None:
    svg = tmp_path / "stages.svg"
    argv = ["export", str(session), "--format", "svg", "--out", str(svg), "--run", "1", "--chart", "stages", "--theme", "dark"]
    assert cli.main(argv) == 0
    assert "<svg" in svg.read_text(encoding="utf-8")
    csv = tmp_path / "latency.csv"
    assert cli.main(["export", str(session), "--format", "csv", "--out", str(csv), "--chart", "latency"]) == 0
    files = capsys.readouterr().out.split()
    assert files[-3:] == [str(tmp_path / f"latency-{number}.csv") for number in (1, 2, 3)]
    assert all(Path(file).read_text(encoding="utf-8").count("\n") > 10 for file in files[-3:])


def test_exports_that_cannot_be(capsys: Capture, session: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "x.json")
    assert "'gif'" in refused(capsys, "export", str(session), "--format", "gif", "--out", out)
    assert "no chart 'pie'" in refused(capsys, "export", str(session), "--format", "png", "--out", out, "--chart", "pie")
    assert "as json" in refused(capsys, "export", str(session), "--format", "json", "--out", out, "--chart", "stages")
    refused(capsys, "export", str(session), "--format", "json", "--out", str(tmp_path / "no" / "such" / "x.json"))


# -- errors ---------------------------------------------------------------------------------------------------------------


def broken_command(error: BaseException) -> Callable[[Any], int]:
    def command(_args: Any) -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (Refusal("That cannot be; do this."), 2, "tickscope: That cannot be; do this.\n"),
        (RuntimeError("boom"), 1, "tickscope: RuntimeError: boom (--debug shows where).\n"),
        (KeyboardInterrupt(), 130, "tickscope: Cancelled.\n"),
    ],
)
def test_errors_become_a_sentence_and_a_status(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, error: BaseException, status: int, said: str
) -> None:
    monkeypatch.setattr(cli, "_commands", lambda: {"models": broken_command(error)})
    assert cli.main(["models"]) == status
    assert capsys.readouterr().err == said


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(cli, "_commands", lambda: {"models": broken_command(RuntimeError("boom"))})
    assert cli.main(["models", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_closed_pipe_is_quiet(session: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    code = "import sys; from core.cli import main; sys.exit(main(['show', sys.argv[1], '--json']))"
    command = [sys.executable, "-c", code, str(session)]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


# -- following ------------------------------------------------------------------------------------------------------------


class FakeProgram:
    """A program that is done after some looks, with notices at given looks; a cancel ends it at the next one."""

    def __init__(self, notices: dict[int, Notice], looks: int = 3, stop: tuple[int, threading.Event] | None = None) -> None:
        self.notices: queue.SimpleQueue[Notice] = queue.SimpleQueue()
        self.status = Status("running", (of_text("repeat 1 of 2"),), 0.5, 21)
        self.cancels = 0
        self.abandoned = False
        self._at = notices
        self._looks = looks
        self._stop = stop
        self._look = 0

    def cancel(self) -> None:
        self.cancels += 1
        self._at[self._look + 1] = Notice("job_cancelled", "Cancelled it; what was measured is kept.", job="run")
        self._looks = self._look + 1

    def abandon(self) -> None:
        self.abandoned = True

    def join(self, timeout_s: float | None = None) -> bool:
        self._look += 1
        if self._stop is not None and self._look == self._stop[0]:
            self._stop[1].set()
        if self._look in self._at:
            self.notices.put(self._at[self._look])
        return self._look >= self._looks


def followed(program: FakeProgram, stop: threading.Event | None = None, debug: bool = False) -> tuple[int, str]:
    stream = io.StringIO()
    status = follow(program, Progress(stream), stop or threading.Event(), debug)
    return status, stream.getvalue()


@pytest.mark.parametrize(
    ("kinds", "status"),
    [
        (["loaded", "job_started", "job_finished"], 0),
        (["refused"], 2),
        (["job_failed", "failed"], 1),
        (["job_failed", "refused"], 2),
        (["cancelled"], 130),
        (["job_cancelled"], 130),
        (["warning", "job_finished"], 0),
        ([], 1),
    ],
)
def test_notices_decide_the_status(kinds: list[str], status: int) -> None:
    notices = {look: Notice(kind, f"About {kind}.") for look, kind in enumerate(kinds, 1)}
    assert followed(FakeProgram(notices, looks=4))[0] == status


def test_an_interrupt_cancels_once_and_keeps_what_was_measured() -> None:
    stop = threading.Event()
    program = FakeProgram({}, looks=1000, stop=(5, stop))
    status, said = followed(program, stop)
    assert (status, program.cancels) == (130, 1)
    assert "what was measured is kept" in said


class Deaf(FakeProgram):
    """Does not react to a cancel."""

    def cancel(self) -> None:
        self.cancels += 1


def test_what_does_not_react_to_a_cancel_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LIMIT_S", 0.0)
    stop = Stop()
    program = Deaf({}, looks=1000, stop=(5, stop))
    status, said = followed(program, stop)
    assert (status, program.cancels, program.abandoned) == (130, 1, True)
    assert said.endswith(f"{following.GIVEN_UP}\n")


def test_a_second_signal_does_not_wait() -> None:
    stop = Stop()
    stop.again.set()
    program = Deaf({}, looks=1000, stop=(5, stop))
    assert followed(program, stop)[0] == 130
    assert program.abandoned


def test_details_are_for_debugging_only() -> None:
    notices = {1: Notice("failed", "The machine broke.", "Traceback: deep inside")}
    assert "deep inside" not in followed(FakeProgram(dict(notices)))[1]
    assert "deep inside" in followed(FakeProgram(dict(notices)), debug=True)[1]


def test_what_can_be_forced_says_so() -> None:
    assert "--force" in followed(FakeProgram({1: Notice("refused", "It will not fit.", can_override=True)}))[1]


def test_lines_do_not_crowd_a_log() -> None:
    _, said = followed(FakeProgram({}, looks=500))
    assert said == "repeat 1 of 2 · 50 % · 0:21 left\n"
    stream = io.StringIO()
    progress = Progress(stream)
    for number in range(100):
        progress.show(Status("running", (of_text(f"moment {number}"),)))
    assert stream.getvalue() == "moment 0\n"


def test_a_terminal_gets_a_bar_that_is_gone_in_the_end() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    progress = Progress(stream)
    progress.show(Status("running", (of_text("repeat 1 of 2"),), 0.5, 21))
    assert "50%" in stream.getvalue()
    assert "0:21 left" in stream.getvalue()
    progress.say("Loaded.")
    progress.close()
    assert stream.getvalue().endswith("Loaded.\n")


def test_a_line_says_only_what_is_known() -> None:
    assert line(Status("loading", (of_text("Loading"),))) == "Loading"


def test_signals_set_the_event_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with interrupts() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        assert not stop.again.is_set()
        assert stop.status(130) == 143
        assert stop.status(1) == 1
        signal.raise_signal(signal.SIGINT)
        assert stop.again.is_set()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_numbers_stand_to_the_right() -> None:
    assert table(("", "n"), [("a", "1"), ("long", "—"), ("b", "100")]) == "        n\na       1\nlong    —\nb     100"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("there", [True, False])
def test_a_signal_while_a_trace_is_kept_is_a_cancel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, status: int, there: bool
) -> None:
    def interrupted(*_args: Any) -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise RuntimeError("Query interrupted") from None  # as DuckDB says it

    trace, session = tmp_path / "trace.json", tmp_path / "x.tickscope"
    trace.write_text('{"traceEvents": [{"ph": "X", "cat": "cpu_op", "name": "a", "pid": 1, "tid": 1, "ts": 1, "dur": 2}]}')
    if there:
        assert cli.main(["import", str(trace), "--out", str(session)]) == 0
        capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr("core.session.store.append_rows", interrupted)
        assert cli.main(["import", str(trace), "--out", str(session)]) == status
    assert capsys.readouterr().err == "tickscope: Cancelled.\n"
    assert session.exists() == there
    if there:
        assert cli.main(["show", str(session), "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["runs"]) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_process_is_ending_ends_it_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    code = (
        "import signal, threading; from core import ending; from core.private_folders import temporary_folder\n"
        "temporary_folder('x'); own = threading.Thread(target=threading.Event().wait); own.start()\n"
        f"own.join = lambda _=None: signal.raise_signal({int(number)})\n"
        "ending.leave(0)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (128 + number, "")
    assert list(tmp_path.iterdir()) == []
