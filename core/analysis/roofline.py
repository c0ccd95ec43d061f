"""The roofline: how long a model's products must take at least, from bytes and operations, and so what a pass should gain.

A product takes as long as reading its weights or as multiplying them, whichever is longer (Williams, Waterman and Patterson,
"Roofline", 2009). Between products stand small eager operators, which take about the same time each, whatever they compute.
Everything here is arithmetic on numbers; they are measured in ``core.engine.ceilings`` and counted in ``core.passes.work``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from core import units

FAR = 1.25
"""Where the measured layers and the roofline differ by more than this, a prediction says so."""

UNCHANGED = "None: it changes neither the bytes read nor the operations."
OTHER_ENGINE = "None: another engine runs kernels of its own, of which bytes and operations tell too little."


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
class Product:
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

    def read_bytes(self, rows: int) -> float:
        """Bytes of the held weight that so many rows need, each chosen expert counted anew until all are read."""
        return min(1.0, self.share * rows) * self.held_bytes


@dataclass(frozen=True)
class Work:
    """What a forward does. ``operators`` None: they could not be counted."""

    products: tuple[Product, ...]
    operators: int | None


@dataclass(frozen=True)
class Step:
    """One sort of moment: how many rows go through the layers, and how many through the head."""

    kind: str  # "decode", "prefill", "forward"
    rows: int
    head_rows: int

    def rows_of(self, product: Product) -> int:
        """Rows that go through this product; 0: it does not run."""
        return 0 if product.once and self.kind == "decode" else self.head_rows if product.head else self.rows


def product_ns(product: Product, rows: int, ceilings: Ceilings, read_per_s: float) -> float:
    """The least time of one product in ns: of reading or of multiplying, and of unpacking where its kernel does that.

    An unpacked weight was just written, so it is read at the speed that a buffer of its size has.
    """
    direct = product.direct_rows is None or rows <= product.direct_rows
    arithmetic = product.arithmetic if direct else product.unpacked_arithmetic
    reading = product.read_bytes(rows) / read_per_s
    if not direct:
        reading += 2 * product.unpacked_bytes / ceilings.read_per_s(product.unpacked_bytes)
    return 1e9 * max(reading, 2 * product.macs * rows / ceilings.operations(arithmetic))


def step_bytes(work: Work, step: Step) -> float:
    """Bytes of weights that a step reads."""
    return sum(product.read_bytes(step.rows_of(product)) for product in work.products)


def step_operations(work: Work, step: Step) -> float:
    """Operations of a step's products."""
    return sum(2.0 * product.macs * step.rows_of(product) for product in work.products)


def step_ns(work: Work, step: Step, ceilings: Ceilings, factors: Mapping[str, float] | None = None) -> float:
    """The least time of a step in ns.

    Args:
        work: what it does.
        step: for how many rows.
        ceilings: of this machine.
        factors: how many times longer than that measured layers take, by the form of their weights; None: 1.
    """
    read_per_s = ceilings.read_per_s(step_bytes(work, step))
    products = 0.0
    for product in work.products:
        rows = step.rows_of(product)
        if rows:
            products += product_ns(product, rows, ceilings, read_per_s) * (factors or {}).get(product.form, 1.0)
    return products + (work.operators or 0) * ceilings.operator_ns


@dataclass(frozen=True)
class Timed:
    """Layers of one shape and form, each called in turn with so many rows."""

    paths: tuple[str, ...]
    form: str
    rows: int
    macs: int  # of all of them, for all rows
    taken_ns: float
    least_ns: float  # by the roofline, their operators included

    @property
    def factor(self) -> float:
        """How many times longer than the roofline says."""
        return self.taken_ns / self.least_ns


@dataclass(frozen=True)
class State:
    """A model between two passes. ``timed`` is by kind of moment."""

    work: Work
    ceilings: Ceilings
    timed: Mapping[str, Timed] = field(default_factory=dict)


# -- predicting -----------------------------------------------------------------------------------------------------------


def predict(before: State, after: State, steps: Sequence[Step]) -> tuple[dict[str, float], str]:
    """The gain that a pass should have, and what that rests on.

    Args:
        before: the model as the pass found it.
        after: the model as the pass left it.
        steps: the moments of the workload.

    Returns:
        Time before over time after by kind of moment, from bytes and operations alone; and sentences that say how many there
        are, at what speed, and how fast the layers were really, where that is something else. ({}, reason) if nothing changed.
    """
    if before.work == after.work and before.ceilings == after.ceilings:
        return {}, UNCHANGED
    found, told = {}, []
    for step in steps:
        after_ns = step_ns(after.work, step, after.ceilings)
        if not after_ns:
            continue
        found[step.kind] = step_ns(before.work, step, before.ceilings) / after_ns
        told.append(_rests_on(before, after, step))
        told.append(_really(before, after, step, found[step.kind]))
    told.append(_operators(before, after))
    return found, " ".join(sentence for sentence in told if sentence) if found else UNCHANGED


def _rests_on(before: State, after: State, step: Step) -> str:
    """``A token reads 513 MiB → 134 MiB of weights at 28 → 31 GB/s.``"""
    sizes = [step_bytes(state.work, step) for state in (before, after)]
    speeds = [units.number(state.ceilings.read_per_s(size) / 1e9) for state, size in zip((before, after), sizes, strict=True)]
    reads = f"reads {_arrow(*map(units.size, sizes))} of weights at {_arrow(*speeds)} GB/s"
    if step.kind == "decode":
        return f"A token {reads}."
    rows = f"{step.rows} position{'' if step.rows == 1 else 's'}"
    multiplies = _arrow(*(units.count(step_operations(state.work, step)) for state in (before, after)))
    peaks = _arrow(*(f"{units.count(_peak(state, step))}/s" for state in (before, after)))
    return f"A {step.kind} of {rows} {reads}, and makes {multiplies} operations at up to {peaks}."


def _peak(state: State, step: Step) -> float:
    """Operations per second in the numbers in which most of the step is multiplied."""
    by_arithmetic: dict[str, float] = {}
    for product in state.work.products:
        rows = step.rows_of(product)
        direct = product.direct_rows is None or rows <= product.direct_rows
        name = product.arithmetic if direct else product.unpacked_arithmetic
        by_arithmetic[name] = by_arithmetic.get(name, 0.0) + product.macs * rows
    return state.ceilings.operations(max(by_arithmetic, key=lambda name: by_arithmetic[name], default="float32"))


def _operators(before: State, after: State) -> str:
    counts = [state.work.operators for state in (before, after)]
    if counts[0] is None or counts[1] is None:
        return "Small operators could not be counted and are left out."
    costs = _arrow(*(units.duration(state.ceilings.operator_ns) for state in (before, after)))
    return f"Besides, a forward calls {_arrow(*(str(count) for count in counts))} operators of about {costs} each."


def _really(before: State, after: State, step: Step, predicted: float) -> str:
    """What timed layers say, where it is not what the roofline says; "" where they agree or were not timed."""
    old, new = before.timed.get(step.kind), after.timed.get(step.kind)
    if old is None or new is None or old.paths != new.paths or old.form == new.form:
        return ""
    expected = expected_gain(before, after, step)
    if max(expected / predicted, predicted / expected) <= FAR:
        return ""
    layers = f"{len(new.paths)} layers such as {new.paths[0]}" if len(new.paths) > 1 else new.paths[0]
    rows = "one row" if new.rows == 1 else f"{new.rows} rows"
    rates = _arrow(*(units.number(one.macs / one.taken_ns) for one in (old, new)))
    least = units.number(new.macs / new.least_ns)
    return (
        f"But tried with {rows}, {layers} ran {units.ratio(old.taken_ns / new.taken_ns)} as fast as before, where bytes and"
        f" operations say {units.ratio(old.least_ns / new.least_ns)}: {rates} multiplications a nanosecond, of {least} that"
        f" they would allow; expect about {units.ratio(expected)} for the {step.kind}, not {units.ratio(predicted)}."
    )


def expected_gain(before: State, after: State, step: Step) -> float:
    """The gain with each form of weights as many times slower than the roofline as its timed layers were."""
    old, new = before.timed[step.kind], after.timed[step.kind]
    first = {old.form: old.factor}
    return step_ns(before.work, step, before.ceilings, first) / step_ns(
        after.work, step, after.ceilings, {**first, new.form: new.factor}
    )


def compiled_gain(state: State, step: Step) -> tuple[dict[str, float], str]:
    """What a graph gains whose products are the same and which calls no small operator one by one."""
    if state.work.operators is None:
        return {}, "None: the bytes and operations are the same, and the operators that go could not be counted."
    least = step_ns(Work(state.work.products, 0), step, state.ceilings)
    if not least:
        return {}, "None: the model has no products."
    calls = f"{state.work.operators} operators of about {units.duration(state.ceilings.operator_ns)}"
    sentence = f"The graph reads the same {units.size(step_bytes(state.work, step))}; what goes is the time of {calls} each."
    timed = state.timed.get(step.kind)
    found = {step.kind: step_ns(state.work, step, state.ceilings) / least}
    if timed is None or timed.factor <= FAR:
        return found, sentence
    slower = step_ns(state.work, step, state.ceilings, {timed.form: timed.factor})
    rest = step_ns(Work(state.work.products, 0), step, state.ceilings, {timed.form: timed.factor})
    return found, (
        f"{sentence} But tried alone, layers take {units.number(timed.factor)} times as long as bytes and operations say: if"
        f" the graph keeps their kernels, expect about {units.ratio(slower / rest)}."
    )


def _arrow(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"
