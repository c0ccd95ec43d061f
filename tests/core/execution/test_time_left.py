"""Time left: told from whole requests, by the caps that end a run, and as "at most" where it may be over sooner."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.analysis.stopping import MOST_S, REPEATS_CAP, enough, most_requests
from core.commands.following import line
from core.execution import time_left
from core.notices import Status
from profilers.trace import KINDS, Recorder, Tag

MS = 1_000_000


def made(
    prefill_ms: float, decode_ms: float, steps: int, requests: int, *, warmup: int = 0, under_way: int = 0, gap_ms: float = 0
) -> Recorder:
    """A recorder after so many requests with 1 ms between two; of the next one ``under_way`` moments were made.

    ``gap_ms``: what is between two moments: sampling, a pause.
    """
    recorder, now = Recorder(), 0
    for number in range(requests + (under_way > 0)):
        whole = number < requests
        tags = int(Tag.WARMUP) if number < warmup else 0
        recorder.requests.append(tags=tags | (int(Tag.COLD) if number == 0 else 0), start_ns=now, end_ns=-1)
        for step in range(steps if whole else under_way):
            took = round((decode_ms if step else prefill_ms) * MS)
            kind = KINDS.index("decode" if step else "prefill")
            recorder.moments.append(
                request=number, kind=kind, step=step, tags=tags, start_ns=now, duration_ns=took, paused_ns=0
            )
            now += took + round(gap_ms * MS)
        if whole:
            recorder.requests.set(number, end_ns=now)
        now += MS
    return recorder


def test_a_long_prefill_is_not_taken_for_what_each_token_takes() -> None:
    """The mean of the first moments was: 2 s of prefill and 20 ms a token made 64 tokens 40 times as long as they were."""
    recorder = made(2000, 20, 64, 0, under_way=2)
    assert time_left.request_s(recorder, 64) == pytest.approx(2 + 63 * 0.02, rel=0.01)
    assert time_left.request_s(made(2000, 20, 64, 0, under_way=1), 64) is None  # nobody knows what comes after it
    assert time_left.request_s(made(30, 0, 1, 0, under_way=1), 1) == pytest.approx(0.03)
    assert time_left.request_s(Recorder(), 64) is None


def test_what_is_between_two_moments_is_in_the_time_left() -> None:
    """Sampling took a quarter of each token on a busy machine: "at most 0:47 left" took 58 s."""
    recorder = made(2000, 20, 64, 0, under_way=12, gap_ms=10)
    assert time_left.request_s(recorder, 64) == pytest.approx(2.01 + 63 * 0.03, rel=0.01)


def test_a_request_that_takes_longer_than_others_is_not_over_before_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request's last tokens stood at "at most 0:00 left" for seconds."""
    recorder = made(2000, 1000, 64, 0, under_way=60)
    monkeypatch.setattr(recorder, "now_ns", lambda: 61_000 * MS)
    assert time_left.rest_of_request_s(recorder, 70.0) == pytest.approx(9.0)
    assert time_left.rest_of_request_s(recorder, 50.0) == pytest.approx(1.0)  # its next moment at least
    assert time_left.rest_of_request_s(made(2000, 1000, 8, 1), 50.0) == 50.0  # none is under way


def test_whole_requests_count_with_what_is_between_them() -> None:
    recorder = made(50, 10, 6, 5, warmup=2)
    assert time_left.request_s(recorder, 6) == pytest.approx(0.101, abs=0.001)  # 100 ms of moments, 1 ms between two
    recorder.requests.set(1, tags=int(Tag.WARMUP))
    slow = made(50, 10, 6, 3)
    slow.moments.set(6, tags=int(Tag.COMPILE), duration_ns=9_000 * MS)
    assert time_left.request_s(slow, 6) == pytest.approx(0.1, abs=0.002)  # the one that compiled tells nothing


@pytest.mark.parametrize("one_s", [0.01, 0.3, 0.9, 2.0, 7.0, 25.0, 200.0])
def test_the_requests_told_are_those_that_are_made(one_s: float) -> None:
    """Noise keeps the median from being known sooner, so the caps decide, and they are told beforehand."""
    rng = np.random.default_rng(3)
    values: list[float] = []
    told = []
    while enough(values, sum(values) / 1e9) is None:
        told.append(most_requests(len(values), sum(values) / 1e9, one_s))
        values.append(1e9 * one_s * float(np.exp(rng.normal(0, 0.3))))
    assert len(values) <= REPEATS_CAP
    assert told[0] / len(values) == pytest.approx(1, abs=0.5)
    assert told[-1] == len(values)
    assert one_s * told[0] <= MOST_S + one_s


def test_as_many_as_were_asked_for_are_left() -> None:
    assert time_left.requests_left(5, 2, 9.0, 3.0) == 3
    assert time_left.requests_left(5, 5, 9.0, 3.0) == 0
    assert time_left.requests_left(None, 0, 0.0, None) == 10  # the usual number
    assert time_left.requests_left(None, 2, 200.0, None) == 1  # the one under way


def test_what_may_be_over_sooner_and_what_follows_are_told() -> None:
    status = Status("running", "repeat 2", 0.5, 21.0)
    assert status.left == "0:21 left"
    assert replace(status, at_most=True).left == "at most 0:21 left"
    assert line(replace(status, at_most=True, then="measuring quality")).endswith("at most 0:21 left, then measuring quality")
    assert replace(status, seconds_left=None, at_most=True).left == ""
