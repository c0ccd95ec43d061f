"""How warm-up ends, when a run is repeated enough, and whose turn it is in a trial."""

from __future__ import annotations

import numpy as np
import pytest

from core.analysis.stopping import REPEATS_CAP, WARMUP_CAP, clean_rounds, enough, expected_requests, settled, turns

NOISY = [100.0, 140.0] * 20


@pytest.mark.parametrize(
    ("latencies", "ended"),
    [
        ([], None),
        ([100, 100], None),
        ([300, 102, 100, 104], "3 requests within 5 %"),
        ([100, 106, 100], None),
        ([100, 100, 0], None),  # a request that could not be measured settles nothing
        ([100, 104, 105], "3 requests within 5 %"),
        (NOISY[: WARMUP_CAP - 1], None),
        (NOISY[:WARMUP_CAP], "cap of 20 reached"),
    ],
)
def test_warm_up_ends_when_three_agree_or_at_the_cap(latencies: list[float], ended: str | None) -> None:
    assert settled(latencies) == ended


@pytest.mark.parametrize(
    ("latencies", "elapsed_s", "ended"),
    [
        ([], 0.0, None),
        (NOISY[:4], 5.0, None),
        ([100.0, 100.1, 99.9, 100.2, 100.0, 100.1], 1.0, "latency known to 1 %"),
        ([100.0, 100.1, 99.9, 100.2, 100.0], 1.0, None),  # five are too few, however alike
        (NOISY[:9], 20.0, None),
        (NOISY[:10], 9.9, None),
        (NOISY[:10], 10.0, "10 requests in 10 s"),
        (NOISY[: REPEATS_CAP - 1], 9.0, None),
        (NOISY[:REPEATS_CAP], 9.0, "cap of 30 reached"),
        (NOISY[:2], 61.0, "cap of 60 s reached"),
        ([], 61.0, "cap of 60 s reached"),
    ],
)
def test_a_run_is_repeated_until_it_is_known_or_a_cap_is_reached(
    latencies: list[float], elapsed_s: float, ended: str | None
) -> None:
    assert enough(latencies, elapsed_s) == ended


def test_more_noise_takes_more_requests() -> None:
    needed = []
    for size in (0.002, 0.02, 0.2):
        values = 100 * np.exp(np.random.default_rng(1).normal(0, size, 40))
        needed.append(next(n for n in range(1, 41) if enough(values[:n].tolist(), 0.1 * n)))
    assert needed == sorted(needed)
    assert needed[0] == 6
    assert needed[-1] == REPEATS_CAP


def test_what_is_left_open_is_expected_to_be_the_usual_number() -> None:
    assert expected_requests(2, 5) == 7
    assert expected_requests(None, 5) == 8
    assert expected_requests(0, None) == 10
    assert expected_requests(None, None) == 13


def test_clean_rounds_and_traced_rounds_each_take_turns() -> None:
    rounds = [turns(number, 2) for number in range(16)]
    assert [traced for _, traced in rounds[:4]] == [False, False, False, True]
    for kind in (False, True):
        orders = [order for order, traced in rounds if traced is kind]
        assert orders == [(0, 1) if place % 2 == 0 else (1, 0) for place in range(len(orders))]
    assert turns(0, 3)[0] == (0, 1, 2)
    assert turns(1, 3)[0] == (2, 1, 0)
    assert [clean_rounds(number) for number in (1, 4, 8, 60)] == [1, 3, 6, 45]
