"""Runs on a thread of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.execution.executors.base import DEFAULT, Executor, executors

if TYPE_CHECKING:
    from core.clock.gate import Gate
    from core.execution.carriers.base import Carrier
    from core.execution.jobs.base import Listener


def _carrier(gate: Gate, listener: Listener) -> Carrier:
    from core.execution.carriers.local import LocalCarrier

    return LocalCarrier(gate, listener)


executors.register(
    lambda: Executor(
        DEFAULT,
        "In this process",
        "The worker is a thread of the window's process: the quickest to start",
        short="",
        place=0,
        survives=False,
        make=_carrier,
    )
)
