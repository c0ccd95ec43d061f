"""The raw samples behind each metric of a run: TTFT, TPOT, ITL, E2E and throughputs, from the moments that count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from core.analysis.select import SET_ASIDE, counted, first_tokens, of_kind, tagged
from core.analysis.token_intervals import gap_tags, tokens_given
from core.records.run import Run
from profilers.trace import Array, Tag

_NONE = np.empty(0)


@dataclass(frozen=True)
class Samples:
    """One array each, empty where it does not apply. What they are, and who says so: ``core.analysis.metrics``."""

    ttft_ns: Array = field(default_factory=lambda: _NONE)
    prefill_ns: Array = field(default_factory=lambda: _NONE)
    itl_ns: Array = field(default_factory=lambda: _NONE)
    tpot_ns: Array = field(default_factory=lambda: _NONE)  # not the mean gap where tokens are guessed
    e2e_ns: Array = field(default_factory=lambda: _NONE)
    prefill_tokens_per_s: Array = field(default_factory=lambda: _NONE)
    prefill_only_tokens_per_s: Array = field(default_factory=lambda: _NONE)
    decode_tokens_per_s: Array = field(default_factory=lambda: _NONE)
    input_tokens_per_s: Array = field(default_factory=lambda: _NONE)
    gap_request: Array = field(default_factory=lambda: _NONE)  # of each of ``itl_ns``; the others have one value a request


def samples(run: Run) -> Samples:
    """The samples of a run, live or finished. Only clean gaps count (see ``select.counted``)."""
    requests = run.trace.requests
    # A live snapshot views requests before moments, so the newest moment may belong to a request that is not seen yet.
    known = run.trace.moments["request"] < len(requests["tags"])
    moments = {name: column[known] for name, column in run.trace.moments.items()}
    if not len(moments["tags"]):
        return Samples()
    moments["tags"] = gap_tags(moments)
    if of_kind(moments, "forward").any():
        return _encoder(requests, moments, run.config.workload.batch)
    return _generation(requests, moments, run.config.workload.batch)


@dataclass(frozen=True)
class RequestTimes:
    """One value per measured request (neither warm-up nor profiled), in their order; NaN where it is not known.

    A request without a clean moment of the sort (a traced one), or that was cut short, has none. Of its moments those count
    that ``select.counted`` would take, request by request: perturbed and settling ones only where there is no calm one.
    """

    ttft_ns: Array = field(default_factory=lambda: _NONE)  # NaN for encoders
    tpot_ns: Array = field(default_factory=lambda: _NONE)  # mean of the gaps; NaN with fewer than two tokens, and for encoders
    e2e_ns: Array = field(default_factory=lambda: _NONE)
    stretch_ns: Array = field(default_factory=lambda: np.empty((0, 1)))  # TPOT of each stretch: (requests, stretches)


def request_times(run: Run, parts: int = 1) -> RequestTimes:
    """The latency of each measured request, in ns, for the pairing of A/B tests: fast enough for every round.

    Args:
        run: live or finished.
        parts: in how many stretches of equally many tokens ``stretch_ns`` divides those after the first.
    """
    requests = run.trace.requests
    count = len(requests["tags"])
    known = (run.trace.moments["request"] >= 0) & (run.trace.moments["request"] < count)
    columns = ("request", "tags", "kind", "latency_ns", "duration_ns", "accepted")
    moments = {name: run.trace.moments[name][known] for name in columns}
    moments["tags"] = gap_tags(moments)
    token = moments["latency_ns"] >= 0
    clean = tagged(moments, Tag.CLEAN) & ~tagged(moments, SET_ASIDE | Tag.TRACED)
    if of_kind(moments, "forward").any():
        ttft = tpot = np.full(count, np.nan)
        stretch = np.full((count, parts), np.nan)
        e2e = _means(
            moments["request"], _whole_calls(requests, moments), _calm(moments, clean & _last_calls(moments), count), count
        )
    else:
        first = first_tokens(moments)
        ttft = _means(moments["request"], moments["latency_ns"], _calm(moments, clean & first, count), count)
        later = _calm(moments, clean & token & ~first, count)
        tpot = _tpot(requests, moments, later)
        stretch = _stretches(requests, moments, later, token & ~first, parts)
        more = requests["output_tokens"] - _begun(moments, count)
        e2e = ttft + np.where(more > 0, (requests["output_tokens"] - 1) * tpot, 0)
    rows = np.flatnonzero(~tagged(requests, Tag.WARMUP | Tag.PROFILED))
    ended = _whole(requests, moments, rows)
    ttft, tpot, e2e = (np.where(ended, values[rows], np.nan) for values in (ttft, tpot, e2e))
    return RequestTimes(ttft, tpot, e2e, np.where(ended[:, None], stretch[rows], np.nan))


def _whole(requests: Mapping[str, Array], moments: Mapping[str, Array], rows: Array) -> Array:
    """Which of the requests ran to their end (greedy requests are all of one length) and are all in the snapshot."""
    if not len(rows):
        return np.zeros(0, bool)
    tokens = requests["output_tokens"][rows]
    seen = np.bincount(moments["request"], tokens_given(moments), minlength=len(requests["tags"]))[rows]
    return (requests["end_ns"][rows] >= 0) & (tokens == tokens.max()) & (seen == tokens)


def _calm(moments: Mapping[str, Array], usable: Array, count: int) -> Array:
    """Of the usable moments of each request the calm ones; where none is, the settling ones too, and so on."""
    level = np.where(tagged(moments, Tag.PERTURBED), 2, np.where(tagged(moments, Tag.SETTLING), 1, 0))
    best = np.full(count, 2)
    np.minimum.at(best, moments["request"][usable], level[usable])
    return usable & (level <= best[moments["request"]])


def _means(group: Array, values: Array, where: Array, count: int) -> Array:
    """Mean of the chosen values by group; NaN where there is none."""
    n = np.bincount(group[where], minlength=count)
    sums = np.bincount(group[where], weights=values[where], minlength=count)
    return np.divide(sums, n, out=np.full(count, np.nan), where=n > 0)


def _tpot(requests: Mapping[str, Array], moments: Mapping[str, Array], later: Array) -> Array:
    """(E2E - TTFT) / (n - 1) of each request from its gaps ``later`` than the first, of which some may be left out.

    The mean time of a token in these gaps, times the tokens that came after the first gap, over n - 1. A first gap may end in
    several tokens, where guesses were right; then these two numbers differ. NaN where no gap is left.
    """
    request, count = moments["request"], len(requests["tags"])
    tokens = np.bincount(request[later], tokens_given(moments)[later], minlength=count)
    sums = np.bincount(request[later], moments["latency_ns"][later], minlength=count)
    each = np.divide(sums, tokens, out=np.full(count, np.nan), where=tokens > 0)
    begun, produced = _begun(moments, count), requests["output_tokens"]
    usable = (produced > 1) & (produced > begun)  # 0 while the request is running
    return each * np.divide(produced - begun, produced - 1, out=np.ones(count), where=usable)


def _stretches(requests: Mapping[str, Array], moments: Mapping[str, Array], later: Array, gaps: Array, parts: int) -> Array:
    """Mean time of a token in each of so many equal stretches of each request, as (requests, parts); NaN where none is left.

    Args:
        requests: as in a trace.
        moments: as in a trace.
        later: the gaps that count.
        gaps: all gaps after the first token, which say where in its request each one lies.
        parts: how many stretches.
    """
    request, count = moments["request"], len(requests["tags"])
    tokens = np.where(gaps, tokens_given(moments), 0)
    upto = np.cumsum(tokens)
    total = np.bincount(request, tokens, minlength=count)
    before = np.cumsum(total) - total  # moments lie in the order of their requests
    middle = upto - tokens / 2 - before[request]
    part = np.clip(np.floor(middle * parts / np.maximum(total[request], 1)), 0, parts - 1).astype(np.int64)
    cell = request.astype(np.int64) * parts + part
    sums = np.bincount(cell[later], moments["latency_ns"][later], minlength=count * parts)
    given = np.bincount(cell[later], tokens[later], minlength=count * parts)
    return np.divide(sums, given, out=np.full(count * parts, np.nan), where=given > 0).reshape(count, parts)


def _begun(moments: Mapping[str, Array], count: int) -> Array:
    """Tokens that became visible together as the first of each request."""
    first = first_tokens(moments)
    return np.bincount(moments["request"][first], tokens_given(moments)[first], minlength=count)


def _generation(requests: Mapping[str, Array], moments: Mapping[str, Array], batch: int) -> Samples:
    latency, request = moments["latency_ns"], moments["request"]
    first = first_tokens(moments)
    later = counted(moments, (latency >= 0) & ~first)
    chosen = counted(moments, first)
    tpot = _tpot(requests, moments, later)

    ttft, at = latency[chosen].astype(np.float64), request[chosen]
    prefill = ttft - np.maximum(requests["tokenize_ns"][at], 0)
    produced = requests["output_tokens"][at]
    more = produced > _begun(moments, len(requests["tags"]))[at]
    e2e = ttft + np.where(more, (produced - 1) * tpot[at], 0)
    e2e = e2e[(requests["end_ns"][at] >= 0) & ~np.isnan(e2e)]
    tpot = tpot[~np.isnan(tpot)]
    input_tokens = requests["input_tokens"][at] * batch
    return Samples(
        ttft_ns=ttft,
        prefill_ns=prefill,
        itl_ns=latency[later].astype(np.float64),
        gap_request=request[later],
        tpot_ns=tpot,
        e2e_ns=e2e,
        prefill_tokens_per_s=_per_second(input_tokens, ttft),
        prefill_only_tokens_per_s=_per_second(input_tokens, prefill),
        decode_tokens_per_s=_per_second(np.full(len(tpot), batch), tpot),
    )


def _encoder(requests: Mapping[str, Array], moments: Mapping[str, Array], batch: int) -> Samples:
    chosen = counted(moments, of_kind(moments, "forward") & _last_calls(moments))
    at = moments["request"][chosen]
    e2e = _whole_calls(requests, moments)[chosen].astype(np.float64)
    return Samples(e2e_ns=e2e, input_tokens_per_s=_per_second(requests["input_tokens"][at] * batch, e2e))


def _last_calls(moments: Mapping[str, Array]) -> Array:
    """Which forwards end their request: those with a latency; a long text takes several. All, where none has one."""
    ended = np.isin(moments["request"], moments["request"][moments["latency_ns"] >= 0])
    return (moments["latency_ns"] >= 0) | ~ended


def _whole_calls(requests: Mapping[str, Array], moments: Mapping[str, Array]) -> Array:
    """The whole request's time at each forward: its latency; where it has none its duration with the tokenisation."""
    spent_ns = moments["duration_ns"].astype("i8")
    asked = moments["request"] >= 0  # an imported trace has no requests
    spent_ns[asked] += np.maximum(requests["tokenize_ns"], 0)[moments["request"][asked]]
    return np.where(moments["latency_ns"] >= 0, moments["latency_ns"], spent_ns)


def _per_second(tokens: Array, time_ns: Array) -> Array:
    positive = time_ns > 0
    return tokens[positive] / (time_ns[positive] / 1e9)
