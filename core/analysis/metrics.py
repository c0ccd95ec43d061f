"""The metrics of a run, each declared once: tiles, reports, comparisons, verdicts, missing data, JSON and docs loop over them.

A metric is one number of a run. What needs a picture (a course, a distribution over layers) is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from core.analysis.counts import PerToken, per_token
from core.analysis.energy import energy
from core.analysis.memory import kv_cache_bytes, rss_peak_bytes
from core.analysis.samples import RequestTimes, Samples, samples
from core.analysis.statistics import Spread, spread
from core.messages.catalogue import translated
from core.records.run import Run
from profilers import trace
from profilers.trace import Array

LOWER, HIGHER = "lower", "higher"
FIRST, LATER, WHOLE, INPUT = trace.FIRST, trace.LATER, trace.WHOLE, "input"
"""What a metric is made of: a part of a request (``trace.PART_OF``), or what an encoder reads."""

LATENCY, PER_TOKEN, MEMORY, START, ENERGY = "latency", "per token", "memory", "start", "energy"
"""Tables of a report; in JSON the first two are the part ``metrics``, ``START`` is the run itself."""


class Sampled(NamedTuple):
    """The samples of a metric, and the request of each; None: each is of another one."""

    values: Array
    requests: Array | None = None


@dataclass(frozen=True)
class Measured:
    """A run that metrics are read from; what several are read from is worked out once."""

    run: Run

    @cached_property
    def samples(self) -> Samples:
        return samples(self.run)

    @cached_property
    def counts(self) -> dict[str, PerToken]:
        return per_token(self.run)


@dataclass(frozen=True)
class Judged:
    """That a verdict is given on a metric, which must be a time: less is faster.

    Args:
        place: among the metrics of a verdict; the first that a run has is what the run is about.
        risk: its part of the chance of a false verdict, against the others'.
        of: one value per request.
        stretches: one value per stretch of each request's tokens instead, where sides take turns token by token.
    """

    place: int
    risk: float
    of: Callable[[RequestTimes], Array]
    stretches: bool = False


@dataclass(frozen=True)
class Metric:
    """One number of a run.

    Args:
        id: its name in JSON, files and floors, which is a promise.
        title: what people call it, in English.
        unit: "ns", "tok/s", "bytes", "count" or "J".
        better: ``LOWER`` or ``HIGHER``.
        definition: what it is, in a sentence or two.
        source: who else defines it so, or calls it otherwise; "" where it is only ours.
        of: its samples, or the one value that a run has (None: not measured).
        table: in which table of a report it stands.
        made_of: which moments it is made of; "" where that is no question of moments.
        shown: whether reports and comparisons have a row of it, and its absence has a reason. JSON has all.
        listed: whether lists of runs have a column of it.
        tile: its place among the tiles of the window, None for no tile.
        judged: how verdicts use it, None: they do not.
    """

    id: str
    title: str
    unit: str
    better: str
    definition: str
    source: str
    of: Callable[[Measured], Sampled | float | None]
    table: str = LATENCY
    made_of: str = ""
    shown: bool = True
    listed: bool = False
    tile: int | None = None
    judged: Judged | None = None

    @property
    def called(self) -> str:
        """Its title in the language that is spoken."""
        return translated(f"metric.{self.id}.title", self.title)

    @property
    def explained(self) -> str:
        """The definition, with what others call it, in the language that is spoken."""
        parts = (("definition", self.definition), ("source", self.source))
        return " ".join(translated(f"metric.{self.id}.{name}", text) for name, text in parts if text)

    def spread(self, measured: Measured, *, intervals: bool = True) -> Spread:
        """Its spread in a run; ``n`` 0 where it was not measured. A single value is a spread of one."""
        found = self.of(measured)
        if not isinstance(found, Sampled):
            found = Sampled(np.empty(0) if found is None else np.array([found]))
        return spread(found.values, found.requests, intervals=intervals)

    def value(self, measured: Measured) -> float | None:
        """The number that stands for it: the median of its samples, or its one value."""
        found = self.of(measured)
        return self.spread(measured, intervals=False).median if isinstance(found, Sampled) else found


METRICS: tuple[Metric, ...] = (
    Metric(
        "ttft_ns",
        "TTFT",
        "ns",
        LOWER,
        "Time to first token: from the request's acceptance to its first visible token, tokenisation included.",
        "",
        lambda of: Sampled(of.samples.ttft_ns),
        made_of=FIRST,
        listed=True,
        tile=2,
        judged=Judged(2, 0.4, lambda times: times.ttft_ns),
    ),
    Metric(
        "prefill_ns",
        "TTFT without tokenisation",
        "ns",
        LOWER,
        "TTFT less the time of tokenisation.",
        "",
        lambda of: Sampled(of.samples.prefill_ns),
        made_of=FIRST,
        shown=False,
    ),
    Metric(
        "tpot_ns",
        "TPOT",
        "ns",
        LOWER,
        "Time per output token of one request: (E2E − TTFT) / (n − 1) from its clean gaps, undefined for one token; "
        "percentiles are over requests.",
        "vLLM's TPOT; AIPerf calls this number ITL.",
        lambda of: Sampled(of.samples.tpot_ns),
        made_of=LATER,
        listed=True,
        tile=3,
        judged=Judged(1, 0.4, lambda times: times.tpot_ns, stretches=True),
    ),
    Metric(
        "itl_ns",
        "ITL",
        "ns",
        LOWER,
        "Inter-token latency: the gap from one visible token to the next, pooled over all requests; percentiles are over gaps.",
        "As vLLM defines it. Name clash: AIPerf's ITL is our TPOT, and vLLM's ITL is about AIPerf's ICL.",
        lambda of: Sampled(of.samples.itl_ns, of.samples.gap_request),
        made_of=LATER,
        tile=4,
    ),
    Metric(
        "e2e_ns",
        "E2E",
        "ns",
        LOWER,
        "From the request's acceptance to its last token: TTFT + (n − 1) · TPOT of a request whose prefill was clean; "
        "of an encoder the whole call.",
        "",
        lambda of: Sampled(of.samples.e2e_ns),
        made_of=WHOLE,
        listed=True,
        judged=Judged(3, 0.2, lambda times: times.e2e_ns),  # it follows from the other two
    ),
    Metric(
        "prefill_tokens_per_s",
        "Prefill",
        "tok/s",
        HIGHER,
        "Input tokens · batch / TTFT.",
        "",
        lambda of: Sampled(of.samples.prefill_tokens_per_s),
        made_of=FIRST,
    ),
    Metric(
        "prefill_only_tokens_per_s",
        "Prefill without tokenisation",
        "tok/s",
        HIGHER,
        "Input tokens · batch / (TTFT − tokenisation).",
        "",
        lambda of: Sampled(of.samples.prefill_only_tokens_per_s),
        made_of=FIRST,
        shown=False,
    ),
    Metric(
        "decode_tokens_per_s",
        "Decode",
        "tok/s",
        HIGHER,
        "Decoded tokens per second of the whole batch: (n − 1) · batch / (E2E − TTFT) = batch / TPOT.",
        "",
        lambda of: Sampled(of.samples.decode_tokens_per_s),
        made_of=LATER,
        listed=True,
        tile=1,
    ),
    Metric(
        "input_tokens_per_s",
        "Input",
        "tok/s",
        HIGHER,
        "Of encoders: input tokens · batch / E2E.",
        "",
        lambda of: Sampled(of.samples.input_tokens_per_s),
        made_of=INPUT,
    ),
    Metric(
        "cycles_per_token",
        "Cycles",
        "count",
        LOWER,
        "Clock cycles of the processor, in user space, over every thread that computes, in a median clean decode moment per "
        "token.",
        "Read from the processor's own counters: nanoseconds times a nominal clock is not a cycle count.",
        lambda of: Sampled(*of.counts["cycles_per_token"]),
        table=PER_TOKEN,
        tile=9,
    ),
    Metric(
        "instructions_per_token",
        "Instructions",
        "count",
        LOWER,
        "Instructions of the same threads and moments, per token.",
        "",
        lambda of: Sampled(*of.counts["instructions_per_token"]),
        table=PER_TOKEN,
    ),
    Metric(
        "cpu_ns_per_token",
        "CPU time, all threads",
        "ns",
        LOWER,
        "Time on a processor, summed over the same threads, per token.",
        "By the kernel's clock of each thread.",
        lambda of: Sampled(*of.counts["cpu_ns_per_token"]),
        table=PER_TOKEN,
    ),
    Metric(
        "rss_peak_bytes",
        "Peak memory",
        "bytes",
        LOWER,
        "The most resident memory that the process had.",
        "The kernel's own high-water mark since the run began (Linux); elsewhere the largest sample.",
        lambda of: rss_peak_bytes(of.run),
        table=MEMORY,
        tile=5,
    ),
    Metric(
        "weights_bytes",
        "Weights",
        "bytes",
        LOWER,
        "What the model's weights take as they are held while it runs.",
        "",
        lambda of: of.run.facts.weights_bytes,
        table=MEMORY,
    ),
    Metric(
        "kv_cache_bytes",
        "KV cache",
        "bytes",
        LOWER,
        "The largest size of the cache of keys and values.",
        "",
        lambda of: kv_cache_bytes(of.run),
        table=MEMORY,
    ),
    Metric(
        "device_peak_bytes",
        "Device peak",
        "bytes",
        LOWER,
        "The most memory that was in use on the accelerator.",
        "By torch's allocator.",
        lambda of: of.run.facts.device_peak_bytes,
        table=MEMORY,
    ),
    Metric(
        "load_ns",
        "Load",
        "ns",
        LOWER,
        "Loading the model, before passes are applied.",
        "",
        lambda of: of.run.facts.load_ns,
        table=START,
    ),
    Metric(
        "joules_per_token",
        "Energy",
        "J",
        LOWER,
        "Joules over the measured time (no warm-up, no pauses) per token that was made.",
        "Only what a counter says: nothing is guessed from nominal power.",
        lambda of: None if (found := energy(of.run)) is None else found.joules_per_token,
        table=ENERGY,
        tile=10,
    ),
)


def of_table(*tables: str) -> tuple[Metric, ...]:
    """The metrics of these tables, in their order."""
    return tuple(one for one in METRICS if one.table in tables)


def judged() -> tuple[Metric, ...]:
    """Those that verdicts are given on, the first that a run has being what it is about."""
    ranked = {one.judged.place: one for one in METRICS if one.judged is not None}
    return tuple(ranked[place] for place in sorted(ranked))


def title(metric_id: str) -> str:
    """What people call a metric; the id itself where another version's file names one that there is not."""
    return next((one.called for one in METRICS if one.id == metric_id), metric_id)


def explained(metric_id: str) -> str:
    """What a metric is; "" where there is none of this id."""
    return next((one.explained for one in METRICS if one.id == metric_id), "")
