"""The raw samples behind each metric of a run: TTFT, TPOT, ITL, E2E and throughputs, from the moments that count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from core.analysis.select import SET_ASIDE, counted, first_tokens, of_kind, tagged
from core.session.run import Run
from profilers.trace import Array, Tag

_NONE = np.empty(0)


@dataclass(frozen=True)
class Samples:
    """One array per metric, empty where it does not apply. Definitions and their sources: ``measures.md`` §1."""

    ttft_ns: Array = field(default_factory=lambda: _NONE)  # request accepted → first token; tokenisation included
    prefill_ns: Array = field(default_factory=lambda: _NONE)  # the same without tokenisation
    itl_ns: Array = field(default_factory=lambda: _NONE)  # gaps between tokens, pooled over requests
    tpot_ns: Array = field(default_factory=lambda: _NONE)  # per request: mean of its gaps
    e2e_ns: Array = field(default_factory=lambda: _NONE)  # per request: TTFT + (n - 1) · TPOT; encoders: the whole call
    prefill_tokens_per_s: Array = field(default_factory=lambda: _NONE)  # input tokens · batch / TTFT
    prefill_only_tokens_per_s: Array = field(default_factory=lambda: _NONE)  # input tokens · batch / (TTFT - tokenisation)
    decode_tokens_per_s: Array = field(default_factory=lambda: _NONE)  # (n - 1) · batch / (E2E - TTFT) = batch / TPOT
    input_tokens_per_s: Array = field(default_factory=lambda: _NONE)  # encoders: input tokens · batch / E2E


def samples(run: Run) -> Samples:
    """The samples of a run, live or finished. Only clean moments count (see ``select.counted``)."""
    requests = run.trace.requests
    # A live snapshot views requests before moments, so the newest moment may belong to a request that is not seen yet.
    known = run.trace.moments["request"] < len(requests["tags"])
    moments = {name: column[known] for name, column in run.trace.moments.items()}
    if not len(moments["tags"]):
        return Samples()
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


def request_times(run: Run) -> RequestTimes:
    """The latency of each measured request, in ns, for the pairing of trials: fast enough for every round."""
    requests = run.trace.requests
    count = len(requests["tags"])
    known = run.trace.moments["request"] < count
    moments = {name: run.trace.moments[name][known] for name in ("request", "tags", "kind", "latency_ns", "duration_ns")}
    token = moments["latency_ns"] >= 0
    clean = tagged(moments, Tag.CLEAN) & ~tagged(moments, SET_ASIDE | Tag.TRACED)
    if of_kind(moments, "forward").any():
        spent_ns = moments["duration_ns"] + np.maximum(requests["tokenize_ns"], 0)[moments["request"]]
        latency = np.where(token, moments["latency_ns"], spent_ns)
        ttft = tpot = np.full(count, np.nan)
        e2e = _means(moments["request"], latency, _calm(moments, clean, count), count)
    else:
        first = first_tokens(moments)
        unclean = moments["request"][(moments["latency_ns"] < 0) & ~tagged(moments, Tag.CLEAN)]
        whole = clean & first & ~np.isin(moments["request"], unclean)
        ttft = _means(moments["request"], moments["latency_ns"], _calm(moments, whole, count), count)
        later = _calm(moments, clean & token & ~first, count)
        tpot = _means(moments["request"], moments["latency_ns"], later, count)
        gaps = requests["output_tokens"] - 1
        e2e = ttft + np.where(gaps > 0, gaps * tpot, 0)
    rows = np.flatnonzero(~tagged(requests, Tag.WARMUP | Tag.PROFILED))
    ended = _whole(requests, moments["request"][token], rows)
    return RequestTimes(*(np.where(ended, values[rows], np.nan) for values in (ttft, tpot, e2e)))


def _whole(requests: Mapping[str, Array], token_of: Array, rows: Array) -> Array:
    """Which of the requests ran to their end (greedy requests are all of one length) and are all in the snapshot."""
    if not len(rows):
        return np.zeros(0, bool)
    tokens = requests["output_tokens"][rows]
    seen = np.bincount(token_of, minlength=len(requests["tags"]))[rows]
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


def _generation(requests: Mapping[str, Array], moments: Mapping[str, Array], batch: int) -> Samples:
    latency, request = moments["latency_ns"], moments["request"]
    first = first_tokens(moments)
    later = counted(moments, (latency >= 0) & ~first)
    # The first token of a chunked prefill is clean only if the chunks before it, which gave no token, were.
    traced_chunks = request[(latency < 0) & ~tagged(moments, Tag.CLEAN)]
    chosen = counted(moments, first & ~np.isin(request, traced_chunks))

    gaps = np.bincount(request[later], minlength=len(requests["tags"]))
    sums = np.bincount(request[later], weights=latency[later], minlength=len(requests["tags"]))
    tpot = np.divide(sums, gaps, out=np.full(len(gaps), np.nan), where=gaps > 0)

    ttft, at = latency[chosen].astype(np.float64), request[chosen]
    prefill = ttft - np.maximum(requests["tokenize_ns"][at], 0)
    produced = requests["output_tokens"][at]
    e2e = ttft + np.where(produced > 1, (produced - 1) * tpot[at], 0)
    e2e = e2e[(requests["end_ns"][at] >= 0) & ~np.isnan(e2e)]
    tpot = tpot[~np.isnan(tpot)]
    input_tokens = requests["input_tokens"][at] * batch
    return Samples(
        ttft_ns=ttft,
        prefill_ns=prefill,
        itl_ns=latency[later].astype(np.float64),
        tpot_ns=tpot,
        e2e_ns=e2e,
        prefill_tokens_per_s=_per_second(input_tokens, ttft),
        prefill_only_tokens_per_s=_per_second(input_tokens, prefill),
        decode_tokens_per_s=_per_second(np.full(len(tpot), batch), tpot),
    )


def _encoder(requests: Mapping[str, Array], moments: Mapping[str, Array], batch: int) -> Samples:
    chosen = counted(moments, of_kind(moments, "forward"))
    at = moments["request"][chosen]
    without = moments["duration_ns"][chosen] + np.maximum(requests["tokenize_ns"][at], 0)
    latency = moments["latency_ns"][chosen]
    e2e = np.where(latency >= 0, latency, without).astype(np.float64)
    return Samples(e2e_ns=e2e, input_tokens_per_s=_per_second(requests["input_tokens"][at] * batch, e2e))


def _per_second(tokens: Array, time_ns: Array) -> Array:
    positive = time_ns > 0
    return tokens[positive] / (time_ns[positive] / 1e9)
