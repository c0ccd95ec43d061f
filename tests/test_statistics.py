"""Medians, their intervals, and when a percentile may be told."""

from __future__ import annotations

import numpy as np
import pytest

from core.analysis.statistics import (
    Ratio,
    Spread,
    median_ratio,
    percentile,
    resampled_medians,
    spread,
    t_reach,
    t_risk,
    tail_bound,
)


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


@pytest.mark.parametrize("n", [2, 3, 10, 11, 200])
def test_the_shortcut_agrees_with_ordinary_resampling(n: int) -> None:
    values = np.sort(np.random.default_rng(3).lognormal(0, 0.4, n))
    rng = np.random.default_rng(4)
    ordinary = np.median(values[rng.integers(0, n, (20_000, n))], axis=1)
    quick = resampled_medians(values, resamples=20_000)
    # Both are draws of one distribution: the shares of medians up to each value differ by sampling noise only.
    points = np.unique(ordinary)
    below = [np.searchsorted(np.sort(medians), points + 1e-12) / 20_000 for medians in (ordinary, quick)]
    assert np.abs(below[0] - below[1]).max() < 0.02


def test_the_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        measured = spread(rng.normal(100, 5, 41))
        assert measured.low is not None
        assert measured.high is not None
        covered += measured.low <= 100 <= measured.high
    assert 180 <= covered <= 200


def test_the_same_values_give_the_same_interval() -> None:
    values = np.random.default_rng(6).normal(10, 1, 50)
    assert spread(values) == spread(values[::-1])


def test_equal_sides_have_ratio_one_within_the_interval() -> None:
    rng = np.random.default_rng(7)
    a, b = rng.normal(10, 0.1, 60), rng.normal(10, 0.1, 60)
    measured = median_ratio(a, b)
    assert measured is not None
    assert measured.low < 1 < measured.high
    assert measured.high - measured.low < 0.02


def test_a_slower_side_shows() -> None:
    rng = np.random.default_rng(8)
    measured = median_ratio(rng.normal(12, 0.1, 60), rng.normal(10, 0.1, 60))
    assert measured is not None
    assert measured.ratio == pytest.approx(1.2, rel=0.01)
    assert 1.15 < measured.low < 1.2 < measured.high < 1.25


@pytest.mark.parametrize(("a", "b"), [([1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0]), ([], []), ([1.0, 2.0], [0.0, 0.0])])
def test_too_little_for_a_ratio_is_none(a: list[float], b: list[float]) -> None:
    assert median_ratio(a, b) is None


def test_without_intervals_the_ratio_stands_alone() -> None:
    assert median_ratio([2.0, 2.0], [1.0, 1.0], intervals=False) == Ratio(2.0, 2.0, 2.0)


@pytest.mark.parametrize(("q", "expected"), [(0, 1.0), (50, 11.0), (90, 19.0), (95, 20.0), (100, 20.0)])
def test_mlperf_percentiles_are_values_that_occurred(q: float, expected: float) -> None:
    values = np.arange(1.0, 21.0)[::-1]
    assert percentile(values, q, "MLPerf") == expected
    assert percentile(values, q) == pytest.approx(np.percentile(values, q))


def test_no_values_have_no_percentile_and_no_tail() -> None:
    assert percentile([], 50) is None
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
