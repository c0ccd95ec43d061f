"""Holds what a command writes as JSON against the tables of docs/cli.md: every key that is told is there, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.support.folders import ROOT

PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
SECTIONS = {title.strip(): text for title, _, text in (part.partition("\n") for part in PAGE.split("\n## ")[1:])}

TYPES: Mapping[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "text": (str,),
    "boolean": (bool,),
    "list": (list,),
    "object": (dict,),
    "null": (type(None),),
}
SOMETIMES = {"metrics.*.disturbed", "metrics.*.provisional", "unreadable"}
"""Keys that are there only where they say something."""


def cells(section: str, column: int) -> list[str]:
    """A column of the tables of a section, of rows that begin with code."""
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return [re.split(r"(?<!\\)\|", row)[column + 1].strip() for row in rows]


def keys_told(title: str) -> dict[str, str]:
    """Type by key path."""
    rows = zip(cells(SECTIONS[title], 0), cells(SECTIONS[title], 1), strict=True)
    return {path: kind for told, kind in rows for path in re.findall(r"`([^`]+)`", told)}


def parts_told(title: str) -> dict[str, set[str]]:
    """By the path of an object, or of a list of some, the keys that its row tells beside it."""
    found = {}
    for told, kind, more in zip(*(cells(SECTIONS[title], column) for column in range(3)), strict=True):
        names = set(re.findall(r"`(\w+)`", more))
        if names and (kind.startswith("object") or kind == "list"):
            found |= dict.fromkeys(re.findall(r"`([^`]+)`", told), names)
    return found


def check(title: str, written: Sequence[Any]) -> None:
    """Assert that what was written has all keys that the section tells, with their types, and no others."""
    told = keys_told(title)
    above = {path.rpartition(".")[0].removesuffix("[]") for path in told} | {path.partition("[]")[0] for path in told}
    for one in written:
        assert set(leaves(one, set(told))) - set(told) - above - SOMETIMES == set()
    for path, kind in told.items():
        assert [value for value in _values(written, path) if not _is(value, kind)] == [], path
    for path, names in parts_told(title).items():
        for value in _values(written, path):
            for item in value if isinstance(value, list) else [value] if value is not None else []:
                assert set(item) == names, path


def _values(written: Sequence[Any], path: str) -> Iterator[Any]:
    """What stands at a path, wherever that must be."""
    for one in written:
        if path not in SOMETIMES or path in one:
            yield from found_at(one, path.split("."))


def _is(value: Any, kind: str) -> bool:
    if kind == "any":
        return True
    wanted = tuple(one for name in kind.split(" or ") for one in TYPES[name])
    return isinstance(value, wanted) and (not isinstance(value, bool) or bool in wanted)


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
    """Paths of JSON down to where the page tells them; what it does not tell comes out as it is."""
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
