"""The pieces that exported charts share: dots, labels beside the axes, label placement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.export.chart_style import ChartFrame, font
from core.presentation.marks import DOT, PERTURBED, Mark
from profilers.trace import Array

MANY_POINTS = 4000
"""Beyond this vector files hold the dots as a picture, or they would be slow to open."""


def dots(axes: Any, x: Array, y: Array, color: str, *, hollow: bool = False, pale: bool = False, mark: Mark = DOT) -> None:
    """Dots at (x, y): filled or hollow, pale for what does not count."""
    if len(x):
        face = {"markerfacecolor": "none"} if hollow else {"markeredgecolor": "none"} if mark != PERTURBED else {}
        size = (3.6 if len(x) < 1500 else 2.4) * (1.0 if mark == PERTURBED else mark.scale)
        edge = 0.8 if hollow else 1.2
        axes.plot(
            x,
            y,
            mark.matplotlib,
            color=color,
            markersize=size,
            markeredgewidth=edge,
            alpha=0.38 if pale else 0.9,
            rasterized=len(x) > MANY_POINTS,
            **face,
        )


def beside(chart: ChartFrame, axes: Any, y: float, text: str, color: str | None = None) -> None:
    """A label right of the axes at height ``y``, with a swatch of ``color``."""
    offset = 8
    if color:
        axes.annotate(
            "■",
            (1, y),
            xycoords=("axes fraction", "data"),
            xytext=(offset, 0),
            textcoords="offset points",
            va="center",
            color=color,
            fontproperties=font("■", 8),
            annotation_clip=False,
        )
        offset += 12
    axes.annotate(
        text,
        (1, y),
        xycoords=("axes fraction", "data"),
        xytext=(offset, 0),
        textcoords="offset points",
        va="center",
        color=chart.look.muted,
        fontproperties=font(text.replace("\n", ""), 8),
        annotation_clip=False,
    )


def few_rows(labels: Sequence[str], most: int) -> list[int]:
    """Rows to label so that at most about ``most`` fit without touching: both ends first, then every fifth or tenth block."""
    gap = -(-len(labels) // most)
    step = 1 if gap == 1 else 5 if len(labels) <= 60 else 10
    blocks = [row for row, label in enumerate(labels) if label[-1].isdigit()]
    named = sorted(set(range(len(labels))) - set(blocks))
    chosen: list[int] = []
    for row in (0, len(labels) - 1, *blocks[::step], *named):
        if all(abs(row - other) >= gap for other in chosen):
            chosen.append(row)
    return sorted(chosen)


def spread_out(heights: Sequence[float], gap: float) -> list[float]:
    """Label heights moved up just so far that neighbours are ``gap`` apart."""
    found: list[float] = []
    for height in heights:
        found.append(max(height, found[-1] + gap) if found else height)
    return found
