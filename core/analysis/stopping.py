"""When enough is enough: how warm-up ends, when a run has been repeated often enough, and whose turn it is in a trial."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.analysis.intervals import LEAST_VALUES, median_interval

WARMUP_LEAST = 3
WARMUP_CAP = 20
SETTLED_WITHIN = 0.05
"""Warm-up is over when the last ``WARMUP_LEAST`` requests lie within this share of each other (``measures.md`` §1)."""

REPEATS_LEAST = LEAST_VALUES
REPEATS_ENOUGH = 10
REPEATS_CAP = 30
ENOUGH_S = 10.0
MOST_S = 60.0
KNOWN_TO = 0.01
"""A median whose 95 % interval reaches no further than this share to either side is known well enough."""

TRACED_EVERY = 4
"""Of so many rounds of a trial one is traced on all sides."""


def settled(latencies_ns: Sequence[float]) -> str | None:
    """How warm-up ended, after the requests so far; None: go on.

    Args:
        latencies_ns: E2E of each warm-up request. One that failed to be measured (0) settles nothing.
    """
    last = latencies_ns[-WARMUP_LEAST:]
    if len(last) == WARMUP_LEAST and min(last) > 0 and max(last) <= (1 + SETTLED_WITHIN) * min(last):
        return f"{WARMUP_LEAST} requests within {100 * SETTLED_WITHIN:.0f} %"
    if len(latencies_ns) >= WARMUP_CAP:
        return f"cap of {WARMUP_CAP} reached"
    return None


def enough(e2e_ns: Sequence[float], elapsed_s: float) -> str | None:
    """Why no more requests are needed, after the measured ones so far; None: go on.

    Ten requests and ten seconds are enough (optimum-benchmark's rule), or six as soon as the median is known to 1 %.

    Args:
        e2e_ns: latency of each measured request.
        elapsed_s: how long has been measured.
    """
    done = len(e2e_ns)
    if done >= REPEATS_ENOUGH and elapsed_s >= ENOUGH_S:
        return f"{done} requests in {elapsed_s:.0f} s"
    if done >= REPEATS_LEAST and _half_width(e2e_ns) <= KNOWN_TO:
        return f"latency known to {100 * KNOWN_TO:.0f} %"
    if done >= REPEATS_CAP:
        return f"cap of {REPEATS_CAP} reached"
    if elapsed_s >= MOST_S:
        return f"cap of {MOST_S:.0f} s reached"
    return None


def expected_requests(warmup: int | None, repeats: int | None) -> int:
    """How many requests a run will make, for its progress: as asked, or the likely number where that is left open (None)."""
    return (WARMUP_LEAST if warmup is None else warmup) + (REPEATS_ENOUGH if repeats is None else repeats)


def turns(number: int, sides: int) -> tuple[tuple[int, ...], bool]:
    """In which order the sides run in a round (from 0), and whether the round is traced.

    Clean rounds turn round from one to the next (A B, B A, A B, …), and so do traced ones among themselves. Turning by the
    number of the round alone would give, with every fourth one traced, two clean A B to one clean B A: then a steady drift
    and the place in the round would no longer cancel out.
    """
    traced = number % TRACED_EVERY == TRACED_EVERY - 1
    nth = number // TRACED_EVERY if traced else number - number // TRACED_EVERY
    order = tuple(range(sides))
    return (order if nth % 2 == 0 else order[::-1]), traced


def clean_rounds(rounds: int) -> int:
    """How many of the first so many rounds are clean."""
    return rounds - rounds // TRACED_EVERY


def _half_width(values: Sequence[float]) -> float:
    """Half the 95 % interval of the median, as a share of it."""
    bounds, median = median_interval(np.asarray(values, np.float64)), float(np.median(values))
    return float("inf") if bounds is None or not median else (bounds[1] - bounds[0]) / 2 / median
