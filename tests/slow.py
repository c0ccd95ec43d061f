"""Which files of tests are slow as a whole, told by what they load: models, windows, other processes."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

HEAVY = frozenset({"torch", "transformers", "PySide6", "pyqtgraph", "gui", "benchmarks", "subprocess"})
"""What takes a second and more to import, or starts a process that does."""

_HERE = Path(__file__).parent


@cache
def is_slow(path: Path) -> bool:
    """Whether a file of tests, or a module of ``tests`` that it imports, loads one of them, at its top or in a test."""
    text = path.read_text(encoding="utf-8")
    return "qtbot" in text or any(_loads(name, path) for name in _imported(ast.parse(text)))


def _imported(tree: ast.Module) -> set[str]:
    """Dotted names of all that a module imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _loads(name: str, by: Path) -> bool:
    top, _, rest = name.partition(".")
    beside = _HERE.joinpath(*rest.split(".")).with_suffix(".py")
    return top in HEAVY or (top == "tests" and beside != by and beside.is_file() and is_slow(beside))
