"""Draws the latency of each moment."""

from __future__ import annotations

from typing import Any

import numpy as np

from core import units
from core.analysis import series
from core.analysis.drawn import without_profiled
from core.export.chart_elements import beside, dots
from core.export.chart_style import ChartFrame, font, frame
from core.presentation.marks import ABOVE, PERTURBED, of_kind
from core.presentation.palette import ChartColours
from core.presentation.ticks import labelled
from core.records.run import Run
from profilers.trace import KINDS, Array


def draw_latency(run: Run, theme: str) -> ChartFrame:
    """Latency per moment: clean filled, traced hollow, perturbed crossed, warm-up pale; what is off the scale is counted."""
    shown, _ = without_profiled(run)
    chart = frame("Latency per moment", run, theme)
    value = np.where(np.isnan(shown.latency_ms), shown.duration_ms, shown.latency_ms)
    if not len(value):
        chart.empty("No moment was measured.")
        return chart
    axes = chart.axes(left=0.85, right=1.15)
    counted = ~shown.warmup if (~shown.warmup).any() else np.full(len(value), True)
    top = robust_top(value[counted], shown.kind[counted])
    _moments(axes, chart.look, shown, value, top)
    _stragglers(axes, chart.look, shown.moment, value, top)
    if shown.clean_median_ms is not None:
        axes.axhline(shown.clean_median_ms, color=chart.look.text, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        beside(chart, axes, shown.clean_median_ms, f"median\n{units.duration(shown.clean_median_ms * 1e6)}")
    width = max(int(shown.moment[-1]) + 1, shown.planned if run.facts.status == "running" else 0)
    axes.set_xlim(-0.01 * width - 0.5, 1.01 * width - 0.5)
    axes.set_ylim(0, top)
    chart.ticks(axes.xaxis, *labelled(0, width - 1, 8, whole=True))
    chart.ticks(axes.yaxis, *labelled(0, top, 5), grid=True)
    chart.axis_label(axes.xaxis, "moment")
    chart.axis_label(axes.yaxis, "time to token, ms" if np.isfinite(shown.latency_ms).any() else "time, ms")
    chart.legend(_entries(chart.look, shown))
    return chart


def _moments(axes: Any, look: ChartColours, shown: series.LatencySeries, value: Array, top: float) -> None:
    plain = ~shown.perturbed & (value <= top)
    for number in np.unique(shown.kind):
        kind = KINDS[number]
        for warmup in (True, False):  # what counts lies on top
            for traced in (False, True):
                chosen = plain & (shown.kind == number) & (shown.traced == traced) & (shown.warmup == warmup)
                at = shown.moment[chosen], value[chosen]
                dots(axes, *at, look.kinds[kind], hollow=traced, pale=warmup, mark=of_kind(kind))
    crossed = shown.perturbed & (value <= top)
    dots(axes, shown.moment[crossed], value[crossed], look.perturbed, mark=PERTURBED)


def _stragglers(axes: Any, look: ChartColours, moment: Array, value: Array, top: float) -> None:
    above = np.flatnonzero(value > top)
    if not len(above):
        return
    axes.plot(moment[above], np.full(len(above), top), ABOVE.matplotlib, color=look.perturbed, markersize=4.5, clip_on=False)
    text = f"{ABOVE.sign} {len(above)} above, up to {units.duration(float(value[above].max()) * 1e6)}"
    axes.annotate(
        text,
        (1, 1),
        xycoords="axes fraction",
        xytext=(0, 6),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=look.muted,
        fontproperties=font(text, 7.5),
    )


def _entries(look: ChartColours, shown: series.LatencySeries) -> list[tuple[str, dict[str, Any]]]:
    names = [KINDS[number] for number in np.unique(shown.kind)]
    entries: list[tuple[str, dict[str, Any]]] = [
        (name.replace("_", " "), {"marker": of_kind(name).matplotlib, "color": look.kinds[name]}) for name in names
    ]
    entries.append(("clean", {"marker": "o", "color": look.muted}))
    if shown.traced.any():
        entries.append(("traced", {"marker": "o", "markerfacecolor": "none", "markeredgecolor": look.muted}))
    if shown.perturbed.any():
        entries.append(("perturbed", {"marker": PERTURBED.matplotlib, "color": look.perturbed, "markeredgewidth": 1.4}))
    if shown.warmup.any():
        entries.append(("warm-up", {"marker": "o", "color": look.muted, "alpha": 0.38}))
    return entries


def robust_top(value: Array, kind: Array) -> float:
    """A y limit that shows the bulk of every kind: its upper quartile and six times the middle half's width, never above its
    maximum; single stragglers (a compilation, a swap) are left out.
    """
    tops = []
    for number in np.unique(kind):
        mine = value[kind == number]
        low, high = np.percentile(mine, [25, 75])
        tops.append(min(float(mine.max()), float(high + max(6 * (high - low), 0.5 * high))))
    return 1.12 * max(tops, default=float(value.max())) or 1.0
