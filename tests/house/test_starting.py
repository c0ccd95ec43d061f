"""Starting needs nothing heavy: no torch for the window, no Qt below it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.folders import ROOT


@pytest.mark.parametrize("module", ["core.program", "core.cli", "gui.app"])
def test_importing_the_app_does_not_import_torch(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'transformers', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["core.program", "core.cli"])
def test_the_lower_floors_do_not_import_qt(module: str) -> None:
    code = f"import sys, {module}; print([m for m in sys.modules if m.startswith(('PySide6', 'pyqtgraph', 'gui'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
