"""Student's t without a table: the chance that it goes so far, and how far it goes with a given chance."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from profilers.trace import Array


def t_risk(t: Array, freedom: int) -> Array:
    """P(|T| >= t) of Student's t with a whole number of degrees of freedom: M. Abramowitz and I. Stegun, 26.7.3 and 26.7.4."""
    angle = np.arctan(np.abs(t) / math.sqrt(freedom))
    cosine, odd = np.cos(angle), freedom % 2
    term = cosine.copy() if odd else np.ones_like(cosine)
    total = np.zeros_like(cosine)
    for power in range(1 if odd else 0, freedom - 1, 2):
        total += term
        term = term * cosine**2 * (power + 1) / (power + 2)
    within = (2 / math.pi) * (angle + np.sin(angle) * total) if odd else np.sin(angle) * total
    return np.asarray(np.clip(1 - within, 0.0, 1.0))


@lru_cache(maxsize=512)
def t_reach(level: float, freedom: int) -> float:
    """The t with ``t_risk(t) == level``, at most 1e9."""
    low, high = 0.0, 1e9
    for _ in range(100):
        middle = math.sqrt(low * high) if low > 1e-3 else (low + high) / 2
        low, high = (middle, high) if t_risk(np.array([middle]), freedom)[0] > level else (low, middle)
    return high
