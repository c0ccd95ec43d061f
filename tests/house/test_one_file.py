"""An executor, an importer and an exporter are one file each: a toy of each in a temporary folder is found in every list.

The same is shown of a pass (``core/pass_api/test_options.py``), a view (``gui/views/test_gui_view_contract.py``), and what is
declared in a table (``test_said_once.py``).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.cli import main, parser
from core.execution.executors.base import executors
from core.export.base import exporters
from core.imports.base import importers
from core.program import Program
from core.registry import Registry
from gui.files import Files, trace_filters
from gui.setup.target_picker import TargetPicker
from tests.support.folders import SAMPLES
from tests.support.synthetic import synthetic_run

EXECUTOR = """
from core.execution.carriers.local import LocalCarrier
from core.execution.executors.base import Executor, executors


class Toy(LocalCarrier):
    id = "toy"


executors.register(lambda: Executor("toy", "In a toy", "Of wood", short="in a toy", place=9, survives=True, make=Toy))
"""
IMPORTER = """
from core.imports.base import importers
from tests.support.synthetic_operators import imported_run


@importers.register
class Toy:
    id = "toy"
    title = "Toy trace"
    suffixes = (".toy", ".json.toy")

    def read(self, path):
        return imported_run()
"""
EXPORTER = """
from core.export.base import exporters


@exporters.register
class Toy:
    id = "toy"
    title = "Runs as a toy"
    suffix = ".toy"

    def check(self):
        return None

    def write(self, runs, path):
        path.write_text(f"{len(runs)} of wood")
        return [path]
"""


def _with(registry: Registry[Any], text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file in a folder that the registry's package looks into; the registry is as it was afterwards."""
    list(registry)  # what is there is found first
    package = importlib.import_module(registry.package)
    (folder / "toy.py").write_text(text, "utf-8")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    for name, value in (("_items", dict(registry._items)), ("_asked", False), ("_discovered", False)):
        monkeypatch.setattr(registry, name, value)
    yield
    sys.modules.pop(f"{registry.package}.toy", None)
    if hasattr(package, "toy"):
        del package.toy  # type: ignore[attr-defined]


@pytest.fixture
def toy_executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from _with(executors, EXECUTOR, tmp_path, monkeypatch)


@pytest.fixture
def toy_importer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from _with(importers, IMPORTER, tmp_path, monkeypatch)


@pytest.fixture
def toy_exporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from _with(exporters, EXPORTER, tmp_path, monkeypatch)


def test_an_executor_is_one_file(toy_executor: None, qtbot: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asked = parser().parse_args(["run", "--model", "package:any", "--executor", "toy"])
    assert asked.executor == "toy"
    with pytest.raises(SystemExit):
        parser().parse_args(["run", "--help"])
    assert "toy: in a toy" in " ".join(capsys.readouterr().out.split())
    picker = TargetPicker([])
    qtbot.addWidget(picker)
    picker.set_where("toy")
    assert (picker.where(), picker.executor.currentText()) == ("toy", "In a toy")
    assert picker.summary().endswith("in a toy")
    program = Program(keep_session=False, executor="toy")
    try:
        assert program.executor == "toy"
        with pytest.raises(ValueError, match="there are local and child and toy"):
            program.use("other")
    finally:
        assert program.close(60)


def test_an_importer_is_one_file(toy_importer: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, session = tmp_path / "step.TOY", tmp_path / "session.tickscope"
    trace.write_text("wood")
    assert "Toy trace (*.toy *.json.toy)" in trace_filters().split(";;")
    assert main(["import", str(trace), "--out", str(session)]) == 0
    assert "imported" in capsys.readouterr().out
    (tmp_path / "step.other").write_text("wood")  # a name that no format asks for is read as the common one
    assert main(["import", str(tmp_path / "step.other"), "--out", str(session)]) != 0


def test_an_exporter_is_one_file(toy_exporter: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formats"]) == 0
    assert "Runs as a toy" in capsys.readouterr().out
    copy = tmp_path / "session.tickscope"
    copy.write_bytes((SAMPLES / "session-v4.tickscope").read_bytes())
    assert main(["export", str(copy), "--format", "toy", "--out", str(tmp_path / "runs.toy")]) == 0
    assert (tmp_path / "runs.toy").read_text().endswith("of wood")


def test_the_window_offers_the_toy_exporter(toy_exporter: None) -> None:
    offered: list[str] = []
    state = SimpleNamespace(current_run=synthetic_run(repeats=1))
    files = Files(SimpleNamespace(busy=False), None, state, None)  # type: ignore[arg-type]
    files.ask_save = lambda _parent, _title, _suggested, filters: offered.append(filters)
    files.export_run()
    assert "Runs as a toy (*.toy)" in offered[0]
