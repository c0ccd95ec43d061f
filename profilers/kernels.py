"""The operator profiler: runs a moment under ``torch.profiler`` and names every operator of every layer.

Such a moment is several times slower than a clean one, so it is a third kind, in a request of its own after all others. While
it lasts each layer's ``forward`` opens a range in the profiler's own record, so operators and ranges are on one clock and the
innermost range around an operator is its layer, whatever raises in between.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from profilers import kineto
from profilers.attribution import LAYER, MARK, aligned, columns_of
from profilers.base import Reading
from profilers.forward_patch import Forward, ForwardPatch, Order
from profilers.layer_clock import forward_slots
from profilers.torch_private import record_label
from profilers.trace import Recorder

if TYPE_CHECKING:
    import torch

# Marks at each end, of which the tightest counts: the first ones in a process take long.
_MARKS = 5

_NO_KINETO = "this build of PyTorch has no profiler (Kineto); install an official build"


class KernelProfiler:
    """Profiles single moments of one model; ``start`` and ``stop`` (or ``install`` and ``remove``) are called with the clock
    stopped, ``collect`` after them. Rows are ``named_modules`` order, as of the layer clock.

    Args:
        model: whose layers operators belong to.
        labels: False for compiled moments, whose graph would be compiled anew for layers with a label; then every operator
            belongs to the model itself (row 0).
    """

    def __init__(self, model: torch.nn.Module, *, labels: bool = True, framed: Sequence[torch.nn.Module] = ()) -> None:
        slots = forward_slots(model, framed) if labels else ()
        self._patch = ForwardPatch(Order.LABEL, [(module, partial(_labelled, LAYER + str(row))) for row, module in slots])
        self._session: Any = None  # of the moment under way, or stopped and not collected
        self._running = False
        self._marks: list[tuple[int, int]] = []  # perf_counter_ns before and after each one began
        self._problem: str | None = None
        self._moments = self._operators = self._aligned_within_ns = 0
        self._on_device = False

    def start(self) -> None:
        """Start the profiler and put a label on every layer."""
        assert not self._running
        session = kineto.profiler(record_shapes=True, with_flops=True, profile_memory=True)
        import torch

        self._problem = None if torch.profiler.kineto_available() else _NO_KINETO
        if self._problem is not None:
            return
        session.start()
        self._session, self._running = session, True
        self._marks.clear()
        self._mark()
        self._patch.push()

    def stop(self) -> None:
        """Take the labels off, each layer has again just what it had, and stop the profiler. Again: nothing."""
        if not self._running:
            return
        self._running = False
        self._patch.pop()
        self._mark()
        self._session.stop()

    install, remove = start, stop  # what the engine calls them of any clock

    def collect(self, recorder: Recorder, moment: int, start_ns: int, duration_ns: int | None = None) -> str | None:
        """Append the operators of the moment just profiled.

        Args:
            recorder: where to; times become relative to its origin.
            moment: row the moment will have.
            start_ns: the moment's start, as ``perf_counter_ns``; what began before is left out.
            duration_ns: the moment's length; what began later is left out. None: until ``stop``.

        Returns:
            A sentence where nothing could be recorded.
        """
        session, self._session = self._session, None
        if self._problem is not None or session is None:
            return self._problem
        events, within = aligned(kineto.events_of(session), self._marks)
        end_ns = self._marks[-1][1] if duration_ns is None else start_ns + duration_ns
        columns = columns_of(events, recorder, start_ns, end_ns, within)
        columns["moment"] = np.full(len(columns["name"]), moment)
        recorder.operators.extend(columns)
        self._moments += 1
        self._operators += len(columns["name"])
        self._aligned_within_ns = max(self._aligned_within_ns, within)
        self._on_device = self._on_device or bool(events.on_device.any())
        return None

    def facts(self) -> dict[str, Any]:
        """Source, moments profiled, operators seen, and how well their times fit the moments' (worst, in ns)."""
        found: dict[str, Any] = {
            "source": "torch.profiler (Kineto)",
            "moments": self._moments,
            "operators": self._operators,
            "aligned_within_ns": self._aligned_within_ns,
        }
        if not len(self._patch):
            found["layers"] = "operators of a compiled graph belong to no layer"
        if self._on_device:
            found["device"] = "not verified on hardware"
        return found

    def _mark(self) -> None:
        """Ranges whose start is known by both clocks."""
        label = record_label()
        for _ in range(_MARKS):
            mark = label(MARK)
            before = time.perf_counter_ns()
            with mark:
                self._marks.append((before, time.perf_counter_ns()))


def _labelled(name: str, forward: Forward) -> Forward:

    label = record_label()

    @functools.wraps(forward)  # transformers looks at the signature of ``forward``
    def labelled(*args: Any, **kwargs: Any) -> Any:
        with label(name):  # a new one each time: a layer may call itself
            return forward(*args, **kwargs)

    return labelled


class KernelInstrument:
    """How the operator profiler appears among the instruments; the engine drives it, so it is not sampled."""

    id = "kernels"
    title = "Operators and kernels"
    summary = "names every operator of every layer, in a last request of its own, several times slower"
    period_s: float | None = None
    by_default = False

    def check(self) -> str | None:
        """Works with every official build of PyTorch; another one says so when it is used."""
        return None

    def open(self, recorder: Recorder) -> Reading:
        """Never: the engine starts a ``KernelProfiler`` for single moments."""
        raise AssertionError("the operator profiler is not sampled")


INSTRUMENT = KernelInstrument()
