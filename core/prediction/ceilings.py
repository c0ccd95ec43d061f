"""Ceilings: what this machine can read, multiply and call at most, measured with torch alone in a second or two."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any, TypeVar

from core import torch_private
from core.machine_facts import is_doubtful, is_remembered, remembered
from core.records.roofline import Ceilings

Key = TypeVar("Key", int, str)

CEILINGS = "ceilings"
"""Under which they are remembered."""

MIB = 1 << 20
READ_BYTES = (MIB // 2, 2 * MIB, 8 * MIB, 32 * MIB, 64 * MIB, 128 * MIB, 256 * MIB)
"""From what fits a core's own cache to what fits no shared one (on most machines): 2 to 10 ms for the largest."""
READ_NS = 30_000_000  # for each size
SIDES = (256, 512, 1024)
PRODUCT_NS = 30_000_000  # the largest square product that is expected to take less
MOST_CALLS = 20
LEAST_CALLS = 4  # one may be disturbed, and so may the next
MOST_ROUNDS = 4
STEADY = 1.1  # a round that finds nothing faster by more than this has found nothing new
MATRIX_UNITS = {"bfloat16": "amx_bf16", "float16": "amx_fp16", "int8": "amx_int8"}
"""By type the unit, as ``torch.cpu.get_capabilities`` names it, that multiplies it several times as fast as float32."""

CALLS = 40
NO_OPERATORS = ("__get__", "size", "dim", "stride", "is_floating_point", "element_size", "numel", "data_ptr", "is_contiguous")


def ceilings() -> Ceilings:
    """Those of this machine with the threads that torch has now; measured once and remembered."""
    import torch

    found = remembered(CEILINGS, _measured)
    reads = tuple((int(size), float(speed)) for size, speed in found["reads"])
    return Ceilings(torch.get_num_threads(), reads, found["operations_per_s"], found["operator_ns"])


def known_ceilings() -> Ceilings | None:
    """As ``ceilings``, but None where nobody has asked for them yet: measuring takes a second that a run should not wait.

    None too where others computed meanwhile: what was found then is no ceiling (layers were 3.6 times as fast as "at most").
    """
    return ceilings() if is_remembered(CEILINGS) and not is_doubtful(CEILINGS) else None


def _measured() -> dict[str, Any]:
    import torch

    with torch.no_grad():
        reads = _steadied(_reads, _unlikely_reads)
        return {
            "reads": sorted(reads.items()),
            "operations_per_s": _steadied(_products, _unlikely_products),
            "operator_ns": min(_operator_ns() for _ in range(2)),
        }


def _steadied(measure: Callable[[], dict[Key, float]], unlikely: Callable[[dict[Key, float]], bool]) -> dict[Key, float]:
    """The best of several rounds, as disturbing only makes slower: until one adds little and nothing is unlikely."""
    found = measure()
    for _ in range(MOST_ROUNDS - 1):
        again = measure()
        best = {name: max(speed, again.get(name, 0.0)) for name, speed in found.items()}
        steady = all(best[name] <= STEADY * speed for name, speed in found.items())
        found = best
        if steady and not unlikely(found):
            break
    return found


def _unlikely_reads(found: dict[int, float]) -> bool:
    """Whether something small is read more slowly than something larger."""
    speeds = [found[size] for size in sorted(found)]
    return any(STEADY * one < max(speeds[place:]) for place, one in enumerate(speeds))


def _unlikely_products(found: dict[str, float]) -> bool:
    """Whether a type for which the processor has a matrix unit multiplies more slowly than float32.

    Without such a unit it may: measured on a Xeon whose AMX the hypervisor hides, bfloat16 has half the operations of float32.
    """
    import torch

    able = torch.cpu.get_capabilities()
    return any(able.get(unit, False) and found.get(name, 0.0) < found["float32"] for name, unit in MATRIX_UNITS.items())


def _reads() -> dict[int, float]:
    """Bytes per second by size: a sum, which reads all and writes nothing."""
    import torch

    buffer = torch.ones(READ_BYTES[-1] // 4)  # ones: untouched zero pages would all be one page
    found = {}
    for size in READ_BYTES:
        part = buffer[: size // 4]
        found[size] = 1e9 * size / _best_ns(lambda part=part: part.sum(), READ_NS)  # type: ignore[misc]
    return found


def _products() -> dict[str, float]:
    """Operations per second of square products as linear layers call them, by type; types without a product are left out."""
    found: dict[str, float] = {}
    for name in ("float32", "bfloat16", "float16", "int8"):
        for side in SIDES:
            expected_ns = 2e9 * side**3 / found[name] if name in found else 0.0
            if expected_ns > PRODUCT_NS:
                break
            call = _product(name, side)
            try:
                call()  # the first makes what later ones use again
            except (RuntimeError, NotImplementedError):
                break  # this torch or processor has no such product
            found[name] = max(found.get(name, 0.0), 2e9 * side**3 / _best_ns(call, PRODUCT_NS // 2))
    return found


def _product(name: str, side: int) -> Callable[[], Any]:
    import torch

    if name == "int8":
        inside = torch.ones(side, side, dtype=torch.uint8)
        weight = torch.ones(side, side, dtype=torch.int8).t()
        product = torch_private.int8_product()
        return lambda: product(inside, weight)
    one = torch.ones(side, side, dtype=getattr(torch, name))
    return lambda: torch.nn.functional.linear(one, one)


def _operator_ns() -> float:
    """From one small operator to the next in a module such as models are made of: norm, halves turned, gate, residual."""
    import torch

    class Small(torch.nn.Module):
        """About twenty operators; how many is counted as models' are."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
            heads = normed.view(1, 1, 4, 16).transpose(1, 2)
            turned = torch.cat((-heads[..., 8:], heads[..., :8]), -1)
            mixed = heads * turned + turned
            return torch.nn.functional.silu(mixed).transpose(1, 2).reshape(1, 1, 64) + x

    small, x = Small(), torch.ones(1, 1, 64)
    count = operators_of(lambda: small(x))

    def several() -> None:
        for _ in range(CALLS):
            small(x)

    return _best_ns(several, PRODUCT_NS) / (CALLS * count)


def operators_of(call: Callable[[], object]) -> int:
    """How many of torch's operators one call runs, views included, as they are called from Python.

    Counted at torch's Python functions: a ``TorchDispatchMode`` would see more of what happens inside of them, but imports
    torch's compiler for it, which takes seconds.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Counter(TorchFunctionMode):
        """Counts and passes on; asking for an attribute such as ``shape`` is no operator."""

        def __init__(self) -> None:
            super().__init__()
            self.count = 0

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += getattr(func, "__name__", "") not in NO_OPERATORS
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Counter() as counter:
        call()
    return counter.count


def _best_ns(call: Callable[[], object], budget_ns: int) -> float:
    """The shortest of the calls that fit the budget: what disturbs a call only ever makes it longer."""
    best, spent, calls = float("inf"), 0, 0
    while calls < LEAST_CALLS or (spent < budget_ns and calls < MOST_CALLS):
        start = perf_counter_ns()
        call()
        taken = perf_counter_ns() - start
        best, spent, calls = min(best, taken), spent + taken, calls + 1
    return best
