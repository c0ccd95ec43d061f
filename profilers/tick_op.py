"""The layer clock inside compiled graphs: an ordered operator that only looks at the clock, around the model's largest pieces.

A compiled graph calls no Python, so the layer clock cannot see into it, and hooks would break it or never fire. An operator
with an *ordered effect* stays in the graph, in its place among its like and after the tensor it is given. The graph with ticks
is a second one, compiled from a twin of the model. So nothing is installed on the model itself, and neither graph can run in
place of the other; dynamo, which does not guard hooks, would let it. A tick costs 3 µs of a 2 GHz Xeon; an operator that
returned a tensor, 8.

What ticks cannot tell: inductor may fuse the first element-wise kernel of a block with the last one of the block before, and
the time of such a kernel belongs to the block before.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from profilers.forward_patch import Forward, give_forward
from profilers.shallow_clone import shallow_clone
from profilers.torch_private import keep_in_order
from profilers.trace import NOT_MEASURED, SPAN_COLUMNS, Array, Recorder

if TYPE_CHECKING:
    import torch

Log = list[tuple[int, int, Any]]  # number, perf_counter_ns, raw reading of the counter (None without one)


class RawCounter(Protocol):
    """What the clock needs of a cycle counter."""

    def read(self) -> Any:
        """One raw reading, now; cheap, and never raises."""
        ...

    def between(self, begins: Sequence[Any], ends: Sequence[Any]) -> Mapping[str, Array]:
        """What was counted from each of ``begins`` to its end, by quantity; int64, -1 where not measured."""
        ...


class _Listener:
    """Who hears the ticks now: None between traced moments. (Only the worker runs graphs.)"""

    hear: Callable[[int], None] | None = None


_listener = _Listener()
_libraries: list[Any] = []  # an operator lives as long as the library that defined it


@functools.cache
def tick_operator() -> Any:
    """``tickscope::tick(Tensor x, int number) -> ()``, registered once in a process.

    It does nothing with ``x`` but come after it. It returns nothing, because the empty tensor that such examples return costs
    more than all the rest of a tick.
    """
    import torch
    from torch.library import Library, register_fake

    def tick(x: torch.Tensor, number: int) -> None:
        hear = _listener.hear
        if hear is not None:
            hear(number)

    library = Library("tickscope", "FRAGMENT")
    _libraries.append(library)
    library.define("tick(Tensor x, int number) -> ()")
    library.impl("tick", tick, "CompositeExplicitAutograd")
    register_fake("tickscope::tick", lambda x, number: None, lib=library)
    operator = torch.ops.tickscope.tick.default
    keep_in_order(operator)
    return operator


def ticks_in(graph: torch.fx.Graph) -> list[int]:
    """The numbers of the ticks in a captured graph, in their order."""
    operator = tick_operator()
    return [int(node.args[1]) for node in graph.nodes if node.op == "call_function" and node.target is operator]


@dataclass(frozen=True)
class _Piece:
    row: int
    path: str
    entry: int  # numbers of its ticks
    exit: int
    ticks_at_exit: bool  # False: the exit is the entry of the next piece


class TickClock:
    """Times the pieces of one model in its compiled graph. ``install`` and ``remove`` are called around traced moments.

    Args:
        model: the model; it stays as it is. ``twin`` is what has to be compiled instead for a graph with ticks.
        rows: the pieces that are timed, as (row in ``named_modules`` order, dotted path), none inside another. Neighbours in a
            list of modules share a tick: the exit of one is the entry of the next.

    ``counter`` may be set between moments: it is then read at every tick, and spans get its columns. ``problem`` is None, or
    the sentence that says why the graph cannot be timed.
    """

    def __init__(self, model: torch.nn.Module, rows: Sequence[tuple[int, str]]) -> None:
        self.counter: RawCounter | None = None
        self.problem: str | None = None
        self._pieces = _pieces(rows)
        self._log: Log = []
        self._plan: list[int] = []
        self.twin = _ticking_twin(model, self._pieces)

    @property
    def expected(self) -> int:
        """Ticks in every traced moment: those of the graph compiled last, 0 before there is one."""
        return len(self._plan)

    def planned(self, numbers: Sequence[int]) -> None:
        """A graph was captured (again) that has these ticks; ``problem`` is set if pieces cannot be told from them."""
        self._plan = list(numbers)
        self.problem = _plan_problem(self._pieces, self._plan)

    def install(self) -> None:
        """Listen to the ticks from here on."""
        self._log.clear()  # of a moment that was cut short
        add, now, counter = self._log.append, time.perf_counter_ns, self.counter
        if counter is None:
            _listener.hear = lambda number: add((number, now(), None))
        else:
            read = counter.read
            _listener.hear = lambda number: add((number, now(), read()))

    def remove(self) -> None:
        """Stop listening."""
        _listener.hear = None

    def collect(self, recorder: Recorder, moment: int, start_ns: int, duration_ns: int) -> str | None:
        """Append the spans of the traced moment just ended: the pieces in their order, and the model itself.

        Args:
            recorder: where to; times become relative to its origin.
            moment: row the moment will have.
            start_ns: the moment's start, as ``perf_counter_ns``.
            duration_ns: the moment's length, which becomes the span of the model itself.

        Returns:
            None, or one sentence that says why nothing was appended (a tick missing, or one too many).
        """
        log, plan = list(self._log), self._plan
        self._log.clear()
        if self.problem is not None:
            return self.problem
        if [number for number, _, _ in log] != plan or not plan:
            wanted = f"{len(plan)} in their order were expected" if plan else "its graph has none"
            return f"The compiled graph ticked {len(log)} times where {wanted}, so this moment has no layer times."
        place = {number: index for index, number in enumerate(plan)}
        pieces = sorted((piece for piece in self._pieces if piece.entry in place), key=lambda piece: place[piece.entry])
        first = np.array([place[piece.entry] for piece in pieces])
        last = np.array([place[piece.exit] for piece in pieces])
        times = np.array([time_ns for _, time_ns, _ in log], np.int64)
        durations = times[last] - times[first]
        columns = {
            "moment": np.full(len(pieces) + 1, moment),
            "layer": np.array([*(piece.row for piece in pieces), 0]),
            "start_ns": np.append(times[first], start_ns) - recorder.origin_ns,
            "duration_ns": np.append(durations, duration_ns),
            "self_ns": np.append(durations, duration_ns - durations.sum()),
        }
        recorder.spans.extend(columns | self._counted(log, first, last))
        return None

    def _counted(self, log: Log, first: Array, last: Array) -> dict[str, Array]:
        """The counter's columns of the pieces; nothing is known of the model itself, whose ends have no tick."""
        raws = [raw for _, _, raw in log]
        if self.counter is None or any(raw is None for raw in raws):
            return {}
        counts = self.counter.between([raws[index] for index in first], [raws[index] for index in last])
        return {name: np.append(values, NOT_MEASURED) for name, values in counts.items() if name in SPAN_COLUMNS}


def _pieces(rows: Sequence[tuple[int, str]]) -> list[_Piece]:
    """Number the ticks."""
    pieces: list[_Piece] = []
    number = 0
    for index, (row, path) in enumerate(rows):
        following = rows[index + 1][1] if index + 1 < len(rows) else ""
        shared = _follows(path, following)
        pieces.append(_Piece(row, path, number, number + 1, ticks_at_exit=not shared))
        number += 1 if shared else 2
    return pieces


def _follows(path: str, following: str) -> bool:
    """Whether the second path is the next element of the list that holds the first."""
    above, _, name = path.rpartition(".")
    its_above, _, its_name = following.rpartition(".")
    return above == its_above and name.isdigit() and its_name.isdigit() and int(its_name) == int(name) + 1


def _plan_problem(pieces: Iterable[_Piece], plan: Sequence[int]) -> str | None:
    """Why these ticks do not tell the pieces apart: a sentence, or None. A piece that the graph does not use has no ticks."""
    if not plan:
        return "The compiled graph kept none of the clock's ticks, so it has no layer times."
    places = {number: index for index, number in enumerate(plan)}
    spans = []
    for piece in pieces:
        if piece.entry not in places:
            continue
        if piece.exit not in places or places[piece.exit] <= places[piece.entry]:
            return f"The compiled graph does not leave {piece.path} where it should, so it has no layer times."
        spans.append((places[piece.entry], places[piece.exit], piece.path))
    spans.sort()
    overlapping = any(after[0] < before[1] for before, after in itertools.pairwise(spans))
    if overlapping or len(places) != len(plan):
        return "The model runs blocks more than once or inside each other, so its compiled graph has no layer times."
    return None


# -- ticks on a model -----------------------------------------------------------------------------------------------------


def _ticking_twin(model: torch.nn.Module, pieces: Iterable[_Piece]) -> torch.nn.Module:
    """A twin of the model whose pieces tick."""
    twin = shallow_clone(model)
    for piece in pieces:
        module = twin.get_submodule(piece.path)
        give_forward(module, _ticking(module.forward, piece))
    return twin


def _ticking(forward: Forward, piece: _Piece) -> Forward:
    tick = tick_operator()
    entry, exit_number, ticks_at_exit = piece.entry, piece.exit, piece.ticks_at_exit

    @functools.wraps(forward)
    def ticking(*args: Any, **kwargs: Any) -> Any:
        tick(_tensor((*args, *kwargs.values())), entry)
        output = forward(*args, **kwargs)
        if ticks_at_exit:
            tick(_tensor((output,)), exit_number)
        return output

    return ticking


def _tensor(values: Iterable[Any]) -> Any:
    """The first tensor among a layer's arguments, or in what it returned."""
    import torch

    for value in values:
        if isinstance(value, torch.Tensor):
            return value
        if isinstance(value, tuple | list) and value and isinstance(value[0], torch.Tensor):
            return value[0]
    raise TypeError("a layer without tensors cannot be timed in a compiled graph")
