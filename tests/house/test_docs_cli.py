"""The page of the command line is true: its commands, switches, exit statuses and JSON keys are those of the program."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from typing import Any

import pytest

from core import commands
from core.analysis.compare import LayerDifference, TileDifference, compare
from core.analysis.energy import Energy
from core.analysis.speculation import Speculation
from core.analysis.summary import summarize
from core.analysis.verdict import Verdict
from core.commands.arguments import COMMANDS, parser
from core.commands.listings import listing
from core.json_text import strict
from tests.support.folders import ROOT
from tests.support.synthetic import synthetic_run
from tests.support.synthetic_measured import with_counters, with_peaks
from tests.support.synthetic_operators import imported_run, with_operators
from tests.support.synthetic_quality import session_runs

PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
SECTIONS = {title.strip(): text for title, _, text in (part.partition("\n") for part in PAGE.split("\n## ")[1:])}
SHARED = "Switches of `run` and `ab`"


def cells(section: str, column: int) -> list[str]:
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return [re.split(r"(?<!\\)\|", row)[column + 1].strip() for row in rows]


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

TYPES: Mapping[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "text": (str,),
    "boolean": (bool,),
    "list": (list,),
    "object": (dict,),
    "null": (type(None),),
}
JSON_OF_A_RUN = SECTIONS["JSON of a run"]


@cache
def keys_told() -> dict[str, str]:
    """Type by key path."""
    rows = zip(cells(JSON_OF_A_RUN, 0), cells(JSON_OF_A_RUN, 1), strict=True)
    return {path: kind for told, kind in rows for path in re.findall(r"`([^`]+)`", told)}


@cache
def samples() -> list[Any]:
    """The JSON of every sort of run, made once: each of the page's 150 keys is looked up in all of them."""
    plain = synthetic_run()
    runs = [plain, *session_runs(), imported_run(), with_counters(plain), with_operators(plain), with_peaks(plain)]
    return [json.loads(strict(summarize(run))) for run in runs]


def found_at(value: Any, path: list[str]) -> Iterator[Any]:
    """All values at a path, in which ``*`` is any name and ``x[]`` every item of x. Where an object above is null: none."""
    if not path or value is None:
        if not path:
            yield value
        return
    name = path[0].removesuffix("[]")
    for inner in list(value.values()) if name == "*" else [value[name]]:
        for one in inner if path[0].endswith("[]") else [inner]:
            yield from found_at(one, path[1:])


def leaves(value: Any, told: set[str], path: str = "") -> Iterator[str]:
    """Paths of a run's JSON down to where the page tells them; what it does not tell comes out as it is."""
    if path in told or not isinstance(value, (dict, list)) or (path and not value):
        yield path
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, told, f"{path}[]")
    else:
        for name, inner in value.items():
            below = f"{path}.{name}" if path else name
            anything = f"{path}.*"
            named = anything if anything in told or any(key.startswith(f"{anything}.") for key in told) else below
            yield from leaves(inner, told, named)


def test_every_key_of_a_run_is_told() -> None:
    told = keys_told()
    above = {path.rpartition(".")[0].removesuffix("[]") for path in told} | {path.partition("[]")[0] for path in told}
    extra = {"metrics.*.disturbed", "metrics.*.provisional"}
    for run in samples():
        assert set(leaves(run, set(told))) - set(told) - above - extra == set()


@pytest.mark.parametrize("path", sorted(keys_told()))
def test_a_key_of_a_run_is_there_with_its_type(path: str) -> None:
    kind = keys_told()[path]
    values = [value for run in samples() for value in found_at(run, path.split("."))]
    if kind != "any":
        wanted = tuple(one for name in kind.split(" or ") for one in TYPES[name])
        assert [
            value for value in values if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted)
        ] == []


def told_in(text: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", text))


def row_of(path: str) -> str:
    return next(row for row in JSON_OF_A_RUN.splitlines() if row.startswith(f"| `{path}`"))


@pytest.mark.parametrize(("path", "kind"), [("energy", Energy), ("speculation", Speculation)])
def test_what_is_null_in_most_runs_is_told_too(path: str, kind: type) -> None:
    assert told_in(row_of(path)) == {path} | {field.name for field in fields(kind)}


def test_the_keys_of_comparisons_and_verdicts_are_told() -> None:
    others = SECTIONS["JSON of the others"]
    told = told_in(others)
    for kind in (TileDifference, LayerDifference, Verdict):
        assert {field.name for field in fields(kind)} <= told
    a, b = session_runs()[:2]
    assert set(compare(a, b).as_json()) <= told


@pytest.mark.parametrize("command", ["models", "passes", "targets", "profilers", "formats"])
def test_the_keys_of_listings_are_told(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    listing(parser().parse_args([command, "--json"]))
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [command]
    assert {key for row in found[command] for key in row} <= told_in(SECTIONS["JSON of the others"])
    assert found[command] or command == "models"
