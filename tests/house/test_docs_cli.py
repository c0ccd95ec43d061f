"""The page of the command line is true: its commands, switches, exit statuses and JSON keys are those of the program."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pytest

from core import commands
from core.analysis.energy import Energy
from core.analysis.speculation import Speculation
from core.analysis.summary import summarize
from core.analysis.verdict import judge
from core.cli import main
from core.commands.ab_report import trial_json
from core.commands.arguments import COMMANDS, parser
from core.config import ABTestConfig
from core.execution.ab_test_state import ABTestState
from core.json_text import strict
from core.messages.reason import of_text
from core.records.run import Run
from core.session.store import SessionStore
from tests.support import promised_json
from tests.support.promised_json import PAGE, SECTIONS, cells
from tests.support.synthetic import synthetic_run
from tests.support.synthetic_measured import with_counters, with_peaks
from tests.support.synthetic_operators import imported_run, with_operators
from tests.support.synthetic_quality import session_runs
from tests.support.trials import synthetic_trial

SHARED = "Switches of `run` and `ab`"


def switches_told(section: str) -> set[str]:
    return set(re.findall(r"`(--[a-z-]+)", " ".join(cells(SECTIONS[section], 0))))


def switches(command: str) -> set[str]:
    """What ``--help`` of a command shows."""
    (choices,) = (action.choices for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    shown = [action for action in choices[command]._actions if action.help != argparse.SUPPRESS]
    return {text for action in shown for text in action.option_strings if text.startswith("--")} - {"--help", "--debug"}


def test_every_command_has_a_section_and_no_other() -> None:
    assert [title for title in SECTIONS if title.startswith("`")] != []
    assert {re.fullmatch(r"`tickscope (\w+)`", title)[1] for title in SECTIONS if title.startswith("`")} == set(COMMANDS)  # type: ignore[index]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_switches_of_a_command_are_told(command: str) -> None:
    shared = switches_told(SHARED) if command in ("run", "ab") else set()
    own = switches_told(f"`tickscope {command}`")
    assert shared | own == switches(command)
    assert not shared & own


def test_exit_statuses() -> None:
    told = {int(number) for number in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert told == {commands.DONE, commands.FAILED, commands.BAD_INPUT, commands.CANCELLED}


# -- JSON -----------------------------------------------------------------------------------------------------------------


def as_written(value: Any) -> Any:
    return json.loads(strict(value))


def trial(*, same: bool = False) -> ABTestState:
    """An A/B test that is over: with layers that were told apart, and floors."""
    runs = synthetic_trial((1.0, 1.0 if same else 0.8), layer_ratios=(1, 1, 0.5, 1), floors={"tpot_ns": 0.01})
    part = runs[0].facts.trial
    assert part is not None
    config = ABTestConfig(tuple(run.config for run in runs))
    return ABTestState(config, runs, part.order, judge(runs, part.floors), part.floors, of_text("decided"))


@cache
def samples() -> list[Any]:
    """The JSON of every sort of run, made once: each of the page's 150 keys is looked up in all of them."""
    plain = synthetic_run()
    runs = [plain, *session_runs(), imported_run(), with_counters(plain), with_operators(plain), with_peaks(plain)]
    return [as_written(summarize(run)) for run in (*runs, *trial().runs)]


def test_a_run_has_the_keys_that_are_told() -> None:
    promised_json.check("JSON of a run", samples())


def test_an_ab_test_has_the_keys_that_are_told() -> None:
    beginning = replace(trial(), runs=trial().runs[:1], verdicts=(), stopped=None)
    written = [as_written(trial_json(one)) for one in (trial(), trial(same=True), beginning)]
    promised_json.check("JSON of `ab`", written)
    assert written[0]["trial"]["parts"] == 1
    assert all(written[0][name] for name in ("sides", "verdicts", "layers", "kernels", "floors")), (
        "nothing is held by being empty"
    )


def test_a_comparison_has_the_keys_that_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = saved(tmp_path, *session_runs()[:2], *trial().runs)
    written = [said(capsys, "compare", f"{file}#{a}", f"#{b}", "--json") for a, b in ((1, 2), (3, 4))]
    promised_json.check("JSON of `compare`", written)
    assert written[0]["refused"]
    assert written[1]["verdicts"]
    assert written[0]["tiles"]
    assert written[0]["layers"]


def test_a_session_has_the_keys_that_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = saved(tmp_path, *session_runs()[:2])
    whole = said(capsys, "show", str(file), "--json")
    with duckdb.connect(str(file)) as base:
        base.execute("UPDATE runs SET facts = '{' WHERE id = 1")
    less = said(capsys, "show", str(file), "--json")
    promised_json.check("JSON of `show`", [whole, less])
    promised_json.check("JSON of a run", whole["runs"])
    assert [one["run"] for one in less["unreadable"]] == [1]


def saved(folder: Path, *runs: Run) -> Path:
    path = folder / "session.tickscope"
    store = SessionStore.open(path)
    for run in runs:
        store.add(run)
    store.close()
    return path


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    """What a command writes."""
    assert main(list(argv)) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("command", ["models", "passes", "targets", "profilers", "formats"])
def test_a_listing_has_the_keys_that_are_told(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, command, "--json")
    assert list(found) == [command]
    assert found[command] or command == "models"
    section = SECTIONS["JSON of the listings"]
    common, more = section.split("| more in |")
    told = set(re.findall(r"`(\w+)`", " ".join(cells(common, 0))))
    row = next((line for line in more.splitlines() if line.startswith(f"| `{command}`")), "")
    own = set(re.findall(r"`(\w+)`", row.partition("; with a model")[0])) - {command}
    for item in found[command]:
        assert set(item) == told | own


def test_with_a_model_the_passes_say_what_they_gain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def foreseen(_args: object, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row |= {"predicted": {"gain": 1.0, "by_kind": {}, "rough": False}, "prediction": ""}

    monkeypatch.setattr("core.commands.listings._predict", foreseen)
    rows = said(capsys, "passes", "--model", "arch:gpt2?n_layer=1", "--json")["passes"]
    (row,) = (line for line in SECTIONS["JSON of the listings"].splitlines() if line.startswith("| `passes`"))
    told = set(re.findall(r"`(\w+)`", row.partition("with a model")[2]))
    assert {"predicted", "prediction", *rows[0]["predicted"]} == told
    assert {"predicted", "prediction"} <= set(rows[0])


def test_every_command_that_writes_json_has_a_section() -> None:
    writes = {command for command in COMMANDS if "--json" in switches(command)}
    listings = {"models", "passes", "targets", "profilers", "formats"}
    told = {title.removeprefix("JSON of ").strip("`") for title in SECTIONS if title.startswith("JSON of ")}
    assert writes - listings - {"run", "import"} == told - {"a run", "the listings"}


@pytest.mark.parametrize(("path", "kind"), [("energy", Energy), ("speculation", Speculation)])
def test_what_is_null_in_most_runs_is_told_too(path: str, kind: type) -> None:
    assert promised_json.parts_told("JSON of a run")[path] == {field.name for field in fields(kind)}
