"""How often do the intervals hold the truth? Simulated runs whose truth is known, as noisy as latencies are.

    python -m benchmarks.coverage [--draws 2000]

Latencies are lognormal, moments of one request are alike (correlation 0.5): by what the whole request shares, by neighbour to
neighbour, or with spikes that make even the requests' means skew. Each line tells in how many of the made-up runs what is
called a 95 % interval held the true value; a dash: so few requests get no interval but a range.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

import numpy as np

from core.analysis.intervals import Side, median_interval, pooled_median_interval, ratio_interval
from core.analysis.observer import effect
from core.execution.trace_schedule import TraceSchedule
from profilers.trace import KINDS, Array, Tag

REQUESTS = (3, 4, 5, 6, 8, 10, 15, 30)
TOKENS = (16, 64)
CORRELATION = 0.5
SIZE = 0.3
TRUTH = 10_000
"""Requests from which the true medians are taken."""

Noise = Callable[[np.random.Generator, tuple[int, int]], Array]
"""Latencies [requests, tokens] of one run."""


def shared(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """What a request shares makes its moments alike."""
    whole = rng.normal(size=(shape[0], 1))
    return np.exp(SIZE * (np.sqrt(CORRELATION) * whole + np.sqrt(1 - CORRELATION) * rng.normal(size=shape)))


def chained(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Each moment is like the one before it."""
    logs = rng.normal(size=shape[::-1])
    logs[1:] *= np.sqrt(1 - CORRELATION**2)
    for step in range(1, shape[1]):
        logs[step] += CORRELATION * logs[step - 1]
    return np.exp(SIZE * logs.T)


def spiked(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """A steady time and, added to it, very skew shares of the request and of the moment."""
    return 10 + np.exp(rng.normal(size=(shape[0], 1))) + np.exp(rng.normal(size=shape))


NOISES: Mapping[str, Noise] = {"shared": shared, "chained": chained, "spiked": spiked}


def coverage(noise: Noise, requests: int, tokens: int, draws: int, seed: int = 1) -> dict[str, float | None]:
    """By what is told of a run: how often its interval held the truth, None where it gets none."""
    rng = np.random.default_rng(seed)
    truth = noise(rng, (TRUTH, tokens))
    tpot, itl = float(np.median(truth.mean(axis=1))), float(np.median(truth))
    group = np.repeat(np.arange(requests), tokens)
    held: dict[str, list[bool]] = {"TPOT": [], "ITL": [], "TPOT ratio": [], "ITL ratio": []}
    for _ in range(draws):
        runs = noise(rng, (requests, tokens)), noise(rng, (requests, tokens))
        means = [run.mean(axis=1) for run in runs]
        _note(held["TPOT"], median_interval(means[0]), tpot)
        bounds = [pooled_median_interval(run.ravel(), group) for run in runs]
        _note(held["ITL"], bounds[0], itl)
        of_means = [_side(values, median_interval(values), requests) for values in means]
        of_gaps = [_side(run, found, requests) for run, found in zip(runs, bounds, strict=True)]
        for name, sides in (("TPOT ratio", of_means), ("ITL ratio", of_gaps)):
            first, second = sides
            if first is not None and second is not None:
                _note(held[name], ratio_interval(first, second), 1.0)
    return {name: float(np.mean(found)) if found else None for name, found in held.items()}


def observer_coverage(
    noise: Noise, requests: int, tokens: int, draws: int, *, drift: float = 0.3, seed: int = 1
) -> tuple[float | None, float]:
    """How often the interval of the observer effect held the planted 2 %, and the median of what was told.

    The machine gets slower meanwhile by the share ``drift``. One token: first tokens, one a request.
    """
    rng = np.random.default_rng(seed)
    turns = TraceSchedule()
    turns.start_over()
    traced = np.array([turns.of_gap(None, first=tokens == 1)[0] for _ in range(requests * tokens)])
    ramp = np.linspace(1, 1 + drift, requests * tokens)
    moments = {
        "request": np.repeat(np.arange(requests), tokens),
        "kind": np.full(requests * tokens, KINDS.index("decode")),
        "tags": np.where(traced, int(Tag.TRACED), int(Tag.CLEAN)),
    }
    held: list[bool] = []
    told = []
    for _ in range(draws):
        times = noise(rng, (requests, tokens)).ravel() * ramp * np.where(traced, 1.02, 1.0)
        found = effect({**moments, "duration_ns": 1e7 * times}, np.ones(len(times), bool))
        assert found is not None
        told.append(found.ratio)
        _note(held, None if found.low is None or found.high is None else (found.low, found.high), 1.02)
    return (float(np.mean(held)) if held else None), float(np.median(told))


def _note(held: list[bool], bounds: tuple[float, float] | None, truth: float) -> None:
    if bounds is not None:
        held.append(bounds[0] <= truth <= bounds[1])


def _side(values: Array, bounds: tuple[float, float] | None, requests: int) -> Side | None:
    return None if bounds is None else Side(float(np.median(values)), *bounds, requests)


def _percent(share: float | None) -> str:
    return "    —" if share is None else f"{100 * share:4.1f}%"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=2000)
    draws = parser.parse_args().draws
    print("requests tokens noise     TPOT   ITL    TPOT ratio  ITL ratio  observer effect (planted 2 %, drift 30 %)")
    for name, noise in NOISES.items():
        for requests in REQUESTS:
            for tokens in TOKENS:
                found = coverage(noise, requests, tokens, draws)
                watched, told = observer_coverage(noise, requests, tokens, draws)
                shown = [_percent(found[what]) for what in ("TPOT", "ITL", "TPOT ratio", "ITL ratio")]
                print(
                    f"{requests:8} {tokens:6} {name:8} {shown[0]}  {shown[1]}  {shown[2]:>10}  {shown[3]:>9}  "
                    f"{_percent(watched)}, told {100 * (told - 1):+.1f} %",
                    flush=True,
                )
    for requests in (5, 10, 14, 20, 30):
        watched, told = observer_coverage(shared, requests, 1, draws)
        print(f"{requests:8} first tokens: observer effect {_percent(watched)}, told {100 * (told - 1):+.1f} %", flush=True)


if __name__ == "__main__":
    main()
