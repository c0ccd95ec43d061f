"""The tripwire: how a cancel takes effect inside a long forward pass without costing clean moments anything.

Nothing is installed until someone cancels; then the cancelling thread replaces every layer's ``forward`` by one that raises,
so the worker stops at the next layer it calls.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from profilers.layer_clock import forward_slots

if TYPE_CHECKING:
    import torch


SLOTS = ("forward", "_compiled_call_impl")
"""Where a call of a module is looked up; the layer clock may stand in either."""


class CancelPatch:
    """One per run. ``pull`` is for any thread, ``clear`` for the worker."""

    def __init__(self, model: torch.nn.Module, error: type[BaseException]) -> None:
        self._error = error
        self._places = [
            (module.__dict__, slot, module.__dict__.get(slot)) for _row, module in forward_slots(model) for slot in SLOTS
        ]
        self._lock = threading.Lock()
        self._cleared = False
        self.armed = True  # the engine takes it off in moments that are short and whose compiled graph guards its modules

    def pull(self) -> None:
        """Make the next layer call raise."""

        def tripped(*_args: Any, **_kwargs: Any) -> Any:
            raise self._error

        with self._lock:
            if not self._cleared and self.armed:
                for place, slot, _own in self._places:
                    place[slot] = tripped

    def clear(self) -> None:
        """Give every layer back what it had when the run began; later pulls do nothing."""
        with self._lock:
            self._cleared = True
            for place, slot, own in self._places:
                if own is None:
                    place.pop(slot, None)
                else:
                    place[slot] = own
