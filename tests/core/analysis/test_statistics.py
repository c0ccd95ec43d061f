"""Medians, their intervals, and when a percentile may be told."""

from __future__ import annotations

import numpy as np
import pytest

from core.analysis.statistics import (
    Ratio,
    Spread,
    median_ratio,
    medians_by,
    spread,
    tail_bound,
)
from core.analysis.student import t_reach, t_risk


def test_nothing_measured_is_none_and_not_zero() -> None:
    assert spread([]) == Spread()
    assert spread([]).median is None


def test_one_sample_has_a_median_and_no_interval() -> None:
    one = spread([5.0])
    assert (one.median, one.low, one.high, one.n) == (5.0, None, None, 1)


@pytest.mark.parametrize(
    ("n", "told"), [(63, ()), (64, (90,)), (129, (90,)), (130, (90, 95)), (661, (90, 95)), (662, (90, 95, 99))]
)
def test_percentiles_need_enough_samples(n: int, told: tuple[int, ...]) -> None:
    values = np.arange(n, dtype=float)
    measured = spread(values, intervals=False)
    for q, value in ((90, measured.p90), (95, measured.p95), (99, measured.p99)):
        assert value == (pytest.approx(np.percentile(values, q)) if q in told else None)


def test_the_same_values_give_the_same_interval() -> None:
    values = np.random.default_rng(6).normal(10, 1, 50)
    assert spread(values) == spread(values[::-1])


def test_requests_are_what_an_interval_is_made_of() -> None:
    rng = np.random.default_rng(7)
    group = np.repeat(np.arange(12), 16)
    values = rng.normal(10, 1, 12)[group] + rng.normal(0, 0.2, len(group))
    pooled, apart = spread(values, group), spread(values)
    assert (pooled.n, pooled.requests, apart.requests) == (192, 12, 192)
    assert pooled.median == apart.median
    assert None not in (pooled.low, pooled.high, apart.low, apart.high)
    assert pooled.high - pooled.low > 2 * (apart.high - apart.low)
    few = spread(values[:64], group[:64])
    medians = [np.median(values[group == number]) for number in range(4)]
    assert (few.low, few.high) == (None, None)
    assert (few.least, few.most) == (min(medians), max(medians))


@pytest.mark.parametrize("sizes", [[1], [2], [3, 1, 4, 2], [5, 5]])
def test_medians_by_group(sizes: list[int]) -> None:
    rng = np.random.default_rng(len(sizes))
    group = rng.permutation(np.repeat(np.arange(len(sizes)) * 3, sizes))
    values = rng.normal(size=len(group))
    assert medians_by(values, group).tolist() == [np.median(values[group == number]) for number in np.unique(group)]
    assert len(medians_by(np.empty(0), np.empty(0, np.int64))) == 0


def test_equal_sides_have_ratio_one_within_the_interval() -> None:
    rng = np.random.default_rng(7)
    measured = median_ratio(spread(rng.normal(10, 0.1, 60)), spread(rng.normal(10, 0.1, 60)))
    assert measured is not None
    assert None not in (measured.low, measured.high)
    assert measured.low < 1 < measured.high
    assert measured.high - measured.low < 0.02


def test_a_slower_side_shows() -> None:
    rng = np.random.default_rng(8)
    measured = median_ratio(spread(rng.normal(12, 0.1, 60)), spread(rng.normal(10, 0.1, 60)))
    assert measured is not None
    assert None not in (measured.low, measured.high)
    assert 1.15 < measured.low < measured.ratio < measured.high < 1.25


@pytest.mark.parametrize(("a", "b"), [([], [1.0, 2.0]), ([1.0, 2.0], []), ([], []), ([1.0, 2.0], [0.0, 0.0])])
def test_nothing_has_no_ratio(a: list[float], b: list[float]) -> None:
    assert median_ratio(spread(a), spread(b)) is None


def test_too_few_have_a_ratio_without_bounds() -> None:
    assert median_ratio(spread([2.0, 2.0]), spread([1.0, 1.0])) == Ratio(2.0)


def test_no_values_have_no_tail() -> None:
    assert tail_bound([], 0.9) is None


@pytest.mark.parametrize(("p", "least"), [(0.9, 64), (0.95, 130), (0.99, 662), (0.999, 6636)])
def test_a_tail_is_bounded_from_loadgens_sample_counts_on(p: float, least: int) -> None:
    """With the least count the bound is the maximum itself."""
    assert tail_bound(range(least - 1), p) is None
    assert tail_bound(range(least), p) == least - 1


def test_the_tail_bound_is_too_low_in_about_one_of_a_hundred_cases() -> None:
    rng = np.random.default_rng(9)
    low = sum((tail_bound(rng.random(300), 0.9) or 1.0) < 0.9 for _ in range(2000))
    assert 0 < low <= 30  # 20 are allowed on average, and the bound is one of the values


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (10, 2.228), (30, 2.042), (120, 1.980)]
)
def test_students_t_agrees_with_tables(freedom: int, t: float) -> None:
    assert t_risk(np.array([t]), freedom)[0] == pytest.approx(0.05, abs=3e-5)
    assert t_reach(0.05, freedom) == pytest.approx(t, abs=6e-4)
    assert t_risk(np.array([0.0]), freedom)[0] == 1
