"""The house itself: what is on disk is what is registered, and its pages and limits hold."""

from __future__ import annotations

import ast
import graphlib
import re
import tomllib

import grimp
import pytest

from core.export.base import exporters
from core.models.base import sources
from core.pass_api.base import passes
from core.registry import Registry
from core.targets.base import targets
from profilers.base import instruments
from tests.support.folders import ROOT
from tests.support.sources import modules


def files_with(folder: str, mark: str) -> int:
    return sum(mark in path.read_text() for path in (ROOT / folder).glob("*.py"))


@pytest.mark.parametrize(
    ("registry", "folder", "mark"),
    [
        (sources, "core/models", "@sources.register"),
        (passes, "core/passes", "@passes.register"),
        (targets, "core/targets", "@targets.register"),
        (exporters, "core/export", "@exporters.register"),
    ],
)
def test_every_file_that_registers_is_discovered(registry: Registry, folder: str, mark: str) -> None:
    marks = sum(path.read_text().count(mark) for path in (ROOT / folder).glob("*.py") if path.name != "base.py")
    ids = [item.id for item in registry]
    assert len(ids) == len(set(ids)) == marks > 0


def test_every_instrument_on_disk_is_found() -> None:
    assert len(instruments()) == files_with("profilers", "\nINSTRUMENT = ") > 0


def test_two_of_one_id_are_an_error() -> None:
    registry: Registry = Registry("thing", "core")

    class Thing:
        id = "same"

    registry.register(Thing)
    with pytest.raises(AssertionError, match="same"):
        registry.register(Thing)


def test_every_module_says_what_it_is_for() -> None:
    """At its very beginning, so that it can be seen without parsing 600 files."""
    silent = [
        str(path.relative_to(ROOT))
        for floor in ("gui", "core", "profilers", "tests", "benchmarks")
        for path in (ROOT / floor).rglob("*.py")
        if path.stat().st_size and not re.match(r'"""\S', path.read_text(encoding="utf-8"))
    ]
    assert silent == []


MOST_LINES, MOST_LINES_OF_A_FUNCTION = 400, 50


def too_long(floor: str) -> list[str]:
    found = []
    for name, text, tree in modules(floor):
        if len(text.splitlines()) > MOST_LINES:
            found.append(name)
        functions = (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
        found += [f"{name}: {one.name}" for one in functions if (one.end_lineno or 0) - one.lineno >= MOST_LINES_OF_A_FUNCTION]
    return found


@pytest.mark.parametrize("floor", ["core", "gui", "profilers"])
def test_no_file_and_no_function_is_too_long(floor: str) -> None:
    assert too_long(floor) == []


def test_no_module_of_the_window_imports_itself_by_way_of_others() -> None:
    """Imports that only a type checker reads aside, which the contract keeps to the floor of the main window."""
    graph = grimp.build_graph("gui", exclude_type_checking_imports=True, cache_dir=None)
    order = graphlib.TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules})
    order.prepare()  # raises CycleError with the ring


def test_packaging_is_no_package() -> None:
    """It would shadow PyPI's ``packaging``, which transformers and pytest import from the repository root."""
    assert not (ROOT / "packaging" / "__init__.py").exists()


def test_the_page_of_the_house_draws_the_rooms_that_the_contract_keeps() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (rooms,) = (contract["layers"] for contract in contracts if contract["name"] == "Rooms of core, top to bottom")
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    (drawing,) = (part for part in page.split("```") if part.startswith("text\ncli "))
    assert [line.split("  ")[0].strip() for line in drawing.splitlines()[1:]] == rooms


def test_the_page_of_the_house_names_files_that_exist() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    folders = (path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
    files = {path.relative_to(ROOT).as_posix() for folder in folders for path in (ROOT / folder).rglob("*.py")}
    for named in re.findall(r"`([a-z_/]+\.py)`", page):
        assert any(f"/{path}".endswith(f"/{named}") for path in files), named
