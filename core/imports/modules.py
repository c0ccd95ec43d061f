"""The layers of an imported trace: its ``nn.Module`` calls, or the regions that somebody marked, as a tree with stages."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from profilers.trace import NOT_MEASURED, STAGES, Array, Layer

MODULE = "nn.Module: "
ROOT = "(model)"
"""How Tickscope's own traces name the layer with the path ""."""

_STAGES = (
    ("norm", re.compile(r"norm", re.IGNORECASE)),
    ("attention", re.compile(r"att|mixer|mamba|retention", re.IGNORECASE)),
    ("mlp", re.compile(r"mlp|feed_?forward|ffn|moe|expert|intermediate", re.IGNORECASE)),
    ("embed", re.compile(r"embed|rotary", re.IGNORECASE)),
    ("head", re.compile(r"head$|pooler$|classifier", re.IGNORECASE)),
)
_INHERITED = ("embed", "attention", "mlp", "head")


MOST_DEPTH = 64
"""Calls nested deeper than this count to the layer at this depth: it is a function that calls itself."""


def rows_of(codes: Array, above: Array, *, by_name: bool) -> Array:
    """The layer's row of each call, callers before what they call.

    A layer is a name under one other layer: of a region "attention" in each of 32 blocks there are 32.

    Args:
        codes: per call (in reading order) the number of its name.
        above: per call the call around it, -1 for none.
        by_name: the names are whole paths already.
    """
    if by_name:
        return _in_order(codes.astype(np.int64))
    row = np.full(len(codes), NOT_MEASURED, np.int64)
    level = np.flatnonzero(above < 0)
    count = 0
    children = np.argsort(above, kind="stable")
    sorted_above = above[children]
    for depth in range(len(codes)):
        if not len(level):
            break
        parent = np.where(above[level] >= 0, row[above[level]], NOT_MEASURED)
        if depth < MOST_DEPTH:
            _, number = np.unique((parent + 1) * (int(codes.max()) + 1) + codes[level], return_inverse=True)
            row[level] = number.ravel() + count
            count += int(number.max()) + 1
        else:
            row[level] = parent
        begin = np.searchsorted(sorted_above, level)
        length = np.searchsorted(sorted_above, level, side="right") - begin
        step = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
        level = children[np.repeat(begin, length) + step]
    return _in_order(row)


def _in_order(numbers: Array) -> Array:
    """The same groups, numbered in the order of their first appearance."""
    _, first, group = np.unique(numbers, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    found: Array = rank[group.ravel()]
    return found


def build(
    row: Array, codes: Array, above: Array, names: Sequence[str], details: Sequence[tuple[str, str] | None]
) -> tuple[Layer, ...]:
    """The layers of calls whose rows are known; ``details`` are class and stage of names, if the trace says them."""
    layers: list[Layer] = []
    paths: set[str] = set()
    first = np.unique(row, return_index=True)[1]
    for call in first.tolist():
        around = int(row[above[call]]) if above[call] >= 0 else -1
        around = around if 0 <= around < len(layers) else -1
        code = int(codes[call])
        layers.append(_layer(names[code], details[code], around, layers, paths))
        paths.add(layers[-1].path)
    return tuple(layers)


def _layer(name: str, detail: tuple[str, str] | None, parent: int, layers: list[Layer], paths: set[str]) -> Layer:
    if detail is not None:
        path = "" if name == ROOT else name
        kind, stage = detail
        return Layer(_free(path, paths), kind, stage if stage in STAGES else "other", parent)
    called = name.removeprefix(MODULE)
    kind = called.rpartition("_")[0] or called if name.startswith(MODULE) else "region"
    above = layers[parent] if parent >= 0 else None
    path = f"{above.path}.{called}" if above is not None and above.path else called
    return Layer(_free(path, paths), kind, _stage(kind, above), parent)


def _free(path: str, taken: set[str]) -> str:
    number, free = 2, path
    while free in taken:
        free, number = f"{path} ({number})", number + 1
    return free


def _stage(kind: str, above: Layer | None) -> str:
    if above is not None and above.stage in _INHERITED:
        return above.stage
    if kind.endswith(("Layer", "Block")):  # the block itself, whatever its name says
        return "other"
    return next((stage for stage, words in _STAGES if words.search(kind)), "other")
