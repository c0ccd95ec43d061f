"""Draws an A/B test round by round: each side's time over A's, its interval, and the noise floor around 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.export.chart_elements import beside
from core.export.chart_style import ChartFrame, framed, provenance
from core.presentation.ticks import labelled
from core.records.run import Run

MARKERS = ("o", "s", "D", "v")


@dataclass(frozen=True)
class RoundsSide:
    """One side but the first. ``ratios`` is one value per round (NaN: none); the rest is its verdict, None where unknown."""

    name: str
    ratios: Sequence[float]
    ratio: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Rounds:
    """What the chart shows: ``metric`` is what was timed, ``limits`` the axis, ``floor`` the noise floor (None: unknown)."""

    metric: str
    sides: Sequence[RoundsSide]
    limits: tuple[float, float]
    floor: float | None = None
    below: str = ""  # what took turns


def draw_rounds(shown: Rounds, run: Run, theme: str) -> ChartFrame:
    """Dots by round, bands for intervals, grey for the floor; rounds beyond the axis are crosses at its edge."""
    chart = framed(f"A/B test, round by round: {shown.metric}", shown.below, provenance(run), theme)
    axes = chart.axes(left=0.85, right=1.15)
    low, high = shown.limits
    if shown.floor is not None:
        axes.axhspan(1 - shown.floor, 1 + shown.floor, color=chart.look.muted, alpha=0.22, linewidth=0)
    axes.axhline(1, color=chart.look.muted, linewidth=0.9, linestyle=(0, (4, 3)))
    entries: list[tuple[str, dict[str, Any]]] = []
    rounds = 1
    for number, side in enumerate(shown.sides):
        colour, marker = chart.look.series[number], MARKERS[number]
        ratios = np.asarray(side.ratios, np.float64)
        rounds = max(rounds, len(ratios))
        at, known = np.arange(1, len(ratios) + 1), np.isfinite(ratios)
        inside = known & (ratios > low) & (ratios < high)
        axes.plot(at[inside], ratios[inside], marker, color=colour, markersize=4.5, linestyle="none")
        outside = known & ~inside
        edge = np.clip(ratios[outside], low, high)
        axes.plot(at[outside], edge, "x", color=colour, markersize=5, linestyle="none", clip_on=False)
        if side.low is not None and side.high is not None:
            axes.axhspan(side.low, side.high, color=colour, alpha=0.2, linewidth=0)
        if side.ratio is not None:
            axes.axhline(side.ratio, color=colour, linewidth=1.2)
            beside(chart, axes, side.ratio, f"{side.name}\n{side.ratio:.3f}")
        entries.append((f"{side.name} ÷ A", {"marker": marker, "color": colour}))
    axes.set_xlim(0, rounds + 0.5)
    axes.set_ylim(low, high)
    chart.ticks(axes.xaxis, *labelled(0, rounds, 8, whole=True))
    values = np.linspace(low, high, 6)
    chart.ticks(axes.yaxis, values.tolist(), [f"{value:.3f}" for value in values], grid=True)
    chart.axis_label(axes.xaxis, "round")
    chart.axis_label(axes.yaxis, "time, side ÷ A (below 1 is faster)")
    entries.append(("band: 95 % interval", {"marker": "s", "color": chart.look.series[0], "alpha": 0.3}))
    if shown.floor is not None:
        entries.append(("noise floor", {"marker": "s", "color": chart.look.muted, "alpha": 0.4}))
    chart.legend(entries)
    return chart
