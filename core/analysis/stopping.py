"""When enough is enough: how warm-up ends, when a run has been repeated often enough, and whose turn it is in an A/B test."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from core.analysis.drift import still_falling
from core.analysis.intervals import LEAST_VALUES, median_interval
from core.messages.reason import Reason
from profilers.trace import Array

WARMUP_LEAST = 3
WARMUP_CAP = 20
WARMUP_S = 10.0
"""Warm-up takes no longer, from the end of its first (cold, compiling) request on: on a busy machine nothing ever settles."""

WARMUP_LEAST_S = 0.5
"""Nor less, unless twenty requests are over: a few requests of a millisecond wake no clock."""

SETTLED_WITHIN = 0.02
"""A request that is faster than the one before it by less than this, or not surely, ends warm-up."""

REPEATS_LEAST = LEAST_VALUES
REPEATS_ENOUGH = 10
REPEATS_CAP = 30
ENOUGH_S = 10.0
MOST_S = 60.0
KNOWN_TO = 0.01
"""A median whose 95 % interval reaches no further than this share to either side is known well enough."""

TRACED_EVERY = 4
"""Of so many rounds of an A/B test one is traced on all sides."""

STRETCH_TOKENS = 16
MOST_STRETCHES = 8
MOST_PAIRS = 480
"""A long request of an A/B test whose sides take turns token by token is judged by stretches of at least so many tokens, at
most so many of them, and no more pairs over the whole A/B test than can be judged anew after each round (5 ms)."""


def settled(requests: Sequence[Array], elapsed_s: float) -> Reason | None:
    """How warm-up ended, after the requests so far; None: go on.

    Only getting faster is warming up. Noise is not: three requests within 5 %, as it was once, hardly ever come on a busy
    machine, and then twenty were made.

    Args:
        requests: of each warm-up request the times of its moments. One that failed to be measured (none) settles nothing.
        elapsed_s: since the first request ended.
    """
    done = len(requests)
    if done >= WARMUP_CAP:
        return Reason("analysis.cap-of-requests", n=WARMUP_CAP)
    if elapsed_s >= WARMUP_S:
        return cap_of_time(WARMUP_S)
    if done < WARMUP_LEAST or elapsed_s < WARMUP_LEAST_S or any(not len(one) for one in requests[-2:]):
        return None
    return None if still_falling(requests, SETTLED_WITHIN) else Reason("analysis.no-faster", n=done)


def enough(e2e_ns: Sequence[float], elapsed_s: float) -> Reason | None:
    """Why no more requests are needed, after the measured ones so far; None: go on.

    Ten requests and ten seconds are enough (optimum-benchmark's rule), or six as soon as the median is known to 1 %.

    Args:
        e2e_ns: latency of each measured request.
        elapsed_s: how long has been measured.
    """
    done = len(e2e_ns)
    if done >= REPEATS_ENOUGH and elapsed_s >= ENOUGH_S:
        return Reason("analysis.enough-requests", n=done, elapsed_s=elapsed_s)
    if done >= REPEATS_LEAST and _half_width(e2e_ns) <= KNOWN_TO:
        return Reason("analysis.latency-known", known_percent=100 * KNOWN_TO)
    if done >= REPEATS_CAP:
        return Reason("analysis.cap-of-requests", n=REPEATS_CAP)
    if elapsed_s >= MOST_S:
        return cap_of_time(MOST_S)
    return None


def cap_of_time(limit_s: float) -> Reason:
    """Why it was enough: so much time is all that there was."""
    return Reason("analysis.cap-of-time", limit_s=limit_s)


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


def most_requests(done: int, elapsed_s: float, one_s: float | None) -> int:
    """How many requests ``enough`` lets come at most, at ``one_s`` seconds each (None: unknown, the usual number).

    A median that is known sooner ends a run sooner, which nobody foresees.
    """
    if one_s is None or one_s <= 0:
        return max(done, REPEATS_ENOUGH)

    def until(limit_s: float) -> int:
        return done + max(0, math.ceil((limit_s - elapsed_s) / one_s))

    return min(REPEATS_CAP, until(MOST_S), max(REPEATS_ENOUGH, until(ENOUGH_S)))


def clean_rounds(rounds: int) -> int:
    """How many of the first so many rounds are clean."""
    return rounds - rounds // TRACED_EVERY


def stretches(new_tokens: int, most_rounds: int) -> int:
    """In how many stretches of tokens the requests of an A/B test are compared; 1: each request as a whole."""
    fitting = min((new_tokens - 1) // STRETCH_TOKENS, MOST_STRETCHES, MOST_PAIRS // max(1, clean_rounds(most_rounds)))
    return max(1, fitting)


def _half_width(values: Sequence[float]) -> float:
    """Half the 95 % interval of the median, as a share of it."""
    bounds, median = median_interval(np.asarray(values, np.float64)), float(np.median(values))
    return float("inf") if bounds is None or not median else (bounds[1] - bounds[0]) / 2 / median
