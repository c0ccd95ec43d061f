"""Draws speed against quality, a point per run, and the front of those that no other run beats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from core.analysis.speed_quality import COSTS, NO_QUALITY, Point, behind_said
from core.export.chart_style import ChartFrame, font, framed
from core.presentation.palette import ChartColours
from core.presentation.ticks import labelled

LEAST_COST = 1e-7
"""Smaller costs are told as they are, and drawn here: they are rounding, and would stretch the axis."""

LEAST_DECADES = 2
PLACES: Sequence[tuple[tuple[int, int], str, str]] = (
    ((9, 4), "left", "bottom"),
    ((-9, 4), "right", "bottom"),
    ((9, -4), "left", "top"),
    ((-9, -4), "right", "top"),
)
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def cost_axis(found: Iterable[float | None]) -> tuple[float, float]:
    """Lowest and highest whole power of ten of an axis of these costs; costs of 0 stand one decade further left."""
    costs = [max(cost, LEAST_COST) for cost in found if cost]
    if not costs:
        return -4.0, -1.0
    low, high = math.floor(math.log10(min(costs)) + 1e-9), math.ceil(math.log10(max(costs)) - 1e-9)
    return float(min(low, high - LEAST_DECADES)), float(high)


def cost_place(cost: float, low: float) -> float:
    """Where a cost stands on the axis that begins at 10**low: its logarithm; 0 stands a decade before it."""
    return low - 1.0 if cost <= 0 else max(math.log10(max(cost, LEAST_COST)), low)


def power(exponent: int) -> str:
    """A power of ten as people write it: 0.01, 10⁻⁵."""
    return f"{10.0**exponent:g}" if -3 <= exponent <= 4 else f"10{str(exponent).translate(_SUPERSCRIPTS)}"


def cost_text(cost: float | None) -> str:
    """A cost as text: "0", "0.0123", "4.2·10⁻⁶"; a dash where it was not measured."""
    if cost is None:
        return "—"
    if cost == 0:
        return "0"
    if abs(cost) >= 0.9995e-4:
        return f"{cost:.3g}"
    exponent = math.floor(math.log10(abs(cost)))
    return f"{cost / 10.0**exponent:.1f}·{power(exponent)}"


def axis_title(points: Sequence[Point]) -> str:
    """What the axis of costs is."""
    title, unit = COSTS[next((one.cost_kind for one in points if not one.apart), "kld")]
    which = " (worse of bulk and decode)" if any(one.cost_path for one in points if not one.apart) else ""
    return f"{title}, {unit}{which}" if unit else f"{title}{which}"


def stairs(points: Sequence[Point], low: float, right: float) -> tuple[list[float], list[float]]:
    """The front as a line: what speed there is at most for each cost."""
    front = sorted((cost_place(one.cost or 0.0, low), one.speed) for one in points if one.on_front)
    xs: list[float] = []
    ys: list[float] = []
    front = [step for number, step in enumerate(front) if step[1] > max((one[1] for one in front[:number]), default=0.0)]
    for (x, speed), (following, _) in zip(front, [*front[1:], (right, 0.0)], strict=False):
        xs += [x, following]
        ys += [speed, speed]
    return xs, ys


def left_out(points: Sequence[Point]) -> str:
    """How many runs are not drawn or pale, and why; "" if none is."""
    apart = sum(bool(one.apart) and one.cost is not None for one in points)
    missing = sum(one.cost is None for one in points)
    parts = [f"{apart} pale: not comparable"] if apart else []
    return " · ".join([*parts, f"{missing} left out: quality not measured"] if missing else parts)


def point_table(points: Sequence[Point]) -> Mapping[str, Sequence[Any]]:
    """The points as columns."""
    return {
        "run": [one.run_id for one in points],
        "name": [one.name for one in points],
        "passes": [" + ".join(one.passes) for one in points],
        "speed": [one.speed for one in points],
        "low": [one.low for one in points],
        "high": [one.high for one in points],
        "speed_unit": [one.speed_unit for one in points],
        "cost": [one.cost for one in points],
        "cost_error": [one.cost_error for one in points],
        "cost_kind": [one.cost_kind for one in points],
        "cost_path": [one.cost_path for one in points],
        "cost_bulk": [one.cost_bulk for one in points],
        "cost_decode": [one.cost_decode for one in points],
        "on_front": [one.on_front for one in points],
        "not_comparable": [str(one.apart or (NO_QUALITY if one.cost is None else "")) for one in points],
    }


def draw_speed_quality(points: Sequence[Point], theme: str) -> ChartFrame:
    """Speed over quality cost: unoptimized a diamond, the front filled and joined, the rest hollow, runs apart pale."""
    model = next((one.model for one in points if not one.apart), "")
    torch = next((one.setting.get("environment.torch") for one in points if not one.apart), None)
    made_by = " · ".join(["Tickscope", *([f"torch {torch}"] if torch else [])])
    drawn = [one for one in points if one.cost is not None]
    note = left_out(points)
    chart = framed("Speed × quality", " · ".join(part for part in (model, note) if part), made_by, theme)
    if not drawn:
        chart.empty("No run of this session has a speed and a quality cost.")
        return chart
    low, high = cost_axis(one.cost for one in drawn)
    right = high + 0.3
    axes = chart.axes(left=0.95, right=0.5)
    top = 1.12 * max(one.high or one.speed for one in drawn)
    axes.set_xlim(low - 1.35, right)
    axes.set_ylim(0, top)
    xs, ys = stairs(drawn, low, right)
    axes.plot(xs, ys, color=chart.look.series[0], linewidth=1.2, alpha=0.7, zorder=1)
    axes.axvline(low - 0.5, color=chart.look.grid, linewidth=1, linestyle=(0, (2, 3)), zorder=0)
    for one in drawn:
        _draw_point(axes, chart.look, one, low)
    _name_points(chart, axes, drawn, low)
    decades = list(range(round(low), round(high) + 1))
    chart.ticks(axes.xaxis, [low - 1.0, *map(float, decades)], ["0", *(power(exponent) for exponent in decades)])
    chart.ticks(axes.yaxis, *labelled(0, top, 6), grid=True)
    chart.axis_label(axes.xaxis, axis_title(drawn))
    unit = next((one.speed_unit for one in drawn if not one.apart), "tok/s")
    chart.axis_label(axes.yaxis, f"decode, {unit}" if unit == "tok/s" else f"speed, {unit}")
    chart.legend(_entries(chart.look, drawn))
    return chart


def _style(look: ChartColours, one: Point) -> dict[str, Any]:
    if one.apart:
        return {"marker": "o", "markerfacecolor": "none", "markeredgecolor": look.muted, "alpha": 0.45}
    if one.baseline:
        return {"marker": "D", "color": look.text}
    colour = look.series[0]
    return {"marker": "o", "color": colour} if one.on_front else {"marker": "o", "markerfacecolor": look.card, "color": colour}


def _draw_point(axes: Any, look: ChartColours, one: Point, low: float) -> None:
    x = cost_place(one.cost or 0.0, low)
    colour = look.muted if one.apart else look.text if one.baseline else look.series[0]
    pale = 0.4 if one.apart else 0.8
    if one.low is not None and one.high is not None:
        axes.plot([x, x], [one.low, one.high], color=colour, linewidth=1, alpha=pale, zorder=2)
    if one.cost and one.cost_error:
        ends = [cost_place(max(one.cost + sign * one.cost_error, 10.0**low), low) for sign in (-1, 1)]
        axes.plot(ends, [one.speed, one.speed], color=colour, linewidth=1, alpha=pale, zorder=2)
    axes.plot([x], [one.speed], linestyle="none", markersize=7, zorder=3, **_style(look, one))


def _name_points(chart: ChartFrame, axes: Any, drawn: Sequence[Point], low: float) -> None:
    """The front and the unoptimized model first, then the rest as far as there is room; no name on another or on a point."""
    renderer = chart.figure.canvas.get_renderer()
    taken = []
    for one in drawn:
        x, y = axes.transData.transform((cost_place(one.cost or 0.0, low), one.speed))
        taken.append((x - 11, y - 11, x + 11, y + 11))
    xs, ys = stairs(drawn, low, axes.get_xlim()[1])
    corners = [tuple(axes.transData.transform(corner)) for corner in zip(xs, ys, strict=True)]
    for (x, y), (x1, y1) in pairwise(corners):
        taken.append((min(x, x1) - 2, min(y, y1) - 2, max(x, x1) + 2, max(y, y1) + 2))
    frame = axes.get_window_extent(renderer)
    for one in sorted((one for one in drawn if not one.apart), key=lambda one: (not one.on_front, not one.baseline)):
        text = " + ".join(one.passes) or "unoptimized"
        text = text if len(text) <= 40 else f"{text[:39]}…"
        for offset, ha, va in PLACES:
            label = axes.annotate(
                text,
                (cost_place(one.cost or 0.0, low), one.speed),
                xytext=offset,
                textcoords="offset points",
                ha=ha,
                va=va,
                color=chart.look.muted,
                fontproperties=font(text, 8),
            )
            box = label.get_window_extent(renderer)
            edges = (box.x0, box.y0, box.x1, box.y1)
            inside = box.x0 >= frame.x0 and box.x1 <= frame.x1 + 40 and box.y1 <= frame.y1 + 12 and box.y0 >= frame.y0
            if inside and not any(_overlap(edges, other) for other in taken):
                taken.append(edges)
                break
            label.remove()


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _entries(look: ChartColours, drawn: Sequence[Point]) -> list[tuple[str, dict[str, Any]]]:
    blue = look.series[0]
    entries: list[tuple[str, dict[str, Any]]] = [
        ("unoptimized", {"marker": "D", "color": look.text}),
        ("not behind another", {"marker": "o", "color": blue}),
        (behind_said(drawn), {"marker": "o", "markerfacecolor": "none", "markeredgecolor": blue}),
    ]
    if any(one.apart for one in drawn):
        entries.append(
            ("not comparable", {"marker": "o", "markerfacecolor": "none", "markeredgecolor": look.muted, "alpha": 0.5})
        )
    return entries
