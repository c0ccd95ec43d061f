"""Intervals hold the truth as often as they say, whatever makes latencies alike and skew; where they cannot, there is none."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coverage import NOISES, coverage, observer_coverage, shared
from core.analysis.intervals import (
    LEAST_REQUESTS,
    LEAST_VALUES,
    Side,
    median_interval,
    pooled_median_interval,
    ratio_interval,
    share_interval,
)

LEAST, MOST = 0.93, 0.97


def covers(share: float, draws: int) -> bool:
    """Whether what is called 95 % is 93 to 97 %, as far as so many draws can tell (give or take their standard error)."""
    error = (0.05 * 0.95 / draws) ** 0.5
    return LEAST - error <= share <= MOST + error


def test_six_values_are_bounded_from_within_and_five_are_not() -> None:
    assert median_interval(np.arange(5.0)) is None
    bounds = median_interval(np.array([4.0, 1.0, 2.0, 6.0, 3.0, 5.0]))
    assert bounds is not None
    assert 1 < bounds[0] < 2  # 1 … 6 would hold the median in 96.9 %, 2 … 5 in 78 %
    assert bounds[0] - 1 == pytest.approx(6 - bounds[1])
    assert median_interval(np.full(8, 3.0)) == (3.0, 3.0)


def test_widening_moves_both_bounds_away_from_the_median() -> None:
    values = np.arange(11.0)
    plain, wide = median_interval(values), median_interval(values, 2.0)
    assert plain is not None
    assert wide is not None
    assert (wide[0] - 5, wide[1] - 5) == pytest.approx((2 * (plain[0] - 5), 2 * (plain[1] - 5)))


@pytest.mark.parametrize("noise", NOISES)
def test_intervals_hold_the_truth_as_often_as_they_say(noise: str) -> None:
    for requests, tokens, draws in ((3, 16, 20), (6, 64, 1000), (10, 16, 1000), (30, 16, 1000)):
        found = coverage(NOISES[noise], requests, tokens, draws)
        assert (found["TPOT"] is None) == (requests < LEAST_VALUES)
        assert (found["ITL"] is None) == (requests < LEAST_REQUESTS)
        for what, share in found.items():
            if share is not None:
                assert covers(share, draws), (noise, requests, tokens, what, share)


@pytest.mark.parametrize("noise", NOISES)
def test_the_observer_effect_is_bounded_although_the_machine_drifts(noise: str) -> None:
    share, told = observer_coverage(NOISES[noise], 6, 32, 600)
    assert share is not None
    assert covers(share, 600)
    assert told == pytest.approx(1.02, abs=0.004)


def test_first_tokens_alternate_and_their_effect_is_bounded_from_fourteen_requests_on() -> None:
    share, _ = observer_coverage(shared, 14, 1, 800)
    assert share is not None
    assert covers(share, 800)
    assert observer_coverage(shared, 10, 1, 3)[0] is None


def test_requests_that_are_alike_within_make_the_pooled_interval_wider() -> None:
    rng = np.random.default_rng(2)
    whole = np.repeat(rng.normal(10, 1, 20), 50)
    group = np.repeat(np.arange(20), 50)
    alike = pooled_median_interval(whole + rng.normal(0, 0.1, 1000), group)
    shuffled = pooled_median_interval(rng.permutation(whole) + rng.normal(0, 0.1, 1000), group)
    assert alike is not None
    assert shuffled is not None
    assert alike[1] - alike[0] > 3 * (shuffled[1] - shuffled[0])


def test_a_pooled_interval_holds_the_pooled_median_however_uneven_the_requests() -> None:
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(12), rng.integers(1, 60, 12))
    values = rng.lognormal(0, 0.5, len(group)) * (1 + group / 6)
    bounds = pooled_median_interval(values, group)
    assert bounds is not None
    assert bounds[0] <= np.median(values) <= bounds[1]
    assert pooled_median_interval(np.full(len(group), 2.0), group) == (2.0, 2.0)


def test_a_ratio_is_bounded_by_both_sides() -> None:
    a, b = Side(2.0, 1.8, 2.2, 10), Side(1.0, 0.99, 1.01, 10)
    bounds, back = ratio_interval(a, b), ratio_interval(b, a)
    assert bounds is not None
    assert back is not None
    assert 1.8 < bounds[0] < 2 < bounds[1] < 2.22
    assert (1 / back[1], 1 / back[0]) == pytest.approx(bounds)
    assert ratio_interval(a, Side(1.0, 0.0, 2.0, 10)) is None


@pytest.mark.parametrize(
    ("count", "tries", "bounds"),
    [(0, 40, (0, 0.0881)), (2, 40, (0.0061, 0.1692)), (10, 10, (0.6915, 1)), (5, 20, (0.0866, 0.4910))],
)
def test_shares_have_the_bounds_of_the_tables(count: int, tries: int, bounds: tuple[float, float]) -> None:
    assert share_interval(count, tries) == pytest.approx(bounds, abs=1e-4)
