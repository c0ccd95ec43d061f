"""The program's own modules as text and syntax trees, read once: several tests ask something of all of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.support.folders import ROOT

FLOORS = ("core", "gui", "profilers")


class Module(NamedTuple):
    """One module, ``name`` being its path from the root: ``core/units.py``."""

    name: str
    text: str
    tree: ast.Module


def modules(*floors: str) -> Iterator[Module]:
    """Those of some floors, or of all, by name."""
    for floor in floors or FLOORS:
        yield from map(_read, sorted((ROOT / floor).rglob("*.py")))


@cache
def _read(path: Path) -> Module:
    text = path.read_text(encoding="utf-8")
    return Module(path.relative_to(ROOT).as_posix(), text, ast.parse(text))
