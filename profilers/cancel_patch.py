"""The cancel patch: how a cancel takes effect inside a long forward pass without costing clean moments anything.

Nothing is installed until someone cancels; then the cancelling thread replaces every layer's ``forward`` by one that raises,
so the worker stops at the next layer it calls.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from profilers.forward_patch import Forward, ForwardPatch, Order, Slot
from profilers.layer_clock import forward_slots

if TYPE_CHECKING:
    import torch


class CancelPatch:
    """One per run. ``pull`` is for any thread, ``clear`` for the worker."""

    def __init__(self, model: torch.nn.Module, error: type[BaseException]) -> None:

        def tripped(*_args: Any, **_kwargs: Any) -> Any:
            raise error

        def instead(_forward: Forward) -> Forward:
            return tripped

        layers = [(module, instead) for _row, module in forward_slots(model)]
        self._patch = ForwardPatch(Order.CANCEL, layers, Slot.BOTH)
        self._lock = threading.Lock()
        self._cleared = False
        self.armed = True  # the engine takes it off in moments that are short and whose compiled graph guards its modules

    def pull(self) -> None:
        """Make the next layer call raise."""
        with self._lock:
            if not self._cleared and self.armed:
                self._patch.push()

    def clear(self) -> None:
        """Take it off every layer; later pulls do nothing."""
        with self._lock:
            self._cleared = True
            self._patch.pop()
