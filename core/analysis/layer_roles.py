"""Layers by their role: the same module of every block taken together, so that thirty ``mlp.up_proj`` are one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from profilers.trace import Layer

EVERY = "*"
"""Stands in a role for the number of a block, an expert or whatever else is counted."""

SUMMED = ("calls", "total_ns", "self_ns", "share", "total_share", "cycles", "instructions", "cache_misses", "cpu_ns")


def role(path: str) -> str:
    """``model.layers.*.mlp.up_proj`` of ``model.layers.12.mlp.up_proj``."""
    return ".".join(EVERY if part.isdigit() else part for part in path.split("."))


def roles_of(layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], dict[str, int]]:
    """The model's tree with one layer for each role (class and stage of the first that has it), and how many have it."""
    numbers: dict[str, int] = {}
    made: list[Layer] = []
    count: dict[str, int] = {}
    for layer in layers:
        name = role(layer.path)
        count[name] = count.get(name, 0) + 1
        if name not in numbers:
            numbers[name] = len(made)
            parent = numbers[role(layers[layer.parent].path)] if layer.parent >= 0 else -1
            made.append(Layer(name, layer.type, layer.stage, parent))
    return tuple(made), count


def together(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the layer table by kind and role: times, calls, shares and counts added up, rates over the added time.

    A value that one of them lacks is None for all. ``layers`` says how many a row stands for, ``sqnr_db`` is the lowest.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["kind"], role(row["path"])), []).append(row)
    return [_one(name, alike) for (_, name), alike in groups.items()]


def _one(name: str, alike: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    made = {**alike[0], "path": name, "layers": len(alike)}
    for column in SUMMED:
        made[column] = _added([row.get(column) for row in alike])
    for column in ("bytes_per_s", "operations_per_s", "limit_share"):  # each is something over the total time
        parts = [None if row.get(column) is None else row[column] * row["total_ns"] for row in alike]
        whole = _added(parts)
        made[column] = whole / made["total_ns"] if whole is not None and made["total_ns"] else None
    cycles, instructions = made["cycles"], made["instructions"]
    made["ipc"] = instructions / cycles if cycles and instructions is not None else None
    drifts = [row["sqnr_db"] for row in alike if row.get("sqnr_db") is not None]
    made["sqnr_db"] = min(drifts, default=None)
    return made


def _added(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def lowest(sqnr_db: Mapping[str, float | None]) -> dict[str, float | None]:
    """The worst layer error of each role, in dB; None where all are exact."""
    found: dict[str, float | None] = {}
    for path, error in sqnr_db.items():
        worst = found.get(role(path))
        found[role(path)] = worst if error is None else error if worst is None else min(worst, error)
    return found
