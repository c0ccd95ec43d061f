"""Runs in a process of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.execution.executors.base import Executor, executors

if TYPE_CHECKING:
    from core.clock.gate import Gate
    from core.execution.carriers.base import Carrier
    from core.execution.jobs.base import Listener


def _carrier(gate: Gate, listener: Listener) -> Carrier:
    from core.execution.carriers.child import ChildCarrier

    return ChildCarrier(gate, listener)


executors.register(
    lambda: Executor(
        "child",
        "In its own process",
        "Model, passes and instruments get a process of their own. If it crashes, hangs or is killed, what was measured is "
        "kept and the window lives on; memory and compile time are those of that process",
        short="in its own process",
        place=1,
        survives=True,
        make=_carrier,
    )
)
