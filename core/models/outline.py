"""The model tree cut into the few dozen pieces that the heat map has rows for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from profilers.trace import Layer

_LISTS = ("ModuleList", "Sequential")


@dataclass(frozen=True)
class Piece:
    """One row of the outline: a label and the layer numbers whose total times it adds up (the first is the one to select)."""

    label: str
    rows: tuple[int, ...]


def outline(layers: Sequence[Layer], max_rows: int = 64) -> tuple[Piece, ...]:
    """The model cut into pieces that do not overlap: what is embedded, each block, final norm, head, in reading order.

    A block is a direct child of an outermost ``ModuleList`` (or ``Sequential``, in a model without). The rest are the
    largest modules beside the way from the root to such a list. More than ``max_rows``: neighbouring blocks share a row.
    """
    children: dict[int, list[int]] = {}
    for row, layer in enumerate(layers):
        children.setdefault(layer.parent, []).append(row)
    on_the_way = _ways_to_lists(layers)
    repeated: frozenset[int] = frozenset()
    if not on_the_way:
        repeated = _repeated(layers, children)
        on_the_way = frozenset(_above(layers, next(iter(repeated)))) if repeated else frozenset()
    before: list[int] = []
    blocks: list[int] = []
    after: list[int] = []
    todo = list(children.get(-1, []))
    while todo:
        row = todo.pop(0)
        layer = layers[row]
        if layer.type in _LISTS and row in on_the_way:
            blocks += children.get(row, [])
        elif row in repeated:
            blocks.append(row)
        elif row in on_the_way or (layer.parent == -1 and row in children):
            todo = children[row] + todo
        else:
            (before if layer.stage == "embed" else after).append(row)
    after.sort(key=lambda row: layers[row].stage == "head")
    pieces = [Piece(layers[row].path.rpartition(".")[2] or layers[row].type, (row,)) for row in before]
    tail = [Piece(layers[row].path.rpartition(".")[2] or layers[row].type, (row,)) for row in after]
    room = max(1, max_rows - len(pieces) - len(tail))
    step = -(-len(blocks) // room)
    for at in range(0, len(blocks), max(step, 1)):
        group = tuple(blocks[at : at + step])
        label = ".".join(layers[group[0]].path.split(".")[-2:])
        if len(group) > 1:
            label += f"–{layers[group[-1]].path.rpartition('.')[2]}"
        pieces.append(Piece(label, group))
    return tuple(pieces + tail)


def counted_rows(layers: Sequence[Layer]) -> frozenset[int]:
    """The layers that get the processor's counts: every block and whatever else the outline is made of; none within another."""
    return frozenset(row for piece in outline(layers, len(layers)) for row in piece.rows)


def _ways_to_lists(layers: Sequence[Layer]) -> frozenset[int]:
    """The outermost lists and all their ancestors."""
    kinds = {layer.type for layer in layers}
    wanted = next((kind for kind in _LISTS if kind in kinds), None)
    way: set[int] = set()
    for row, layer in enumerate(layers):
        if layer.type != wanted:
            continue
        above = _above(layers, row)
        if not any(layers[number].type == wanted for number in above):
            way.update((row, *above))
    return frozenset(way)


def _above(layers: Sequence[Layer], row: int) -> list[int]:
    """All ancestors, the nearest first."""
    above: list[int] = []
    parent = layers[row].parent
    while parent >= 0:
        above.append(parent)
        parent = layers[parent].parent
    return above


def _repeated(layers: Sequence[Layer], children: Mapping[int, Sequence[int]]) -> frozenset[int]:
    """The blocks of a model that shows no lists (imported traces): the most siblings of one type with layers in them."""
    found: list[int] = []
    for below in children.values():
        for kind in {layers[row].type for row in below}:
            alike = [row for row in below if layers[row].type == kind and row in children]
            if len(alike) > max(1, len(found)):
                found = alike
    return frozenset(found)
