"""Nodes: which layer each operation of an engine's graph belongs to, and their times as spans of layers.

Engines fuse, split and add operations, so an operation may have no layer of its own. It then gets what the operations that
use its result have in common, else those that it uses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from profilers.layer_clock import forward_slots
from profilers.trace import Array

if TYPE_CHECKING:
    import torch

_AGAIN = re.compile(r"@\d+")  # torch.export marks a module's second call so


NO_MOMENT_NS = -1
"""The start of a pass that belongs to no moment."""


@dataclass(frozen=True)
class Node:
    """One operation as it ran: its layer's path ("" where it has none), how long it took, and the kernel if it multiplies
    matrices.
    """

    path: str
    duration_ns: int
    kernel: str | None = None


@dataclass(frozen=True)
class Ran:
    """One forward pass in an engine under its own profiler, its nodes in the order in which they ran."""

    start_ns: int  # perf_counter_ns
    nodes: tuple[Node, ...]


def layer_rows(model: torch.nn.Module) -> dict[str, int]:
    """The row in ``named_modules`` order of each path that may have a span: "" and all modules that have a forward."""
    slots = {row for row, _ in forward_slots(model)}
    return {path: row for row, (path, _) in enumerate(model.named_modules()) if row == 0 or row in slots}


def nearest(path: str, rows: Mapping[str, int]) -> str:
    """The path itself or the nearest one above it that has a row; "" if none has."""
    path = _AGAIN.sub("", path)
    while path not in rows and path:
        path = path.rpartition(".")[0]
    return path


def completed(known: Mapping[str, str], uses: Sequence[tuple[str, Iterable[str]]]) -> dict[str, str]:
    """A path for every operation.

    Args:
        known: path by operation, of those that have one.
        uses: every operation and those whose results it uses, in an order in which they can run.

    Returns:
        path by operation; "" where nothing around it has one either.
    """
    found = dict(known)
    users: dict[str, list[str]] = {}
    for name, used in uses:
        for one in used:
            users.setdefault(one, []).append(name)
    for name, _ in reversed(uses):
        around = [found[user] for user in users.get(name, ()) if user in found]
        if name not in found and around:
            found[name] = _shared(around)
    for name, used in uses:
        if name not in found:
            found[name] = _shared([found[one] for one in used if one in found])
    return found


def _shared(paths: Sequence[str]) -> str:
    """The longest path that all of them are at or below."""
    if not paths:
        return ""
    parts = [path.split(".") for path in paths]
    count = 0
    while all(len(one) > count and one[count] == parts[0][count] for one in parts):
        count += 1
    return ".".join(parts[0][:count])


def span_columns(
    ran: Ran, rows: Mapping[str, int], moment: int, start_ns: int, duration_ns: int, origin_ns: int
) -> dict[str, Array]:
    """The spans of one moment: every layer that has nodes below it, and the model itself.

    A span lasts as long as its nodes took together. Engines mix nodes of different layers, so start times are laid out: within
    the layer above, one after the other in the order in which their first nodes ran.

    Args:
        ran: what the engine's profiler saw.
        rows: row by path (``layer_rows``).
        moment: row of the moment.
        start_ns: its start, as ``perf_counter_ns``.
        duration_ns: its length, which becomes the span of the model itself.
        origin_ns: what start times become relative to.
    """
    total: dict[str, int] = {}  # in the order of their first nodes
    own: dict[str, int] = {}
    for node in ran.nodes:
        path = nearest(node.path, rows)
        own[path] = own.get(path, 0) + node.duration_ns
        while path:
            total[path] = total.get(path, 0) + node.duration_ns
            path = nearest(path.rpartition(".")[0], rows)
    above = {path: nearest(path.rpartition(".")[0], rows) for path in total}
    whole = sum(node.duration_ns for node in ran.nodes)
    # rounding to µs, node by node, must not make them longer than the moment that they are part of
    scale = min(1.0, duration_ns / whole) if whole else 1.0
    cursor = {"": max(start_ns, min(ran.start_ns, start_ns + duration_ns - int(whole * scale)))}
    starts = {}
    for path in sorted(total, key=lambda path: path.count(".")):  # what is above comes first; else as they ran
        starts[path] = cursor[path] = cursor[above[path]]
        cursor[above[path]] += int(total[path] * scale)
    inside = sum(int(total[path] * scale) for path in total if not above[path])
    paths = list(total)
    return {
        "moment": np.full(len(paths) + 1, moment),
        "layer": np.array([*(rows[path] for path in paths), 0]),
        "start_ns": np.array([*(starts[path] for path in paths), start_ns]) - origin_ns,
        "duration_ns": np.array([*(int(total[path] * scale) for path in paths), duration_ns]),
        "self_ns": np.array([*(int(own.get(path, 0) * scale) for path in paths), duration_ns - inside]),
    }
