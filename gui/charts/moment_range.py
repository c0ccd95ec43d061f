"""Which moments a chart over moments shows, so that the same moment is at the same place in all of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from core.analysis.select import warming
from core.records.run import Run
from profilers.trace import Tag

LEFT_AXIS, RIGHT_STRIP = 92, 90  # pixels beside the plot, for names of layers at the left and the colour bar at the right
BEFORE, AFTER = 0.012, 0.005  # of the range that is left free at its ends


class MomentRange(NamedTuple):
    """From ``low`` to ``high`` on the axis; ``folded`` moments of warm-up lie before it, out of sight."""

    low: float
    high: float
    folded: int


def moment_range(run: Run, *, warmup: bool) -> MomentRange:
    """Moments so far, or all that are planned while a run is going; those under torch.profiler at its end are not drawn.

    ``warmup``: those of warm-up are wanted. They are shown anyway as long as there is nothing else.
    """
    tags = run.trace.moments["tags"]
    drawn = np.flatnonzero((tags & Tag.PROFILED) == 0)
    last = float(drawn[-1]) + 1 if len(drawn) else 1.0
    if run.facts.status == "running":
        last = max(last, float(run.facts.planned_moments))
    counts = np.flatnonzero(~warming(run))
    folded = int(counts[0]) if len(counts) and not warmup else 0
    span = last - folded
    return MomentRange(folded - BEFORE * span, last + AFTER * span, folded)
