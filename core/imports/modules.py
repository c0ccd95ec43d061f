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


def build(
    codes: Array, above: Array, names: Sequence[str], details: Sequence[tuple[str, str] | None]
) -> tuple[tuple[Layer, ...], Array]:
    """The layers, callers before what they call, and the layer's row of each call.

    Args:
        codes: per call (in reading order) the number of its name.
        above: per call the call around it, -1 for none.
        names: by number, as the trace has them.
        details: by number, class and stage if the trace says them (Tickscope's own traces do).
    """
    used, first = np.unique(codes, return_index=True)
    order = np.argsort(first, kind="stable")
    row_of = np.full(len(names), NOT_MEASURED, np.int64)
    row_of[used[order]] = np.arange(len(used))
    layers: list[Layer] = []
    paths: set[str] = set()
    for code, call in zip(used[order].tolist(), first[order].tolist(), strict=True):
        around = int(row_of[codes[above[call]]]) if above[call] >= 0 else -1
        around = around if 0 <= around < len(layers) else -1
        layers.append(_layer(names[code], details[code], around, layers, paths))
        paths.add(layers[-1].path)
    return tuple(layers), row_of[codes]


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
