"""Where tests lie: in the folder of what they test, so that whoever changes a room finds its tests by the same path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.folders import ROOT

OWN = frozenset({"house", "support", "data"})
"""Folders of tests that stand for no room: what holds for the whole program, what tests use, sample sessions."""

OTHERWISE = {"cli": "core/cli.py"}
"""A folder for what is no folder in the source: the command line, with what ``core/commands`` says on it."""


def folders(tests: Path) -> Iterator[str]:
    """Every folder under ``tests`` that has files, ``core/session``, say."""
    found = {path.parent.relative_to(tests).as_posix() for path in tests.rglob("*.py")}
    return (name for name in sorted(found) if name != ".")


def astray(tests: Path, source: Path) -> list[str]:
    """Folders that name no room of the source, or are no package, and tests that lie in none."""
    lost = [path.name for path in sorted(tests.glob("test_*.py"))]
    for name in folders(tests):
        room = source / OTHERWISE.get(name, name)
        if not (tests / name / "__init__.py").exists():
            lost.append(f"{name} without __init__.py")
        if name.split("/")[0] not in OWN and not room.is_file() and not (room / "__init__.py").is_file():
            lost.append(name)
    return lost


def test_tests_lie_in_the_folders_of_what_they_test() -> None:
    assert astray(ROOT / "tests", ROOT) == []


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("test_here.py", ["test_here.py"]),
        ("core/sessions/test_here.py", ["core/sessions"]),
        ("units/test_here.py", ["units"]),
        ("core/session/test_here.py", []),
        ("house/test_here.py", []),
        ("cli/test_here.py", []),
    ],
)
def test_what_lies_elsewhere_is_told(file: str, told: list[str], tmp_path: Path) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    (path.parent / "__init__.py").touch()
    assert astray(tmp_path, ROOT) == told


def test_a_folder_without_init_is_told(tmp_path: Path) -> None:
    """pytest would import its files by their bare names, and none of them could import another."""
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "test_here.py").touch()
    assert astray(tmp_path, ROOT) == ["core without __init__.py"]


def test_each_file_of_tests_has_a_name_of_its_own() -> None:
    """``pytest -k test_floors`` means one file, and a file can be found by its name alone."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, times in names.items() if times > 1] == []
