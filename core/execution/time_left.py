"""How long a run's requests will still take, from those that it has made."""

from __future__ import annotations

import numpy as np

from core.analysis.stopping import most_requests
from profilers.trace import KINDS, NOT_MEASURED, Array, Recorder, Tag

RECENT = 8
"""Whole requests that the time of one is told from."""

ONCE = tuple(KINDS.index(kind) for kind in ("prefill", "prefill_chunk", "encode"))
"""Kinds of moments that begin a request, and take longer than those after them: 40 times, with a long prompt."""


def request_s(recorder: Recorder, steps: int) -> float | None:
    """Seconds that one request takes from its start to the next one's, with all that is between; None while nobody knows.

    ``steps``: moments of a request. Requests that count are asked before those of warm-up. Where none is over yet, it is what
    the moments so far say: those at its beginning as they were, those after them as often as they are still to come.
    """
    requests, moments = recorder.requests.view(), recorder.moments.view()
    slow = np.unique(moments["request"][moments["tags"] & int(Tag.COMPILE) != 0])
    begun, tags = requests["start_ns"], requests["tags"]
    over = requests["end_ns"] != NOT_MEASURED
    ends = np.append(begun[1:], begun[-1:])[: len(begun)]
    if len(ends):
        ends[-1] = requests["end_ns"][-1]
    calm = over & ~np.isin(np.arange(len(begun)), slow) & (tags & int(Tag.COLD) == 0)
    for chosen in (calm & (tags & int(Tag.WARMUP) == 0), calm):
        if chosen.any():
            return float(np.median((ends - begun)[chosen][-RECENT:])) / 1e9
    return _from_moments(moments, steps)


def rest_of_request_s(recorder: Recorder, one_s: float) -> float:
    """Seconds until the request under way is over; one that takes longer than ``one_s`` has its next moment still to come."""
    under_way = under_way_s(recorder)
    if not under_way:
        return one_s
    moments = recorder.moments.view()
    later = ~np.isin(moments["kind"], ONCE) & (moments["tags"] & int(Tag.COMPILE) == 0)
    step_s = float(np.median(_to_the_next(moments)[later][-RECENT:])) / 1e9 if later.any() else 0.0
    return max(one_s - under_way, min(step_s, one_s))


def under_way_s(recorder: Recorder) -> float:
    """Seconds since the request that is under way began; 0 between two."""
    requests = recorder.requests.view()
    if not len(requests["end_ns"]) or requests["end_ns"][-1] != NOT_MEASURED:
        return 0.0
    return max(0.0, (recorder.now_ns() - int(requests["start_ns"][-1])) / 1e9)


def requests_left(asked: int | None, done: int, measured_s: float, one_s: float | None) -> int:
    """How many requests that count are still to come, the one under way among them: as asked, or at most so many.

    Args:
        asked: so many; None: until their latency is known well enough.
        done: how many are over.
        measured_s: their latencies together.
        one_s: seconds that one takes.
    """
    if asked is not None:
        return max(0, asked - done)
    return max(1, most_requests(done, measured_s, measured_s / done if done else one_s) - done)


def _from_moments(moments: dict[str, Array], steps: int) -> float | None:
    calm = moments["tags"] & int(Tag.COMPILE) == 0
    first = np.isin(moments["kind"], ONCE)
    took = _to_the_next(moments)
    if not calm.any():
        return None
    requests = max(1, len(np.unique(moments["request"])))
    begin = float(took[calm & first].sum()) / requests
    rest = took[calm & ~first]
    if steps > 1 and not len(rest):
        return None  # a first moment says nothing of those after it
    return (begin + (float(np.mean(rest)) * max(0, steps - int(first.any())) if len(rest) else 0.0)) / 1e9


def _to_the_next(moments: dict[str, Array]) -> Array:
    """Nanoseconds from each moment's beginning to that of the next one of its request.

    What is between two is in it, pauses and sampling: those were a quarter of each token on a busy machine, and "at most 0:47
    left" took 58 s. The last of a request, which none follows, has the median of the others.
    """
    start, took = moments["start_ns"], moments["duration_ns"].copy()
    follows = moments["request"][1:] == moments["request"][:-1]
    between = (start[1:] - start[:-1] - took[:-1])[follows]
    gaps = np.full(len(took), np.median(between) if len(between) else 0.0)
    gaps[:-1][follows] = between
    return took + np.maximum(gaps, 0)
