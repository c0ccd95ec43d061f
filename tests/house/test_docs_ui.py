"""The page of the window is true: its views, commands with their keys, and object names are those of the program."""

from __future__ import annotations

import ast
import re

from gui.views.base import known_views
from tests.gui.test_gui_shell import NAMES
from tests.support.folders import ROOT

PAGE = (ROOT / "docs" / "ui.md").read_text(encoding="utf-8")
SECTIONS = {title: text for title, _, text in (part.partition("\n") for part in PAGE.split("\n## ")[1:])}


def rows(section: str) -> list[list[str]]:
    lines = [line for line in SECTIONS[section].splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def commands() -> set[tuple[str, str, tuple[str, ...]]]:
    """Menu, title and keys of every ``Command`` that is written out in full."""
    found = set()
    for path in (ROOT / "gui").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Command" and isinstance(node.args[2], ast.Constant):
                keys = ast.literal_eval(node.args[4]) if len(node.args) > 4 else ()
                found.add((ast.literal_eval(node.args[0]), node.args[2].value, tuple(keys)))
    return found


def test_the_views_are_told() -> None:
    assert tuple(row[0] for row in rows("Views")) == tuple(view.title for view in known_views())


def test_every_command_is_told_with_its_keys() -> None:
    told = {(menu, title, tuple(re.findall(r"`([^`]+)`", keys))) for menu, title, keys in rows("Commands")}
    assert told == commands()
    assert len(told) > 15


def test_the_names_for_scripts_are_told() -> None:
    """That the window has them is tested where it is opened (test_gui_shell)."""
    told = set(re.findall(r"`([a-zA-Z]+)`", SECTIONS["Names for scripts"].partition("`gui.app")[0]))
    assert told == set(NAMES)
