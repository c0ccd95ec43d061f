"""Ticks that read at a glance: few round numbers, and limits that grow in steps; for window and exported figures alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

STEPS = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


COARSE, FINE = (1.0, 2.0, 5.0), (1.0, 2.0, 2.5, 5.0)
"""Steps between ticks: those of the window need one decimal at most; a figure on paper has room for another."""


def nice_limit(value: float) -> float:
    """The smallest round number that is not below ``value`` (an axis that ends there grows in steps, not with every sample)."""
    if not math.isfinite(value) or value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in STEPS if step * power >= value * 0.999999)


def nice_spacing(span: float, most: int, whole: bool = False, steps: Sequence[float] = COARSE) -> float:
    """A tick distance of one of ``steps`` × 10ⁿ that gives at most ``most`` intervals over ``span``."""
    raw = span / max(1, most)
    if not math.isfinite(raw) or raw <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    spacings = [step * power for step in (*steps, 10.0) if not whole or (step * power).is_integer()]
    spacing = next((spacing for spacing in spacings if spacing >= raw * 0.999999), 1.0)
    return max(1.0, spacing) if whole else spacing


def labelled(low: float, high: float, most: int, whole: bool = False) -> tuple[list[float], list[str]]:
    """Round numbers from ``low`` to ``high`` and their labels, all with the same number of decimals; for a figure on paper."""
    spacing = nice_spacing(max(high - low, 1e-9), most, whole, FINE)
    inside = round_numbers(low, high, spacing)
    decimals = next((count for count in range(7) if abs(round(spacing, count) - spacing) < 1e-9 * max(spacing, 1e-9)), 6)
    return inside, [f"{value:.{decimals}f}" if value else "0" for value in inside]


def round_numbers(low: float, high: float, spacing: float) -> list[float]:
    """The multiples of ``spacing`` from ``low`` to ``high``, a hundred at most."""
    first, last = math.ceil(low / spacing - 1e-6), math.floor(high / spacing + 1e-6)
    return [number * spacing for number in range(first, min(last, first + 100) + 1)]


def plain_number(value: float, spacing: float) -> str:
    """A tick's number with the decimals that its neighbours need and no more."""
    decimals = max(0, -math.floor(math.log10(spacing) + 1e-9)) if spacing > 0 else 0
    return f"{value:,.{decimals}f}".replace(",", " ")
