"""Draws each chart of a run with matplotlib's objects from the series that the live charts show too."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from core import units
from core.analysis import series
from core.export.chart_elements import beside, few_rows, spread_out
from core.export.chart_style import HEADER_IN, MARGIN_IN, WIDTH_IN, ChartFrame, font, frame
from core.presentation.ticks import labelled
from core.records.run import Run

MEMORY_TITLES = {"kv_cache": "KV cache"}


def draw_memory(run: Run, theme: str) -> ChartFrame:
    """Resident memory by kind, stacked."""
    shown = series.memory(run)
    chart = frame("Memory", run, theme)
    look = chart.look
    if not len(shown.time_s):
        lines = series.allocated(run)
        if lines:
            return _draw_allocated(chart, lines)
        chart.empty("Memory was not sampled in this run.")
        return chart
    axes = chart.axes(left=0.85, right=1.7)
    factor, unit = (1 / 1024, "GiB") if sum(values.max() for values in shown.kinds.values()) > 10240 else (1.0, "MiB")
    stack = np.cumsum([values * factor for values in shown.kinds.values()], axis=0)
    below = np.zeros(len(shown.time_s))
    for kind, upper in zip(shown.kinds, stack, strict=True):
        axes.fill_between(shown.time_s, below, upper, color=look.memory[kind], linewidth=0)
        below = upper
    axes.plot(shown.time_s, below, color=look.text, linewidth=0.9, alpha=0.8)
    top = float(stack[-1].max()) * 1.12
    axes.set_xlim(0, max(float(shown.time_s[-1]), 1e-6))
    axes.set_ylim(0, top)
    ends = [0.0, *(float(upper[-1]) for upper in stack)]
    middles = [(low + high) / 2 for low, high in pairwise(ends)]
    gap = 0.085 * top
    for (kind, values), y in zip(shown.kinds.items(), spread_out(middles, gap), strict=True):
        name = MEMORY_TITLES.get(kind, kind)
        beside(chart, axes, y, f"{name}  {units.size(float(values[-1]) * (1 << 20))}", color=look.memory[kind])
    chart.ticks(axes.xaxis, *labelled(0, float(shown.time_s[-1]), 8))
    chart.ticks(axes.yaxis, *labelled(0, top, 5), grid=True)
    chart.axis_label(axes.xaxis, "time, s")
    chart.axis_label(axes.yaxis, f"resident memory, {unit}")
    return chart


def _draw_allocated(chart: ChartFrame, lines: Sequence[series.TrackSeries]) -> ChartFrame:
    """Allocated bytes of each device, as an imported trace tells them."""
    axes, colors = chart.axes(left=0.85, right=1.7), list(chart.look.memory.values())[::-1]
    lines = lines[: len(colors)]
    top = 1.12 * max(float(line.value.max()) for line in lines) or 1.0
    end = max(float(line.time_s[-1]) for line in lines)
    for line, color in zip(lines, colors, strict=False):
        axes.step(line.time_s, line.value, where="post", color=color, linewidth=1.1)
    heights = spread_out([float(line.value[-1]) for line in lines], 0.085 * top)
    for line, color, y in zip(lines, colors, heights, strict=False):
        beside(chart, axes, y, f"{line.title}  {units.size(float(line.value[-1]) * (1 << 20))}", color=color)
    axes.set_xlim(0, max(end, 1e-6))
    axes.set_ylim(0, top)
    chart.ticks(axes.xaxis, *labelled(0, max(end, 1e-6), 8))
    chart.ticks(axes.yaxis, *labelled(0, top, 5), grid=True)
    chart.axis_label(axes.xaxis, "time, s")
    chart.axis_label(axes.yaxis, "allocated memory, MiB")
    return chart


def draw_heat(run: Run, theme: str) -> ChartFrame:
    """Layer × moment: colour is the layer's total time in that moment."""
    shown = series.heat(run)
    chart = frame("Layer clock", run, theme, height_in=5.4)
    if not shown.milliseconds.size:
        chart.empty("No layer was traced in this run.")
        return chart
    from matplotlib.colors import PowerNorm

    axes = chart.axes(left=1.3, right=1.35)
    values = np.ma.masked_invalid(shown.milliseconds)
    finite = shown.milliseconds[np.isfinite(shown.milliseconds)]
    top = float(np.percentile(finite, 98.5)) or 1.0
    cut = bool(finite.max() > top * 1.001)
    # The root spreads the many short layers over the colours; a linear scale would give most of them to the few long ones.
    picture = axes.imshow(
        values, aspect="auto", interpolation="nearest", cmap="viridis", norm=PowerNorm(0.5, 0, top), rasterized=True
    )
    chosen = few_rows(shown.labels, most=21)
    chart.ticks(axes.yaxis, chosen, [shown.labels[row] for row in chosen])
    first, last = int(shown.moments[0]), int(shown.moments[-1])
    numbers, labels = labelled(first, last, 9, whole=True)
    chart.ticks(axes.xaxis, np.interp(numbers, shown.moments, np.arange(len(shown.moments))).tolist(), labels)
    chart.axis_label(axes.xaxis, "moment (traced ones only)")
    box = axes.get_position()
    side = chart.figure.add_axes((1 - 1.1 / WIDTH_IN, box.y0, 0.14 / WIDTH_IN, box.height))
    bar = chart.figure.colorbar(picture, cax=side)
    bar.outline.set_visible(False)
    side.tick_params(length=0, pad=5)
    ticks, labels = labelled(0, top, 5)
    chart.ticks(side.yaxis, ticks, [f"{text} ms" if text == labels[-1] else text for text in labels])
    if cut:
        note = f"up to {units.duration(float(finite.max()) * 1e6)}"
        side.set_title(note, fontproperties=font(note, 7.5), color=chart.look.muted, pad=5)
    return chart


def draw_stages(run: Run, theme: str) -> ChartFrame:
    """Where the time of a median moment goes, longest first."""
    shown = series.stages(run)
    chart = frame("Where the time goes", run, theme, height_in=1.5 + 0.36 * max(len(shown.stages), 3))
    look = chart.look
    if not shown.stages:
        chart.empty(f"No layer of a {shown.kind} moment was traced in this run.")
        return chart
    scaled = "scaled to clean time" if shown.scaled_to == "clean" else f"{shown.scaled_to} time"
    note = f"median {shown.kind.replace('_', ' ')} moment, {scaled}"
    chart.text(WIDTH_IN - MARGIN_IN, 0.45, note, color=look.muted, ha="right")
    axes = chart.axes(left=1.25, right=1.7, bottom=0.42)
    order = np.argsort(shown.time_ms)
    rows = np.arange(len(order))
    colors = [look.stages[shown.stages[number]] for number in order]
    axes.barh(rows, shown.time_ms[order], height=0.56, color=colors, linewidth=0)
    longest = float(shown.time_ms.max())
    axes.set_xlim(0, longest)
    axes.set_ylim(-0.6, len(order) - 0.4)
    for row, number in zip(rows, order, strict=True):
        time, share = units.duration(float(shown.time_ms[number]) * 1e6), units.percent(float(shown.share[number]))
        at = {"xy": (shown.time_ms[number], row), "textcoords": "offset points", "va": "center", "annotation_clip": False}
        drawn = axes.annotate(time, xytext=(7, 0), color=look.text, fontproperties=font(time, 9, "Medium"), **at)
        width_pt = drawn.get_window_extent(chart.figure.canvas.get_renderer()).width * 72 / chart.figure.dpi
        axes.annotate(share, xytext=(13 + width_pt, 0), color=look.muted, fontproperties=font(share, 9), **at)
    chart.ticks(axes.xaxis, [], [])
    titles = [shown.titles[number] for number in order]
    chart.ticks(axes.yaxis, rows.tolist(), titles, size=9)
    return chart


def draw_machine(run: Run, theme: str) -> ChartFrame:
    """The machine's counters as small multiples with one time axis."""
    tracks = [track for track in series.machine(run) if len(track.time_s)]
    columns = min(3, len(tracks)) or 1
    rows = -(-len(tracks) // columns) or 1
    chart = frame("Machine", run, theme, height_in=1.3 + 1.75 * rows)
    look = chart.look
    if not tracks:
        chart.empty("The machine's counters were not sampled in this run.")
        return chart
    end_s = max(float(track.time_s[-1]) for track in tracks)
    gutter = 0.35
    cell = (WIDTH_IN - 2 * MARGIN_IN + gutter) / columns
    for number, track in enumerate(tracks):
        row, column = divmod(number, columns)
        left, top = MARGIN_IN + column * cell, HEADER_IN + 0.3 + 1.75 * row
        axes = chart.axes(left=left + 0.42, right=WIDTH_IN - left - cell + gutter, top=top, bottom=chart.height_in - top - 1.05)
        color = look.series[number % len(look.series)]
        axes.plot(track.time_s, track.value, color=color, linewidth=1.1, solid_joinstyle="round")
        high = float(np.nanmax(track.value)) * 1.15 or 1.0
        axes.set_xlim(0, max(end_s, 1e-6))
        axes.set_ylim(0, high)
        chart.text(left, top - 0.12, track.title, size=9, weight="Medium")
        median = units.number(float(np.nanmedian(track.value)))
        chart.text(left + cell - gutter, top - 0.12, f"median {median} {track.unit}", color=look.muted, ha="right")
        chart.ticks(axes.yaxis, *labelled(0, high, 4), grid=True, size=7.5)
        chart.ticks(axes.xaxis, *labelled(0, end_s, 4), size=7.5)
    chart.text(MARGIN_IN, chart.height_in - 0.2, "time, s", size=7.5, color=look.muted)
    return chart
