"""How warm-up ends, when a run is repeated enough, and whose turn it is in a trial."""

from __future__ import annotations

import numpy as np
import pytest

from core.analysis.stopping import REPEATS_CAP, WARMUP_CAP, clean_rounds, enough, expected_requests, settled, turns

NOISY = [100.0, 140.0] * 20


def warm_up(*scales: float, steps: int = 16, noise: float = 0.02, seed: int = 0) -> list[np.ndarray]:
    """Requests whose later moments take longer (a growing context), each so many times as slow as the last will be."""
    rng = np.random.default_rng(seed)
    return [1e7 * scale * np.linspace(1, 1.3, steps) * np.exp(rng.normal(0, noise, steps)) for scale in scales]


@pytest.mark.parametrize(
    ("requests", "elapsed_s", "ended"),
    [
        ([], 0.0, None),
        (warm_up(3, 1), 5.0, None),
        (warm_up(3, 1.2, 1), 5.0, None),  # still getting faster
        (warm_up(3, 1.2, 1, 1), 5.0, "no faster after 4 requests"),
        (warm_up(3, 1.0, 1.2), 5.0, "no faster after 3 requests"),  # getting slower is not warming up
        (warm_up(3, 1.01, 1.0), 5.0, "no faster after 3 requests"),
        (warm_up(3, 1.3, 1.0, noise=0.5), 5.0, "no faster after 3 requests"),  # nothing that can be told in such noise
        (warm_up(3, 1, 1), 0.4, None),  # a few short requests wake no clock
        (warm_up(3, 1.2, 1), 10.0, "cap of 10 s reached"),
        (warm_up(*[1] * 20), 0.1, "cap of 20 reached"),
        ([*warm_up(3, 1), np.empty(0)], 5.0, None),  # a request that could not be measured settles nothing
        (warm_up(3, 1.2, 1.1, 1.0, steps=1, noise=0), 5.0, None),
        (warm_up(3, 1.2, 1.0, 1.1, steps=1, noise=0), 5.0, "no faster after 4 requests"),
    ],
)
def test_warm_up_ends_when_requests_get_no_faster_or_at_a_cap(
    requests: list[np.ndarray], elapsed_s: float, ended: str | None
) -> None:
    why = settled(requests, elapsed_s)
    assert (None if why is None else str(why)) == ended


def test_warm_up_is_short_on_a_busy_machine_and_sees_a_slow_warming() -> None:
    rng = np.random.default_rng(1)
    needed = []
    for _ in range(200):
        scales = np.exp(rng.normal(0, 0.15, 20))
        requests = warm_up(*scales, noise=0.2, seed=int(rng.integers(1 << 30)))
        needed.append(next(n for n in range(1, 21) if settled(requests[:n], 1.0)))
    assert np.median(needed) <= 4
    assert max(needed) < WARMUP_CAP
    falling = warm_up(*(1 + 0.5 * 0.7 ** np.arange(20)))
    assert next(n for n in range(1, 21) if settled(falling[:n], 1.0)) >= 5


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
    why = enough(latencies, elapsed_s)
    assert (None if why is None else str(why)) == ended


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
