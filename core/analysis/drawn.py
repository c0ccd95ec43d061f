"""What of a run's latency is drawn, in the window and in pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from core.analysis.select import tagged
from core.analysis.series import LatencySeries, latency
from core.records.run import Run
from profilers.trace import Tag

_PER_MOMENT = ("moment", "duration_ms", "latency_ms", "kind", "traced", "perturbed", "warmup")


def without_profiled(run: Run) -> tuple[LatencySeries, int]:
    """The latency series without moments under torch.profiler, and how many these are.

    They are slower by a factor that says nothing about the model, and would squeeze all others to the foot of the chart.
    Moments keep their numbers.
    """
    data = latency(run)
    profiled = tagged(run.trace.moments, Tag.PROFILED)[data.moment]
    count = int(np.count_nonzero(profiled))
    if not count:
        return data, 0
    return replace(data, **{name: getattr(data, name)[~profiled] for name in _PER_MOMENT}), count
