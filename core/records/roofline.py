"""The roofline: how long a model's products must take at least, from bytes and operations, and so what a pass should gain.

A product takes as long as reading its weights or as multiplying them, whichever is longer (Williams, Waterman and Patterson,
"Roofline", 2009). Between products stand small eager operators, which take about the same time each, whatever they compute.
Everything here is arithmetic on numbers, which come from ``core.prediction``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from core import units
from core.messages.reason import Reason
from core.pass_api.base import none_because

FAR = 1.25
"""Where the measured layers and the roofline differ by more than this, a prediction says so."""

Shape = tuple[int, int, str]
"""Inputs, outputs and form of a layer's weight: layers of one shape take the same time."""

UNCHANGED = none_because(Reason("records.unchanged"))
OTHER_ENGINE = none_because(Reason("records.other-engine"))


@dataclass(frozen=True)
class Ceilings:
    """What this machine can do at most with so many threads.

    Args:
        threads: of torch.
        reads: (bytes, bytes per second) in ascending order: how fast a buffer of that size is read again and again; what fits
            a cache is read from it.
        operations_per_s: of a large product, two per multiplication and addition, by the type of its numbers.
        operator_ns: from one small eager operator to the next, Python included.
    """

    threads: int
    reads: tuple[tuple[int, float], ...]
    operations_per_s: Mapping[str, float]
    operator_ns: float

    def read_per_s(self, size_bytes: float) -> float:
        """Bytes per second for ``size_bytes`` that are read in turn: between two measured sizes in proportion to their logs."""
        sizes = [math.log(size) for size, _ in self.reads]
        place = min(max(math.log(max(size_bytes, 1.0)), sizes[0]), sizes[-1])
        after = next(number for number, size in enumerate(sizes) if size >= place)
        high = self.reads[after][1]
        if after == 0:
            return high
        low, share = self.reads[after - 1][1], (place - sizes[after - 1]) / (sizes[after] - sizes[after - 1])
        return low + share * (high - low)

    def operations(self, arithmetic: str) -> float:
        """Operations per second in these numbers; those of float32 for numbers that were not measured."""
        return self.operations_per_s.get(arithmetic, self.operations_per_s["float32"])


@dataclass(frozen=True)
class MatMul:
    """A layer that multiplies what it is given with a weight.

    Args:
        path: of its module.
        inputs: numbers per row that go in.
        outputs: numbers per row that come out.
        macs: multiplications per row.
        held_bytes: of the weight as it is held, scales included.
        form: what the weight is held as: "float32", "bfloat16", "int8", "int4" ...
        arithmetic: in what numbers it is multiplied.
        direct_rows: up to so many rows the weight is multiplied as it is held (None: always); for more it is first unpacked.
        unpacked_bytes: of the unpacked weight, which is written and read again.
        unpacked_arithmetic: in what numbers that one is multiplied.
        share: of the weight that one row reads (of experts those that were chosen).
        head: only the last position of a prompt goes through it.
        once: belongs to an encoder, which runs once for all tokens.
    """

    path: str
    inputs: int
    outputs: int
    macs: int
    held_bytes: int
    form: str
    arithmetic: str
    direct_rows: int | None = None
    unpacked_bytes: int = 0
    unpacked_arithmetic: str = ""
    share: float = 1.0
    head: bool = False
    once: bool = False

    @property
    def shape(self) -> Shape:
        """What its time depends on."""
        return self.inputs, self.outputs, self.form

    def read_bytes(self, rows: int) -> float:
        """Bytes of the held weight that so many rows need, each chosen expert counted anew until all are read."""
        return min(1.0, self.share * rows) * self.held_bytes


@dataclass(frozen=True)
class LayerProduct:
    """What a session keeps of a ``Product``, whose fields these are: enough to say how fast the layer worked."""

    macs: int
    held_bytes: int
    arithmetic: str
    share: float = 1.0
    head: bool = False
    once: bool = False

    def read_bytes(self, rows: float) -> float:
        """As ``Product.read_bytes``."""
        return min(1.0, self.share * rows) * self.held_bytes


@dataclass(frozen=True)
class ForwardCost:
    """What a forward does. ``operators`` None: they could not be counted."""

    products: tuple[MatMul, ...]
    operators: int | None


@dataclass(frozen=True)
class Step:
    """One sort of moment: how many rows go through the layers, and how many through the head."""

    kind: str  # "decode", "prefill", "forward"
    rows: int
    head_rows: int

    def rows_of(self, product: MatMul) -> int:
        """Rows that go through this product; 0: it does not run."""
        return 0 if product.once and self.kind == "decode" else self.head_rows if product.head else self.rows


def product_ns(product: MatMul, rows: int, ceilings: Ceilings, read_per_s: float) -> float:
    """The least time of one product in ns: of reading or of multiplying, and of unpacking where its kernel does that.

    An unpacked weight was just written, so it is read at the speed that a buffer of its size has.
    """
    direct = product.direct_rows is None or rows <= product.direct_rows
    arithmetic = product.arithmetic if direct else product.unpacked_arithmetic
    reading = product.read_bytes(rows) / read_per_s
    if not direct:
        reading += 2 * product.unpacked_bytes / ceilings.read_per_s(product.unpacked_bytes)
    return 1e9 * max(reading, 2 * product.macs * rows / ceilings.operations(arithmetic))


def step_bytes(work: ForwardCost, step: Step) -> float:
    """Bytes of weights that a step reads."""
    return sum(product.read_bytes(step.rows_of(product)) for product in work.products)


def step_operations(work: ForwardCost, step: Step) -> float:
    """Operations of a step's products."""
    return sum(2.0 * product.macs * step.rows_of(product) for product in work.products)


@dataclass(frozen=True)
class ShapeTiming:
    """Layers of one shape, called one after another with so many rows."""

    paths: tuple[str, ...]
    shape: Shape
    rows: int
    macs: int  # of all of them, for all rows
    taken_ns: float
    least_ns: float  # by the roofline, their operators included
    operators: int = 0  # that one of these layers calls by itself,
    operator_ns: float = 0.0  # and what each of them takes at least

    @property
    def factor(self) -> float:
        """How many times longer than the roofline says."""
        return self.taken_ns / self.least_ns


@dataclass(frozen=True)
class ModelState:
    """A model between two passes. ``timed`` is by kind of moment; layers that could not be tried are missing in it."""

    work: ForwardCost
    ceilings: Ceilings
    timed: Mapping[str, tuple[ShapeTiming, ...]] = field(default_factory=dict)


def step_ns(state: ModelState, step: Step, *, tried: bool = True, operators: bool = True) -> float:
    """The time of a step in ns.

    Args:
        state: the model and the machine.
        step: for how many rows.
        tried: whether layers take as many times longer than their least time as those of their shape that were tried did
            (others of the same form: as the slowest of these, others still: as the roofline says). False: all the least time.
        operators: whether small operators are counted.
    """
    layers_ns = in_layers_ns(state, step, tried=tried, operators=operators)
    return layers_ns + (operators_between(state, step) * state.ceilings.operator_ns if operators else 0.0)


def in_layers_ns(state: ModelState, step: Step, *, tried: bool = True, operators: bool = True) -> float:
    """The time of a step inside its layers, with the operators that layers call themselves; arguments as in ``step_ns``.

    A layer that quantizes what it is given calls a dozen small operators on one row. These are as short as the shortest, and
    were tried with the layer: they are no operators between layers, among which are attention and the cache.
    """
    by_shape = {timed.shape: timed for timed in state.timed.get(step.kind, ())}
    by_form: dict[str, float] = {}
    for timed in by_shape.values() if tried else ():
        by_form[timed.shape[2]] = max(timed.factor, by_form.get(timed.shape[2], 0.0))
    read_per_s = state.ceilings.read_per_s(step_bytes(state.work, step))
    total = 0.0
    for product in state.work.products:
        rows = step.rows_of(product)
        if not rows:
            continue
        least, known = product_ns(product, rows, state.ceilings, read_per_s), by_shape.get(product.shape)
        if known is None:
            total += least * by_form.get(product.form, 1.0)
        else:
            own = known.operators * known.operator_ns if operators else 0.0
            total += (least + own) * (known.factor if tried else 1.0)
    return total


def operators_between(state: ModelState, step: Step) -> int:
    """How many small operators a step calls between its layers: all, less those of layers that were tried with their own."""
    inside = {timed.shape: timed.operators for timed in state.timed.get(step.kind, ())}
    own = sum(inside.get(product.shape, 0) for product in state.work.products if step.rows_of(product))
    return max(0, (state.work.operators or 0) - own)


# -- predicting -----------------------------------------------------------------------------------------------------------


def predict(before: ModelState, after: ModelState, steps: Sequence[Step]) -> tuple[dict[str, float], Reason]:
    """The gain that a pass should have, and what that rests on.

    Args:
        before: the model as the pass found it.
        after: the model as the pass left it.
        steps: the moments of the workload.

    Returns:
        Time before over time after by kind of moment, from bytes and operations and from layers that were tried; and sentences
        that say how many bytes and operations there are, at what speed, and where the layers are slower than that. ({}, reason)
        if nothing changed.
    """
    if before.work == after.work and before.ceilings == after.ceilings:
        return {}, UNCHANGED
    found: dict[str, float] = {}
    told: list[Reason | None] = []
    for step in steps:
        after_ns = step_ns(after, step)
        if not after_ns:
            continue
        found[step.kind] = step_ns(before, step) / after_ns
        told += [_rests_on(before, after, step), _really(before, after, step, found[step.kind])]
    told.append(_operators(before, after, steps[-1]))
    return found, sentences(*told) if found else UNCHANGED


def sentences(*told: Reason | None) -> Reason:
    """Several sentences one after the other; None is left out."""
    return Reason("records.sentences", sentences=tuple(one for one in told if one is not None))


def _rests_on(before: ModelState, after: ModelState, step: Step) -> Reason:
    """``Decode reads 513 MiB → 134 MiB of weights at 28 → 31 GB/s.``"""
    sizes = [step_bytes(state.work, step) for state in (before, after)]
    speeds = [units.number(state.ceilings.read_per_s(size) / 1e9) for state, size in zip((before, after), sizes, strict=True)]
    reads = Reason("records.reads", sizes=_arrow(*map(units.size, sizes)), speeds=_arrow(*speeds))
    if step.kind == "decode":
        return Reason("records.token-reads", reads=reads)
    multiplies = _arrow(*(units.count(step_operations(state.work, step)) for state in (before, after)))
    peaks = _arrow(*(f"{units.count(_peak(state, step))}/s" for state in (before, after)))
    return Reason("records.step-reads", kind=step.kind, n=step.rows, reads=reads, operations=multiplies, peaks=peaks)


def _peak(state: ModelState, step: Step) -> float:
    """Operations per second in the numbers in which most of the step is multiplied."""
    by_arithmetic: dict[str, float] = {}
    for product in state.work.products:
        rows = step.rows_of(product)
        direct = product.direct_rows is None or rows <= product.direct_rows
        name = product.arithmetic if direct else product.unpacked_arithmetic
        by_arithmetic[name] = by_arithmetic.get(name, 0.0) + product.macs * rows
    return state.ceilings.operations(max(by_arithmetic, key=lambda name: by_arithmetic[name], default="float32"))


def _operators(before: ModelState, after: ModelState, step: Step) -> Reason:
    if before.work.operators is None or after.work.operators is None:
        return Reason("records.operators-not-counted")
    counts = [operators_between(state, step) for state in (before, after)]
    costs = _arrow(*(units.duration(state.ceilings.operator_ns) for state in (before, after)))
    return Reason("records.operators-called", counts=_arrow(*(str(count) for count in counts)), costs=costs)


def _really(before: ModelState, after: ModelState, step: Step, predicted: float) -> Reason | None:
    """What the layers that were tried change about the roofline's gain; None where they agree or were not tried."""
    alone = step_ns(before, step, tried=False) / step_ns(after, step, tried=False)
    if max(alone / predicted, predicted / alone) <= FAR:
        return None
    old = max(before.timed.get(step.kind, ()), key=lambda one: one.taken_ns, default=None)
    new = max(after.timed.get(step.kind, ()), key=lambda one: one.taken_ns - one.least_ns, default=None)
    worst = new if new is not None and (old is None or new.factor > old.factor) else old
    if worst is None:
        return None
    if worst is new:
        return Reason("records.tried-now", alone=alone, n=worst.rows, path=worst.paths[0], factor=worst.factor, gain=predicted)
    return Reason("records.tried-before", alone=alone, n=worst.rows, path=worst.paths[0], factor=worst.factor, gain=predicted)


def compiled_gain(state: ModelState, step: Step) -> tuple[dict[str, float], Reason]:
    """What a graph gains whose products are the same and which calls no small operator one by one."""
    if state.work.operators is None:
        return {}, none_because(Reason("records.operators-unknown"))
    rest = step_ns(state, step, operators=False)
    if not rest:
        return {}, none_because(Reason("records.no-products"))
    sentence = Reason(
        "records.operators-go",
        read_bytes=step_bytes(state.work, step),
        n=state.work.operators,
        operator_ns=state.ceilings.operator_ns,
    )
    return {step.kind: step_ns(state, step) / rest}, sentence


def _arrow(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"
