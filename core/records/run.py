"""One run as every view sees it: what was asked, what is known about it, and its columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.config import ABTestConfig, RunConfig
from core.messages.reason import Reason, of_text
from core.models.base import ModelFacts
from core.pass_api.base import PassReport
from core.records.roofline import Ceilings, LayerProduct
from core.targets.base import TargetFacts
from profilers.trace import Trace

STATUSES = ("running", "finished", "cancelled", "failed", "interrupted", "imported")

UNREADABLE = "unreadable"
"""The status in lists of a run that a file holds but that cannot be made sense of; no file says it of itself."""


_SAID = {
    "running": Reason("records.running"),
    "finished": Reason("records.finished"),
    "cancelled": Reason("records.cancelled"),
    "failed": Reason("records.failed"),
    "interrupted": Reason("records.interrupted"),
    "imported": Reason("records.imported"),
    UNREADABLE: Reason("records.unreadable"),
}


def status_said(status: str) -> Reason:
    """A status as people read it; one that a file made up as it is."""
    return _SAID.get(status) or of_text(status)


@dataclass(frozen=True)
class Unavailable:
    """Something that was not measured, and why. ``what`` is an id: a metric, an instrument, a part of a run."""

    what: str
    why: Reason


@dataclass(frozen=True)
class Group:
    """What runs have in common that belong together, such as the sides of one A/B test.

    ``kind`` is that of the job that made them, ``created`` ISO 8601 UTC. ``config`` is what was asked of all of them at once;
    None where that is not known (files of before did not hold it).
    """

    id: str
    kind: str
    created: str
    config: ABTestConfig | None = None


@dataclass(frozen=True)
class ABTestPart:
    """A run that was one side of an A/B test: sides took turns, request by request, so they may be compared with a verdict.

    ``id`` is shared by the sides of one A/B test; ``side`` is 0 for the one that the others are compared with; ``order`` is the
    sequence of sides in which measured requests ran. ``floors`` has by metric the relative difference below which nothing is
    told apart (from this machine's A/A test; empty: none was made). ``same``: an A/A test, all sides are one configuration.
    """

    id: str
    side: int
    sides: int
    order: tuple[int, ...] = ()
    floors: Mapping[str, float] = field(default_factory=dict)
    same: bool = False
    most_rounds: int = 60  # the cap it began with, which the verdicts' looks were planned for
    parts: int = 1  # stretches of tokens in which TPOT is compared, of each request; see ``stopping.stretches``


@dataclass(frozen=True)
class Estimate:
    """One number of quality with its standard error (None: none can be given, as for a maximum), and what it rests on.

    ``n`` values (positions, examples) are in it, in ``windows`` that are independent: windows of a text, sentences
    or examples, over which the error is taken. None: an extreme, or a file of before, which did not say.
    """

    value: float
    error: float | None = None
    n: int | None = None
    windows: int | None = None


@dataclass(frozen=True)
class Quality:
    """What a run's passes cost in quality, against the same model without them, on the same text.

    ``figures`` by name; those of language models over the full vocabulary, direction unoptimized‖optimized:
    ``kld_mean``, ``kld_p99``, ``kld_max`` (nats), ``same_top`` (share), ``ln_ppl_ratio``, ``rms_dp`` (share),
    ``decode_kld_mean``, ``decode_same_top`` (the same through the decoding path, token by token), ``token_agreement`` (share of
    greedy tokens equal up to the first that is not); encoders ``cosine_mean``, ``cosine_min``, ``neighbours`` (share);
    classifiers ``same_top``, ``accuracy``, ``accuracy_before``. ``layer_sqnr_db`` is the signal-to-noise ratio of each layer's
    output in dB by its path (None: equal bit for bit). ``lossless``: whether greedy tokens equalled those of the unoptimized
    model, for passes that claim it. ``baseline`` says what "unoptimized" was ("float32 as loaded from GGUF Q4_1").
    ``second_text`` is a text of another kind beside it; its figures have ``second_`` before their names. Which of them a run is
    told by, ``core.analysis.quality_headline`` says.
    """

    figures: Mapping[str, Estimate] = field(default_factory=dict)
    text: str = ""  # what it was measured on: "shipped text", or the file's name
    positions: int = 0  # scored positions, or examples
    baseline: str = ""
    layer_sqnr_db: Mapping[str, float | None] = field(default_factory=dict)
    lossless: bool | None = None
    notes: tuple[Reason, ...] = ()
    took_ns: int = 0
    second_text: str = ""  # "": there was none
    second_positions: int = 0


def file_is_quantized(stored: str) -> Reason:
    """The note of a quality cost that the model's own file holds few bits (``stored``, "GGUF Q4_1") already."""
    return Reason("records.file-is-quantized", stored=stored)


@dataclass(frozen=True)
class RunFacts:
    """Everything about a run that is not a column. Replaced as a whole whenever something becomes known."""

    status: str = "running"
    error: Reason | None = None
    model: ModelFacts | None = None
    target: TargetFacts | None = None
    threads: int | None = None
    executor: str = "local"  # in which process it was carried out, of ``execution.executors``
    passes: tuple[PassReport, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    load_ns: int | None = None
    apply_ns: int | None = None
    compile_ns: int | None = None  # time spent compiling, never inside latency
    cold_start_ns: int | None = None  # load + apply + time to first token of the first, cold request
    rss_before_bytes: int | None = None  # before the model was loaded
    rss_loaded_bytes: int | None = None  # with the model and its passes, before the first request
    rss_peak_bytes: int | None = None
    weights_bytes: int | None = None
    device_peak_bytes: int | None = None
    paused_ns: int = 0
    planned_moments: int = 0
    unavailable: tuple[Unavailable, ...] = ()
    instruments: Mapping[str, Any] = field(default_factory=dict)  # by id: source, period, threads counted and the like
    phase_peak_bytes: Mapping[str, int] = field(
        default_factory=dict
    )  # resident peak while loading, warming up, prefill, decode
    warmup_done: Reason | None = None  # how warm-up ended: "no faster after 4 requests", "as asked", "skipped"
    stopped: Reason | None = None  # why no more requests were made: "as asked", "TPOT known to 1 %", "cap of 30 reached"
    competitors: tuple[str, ...] = ()  # other processes that computed meanwhile, busiest first: "cc1plus (61 % of a core)"
    trial: ABTestPart | None = None
    layer_products: Mapping[str, LayerProduct] = field(
        default_factory=dict
    )  # by path of each layer that multiplies with a weight
    ceilings: Ceilings | None = None  # of the machine with these threads; None: not measured yet
    given: tuple[str, ...] = ()  # what the model was given of the prompts, where that is more than one prompt as it is
    quality: Quality | None = None  # None: not measured (``unavailable`` says why where it was asked for)

    def why_missing(self, *whats: str) -> Reason | None:
        """The first reason that was noted for one of these ids (see ``Unavailable``); None where there is none."""
        return next((one.why for one in self.unavailable if one.what in whats), None)


@dataclass(frozen=True)
class Run:
    """A run, live or from a file. ``id`` is its number in its session (from 1); ``created`` is ISO 8601 UTC.

    ``role`` is its place in its ``group`` (in an A/B test the number of its side); 0 where it belongs to none.
    """

    id: int
    name: str
    created: str
    config: RunConfig
    facts: RunFacts
    trace: Trace
    note: str = ""
    group: Group | None = None
    role: int = 0

    @property
    def imported(self) -> bool:
        """Whether another profiler wrote it down: its configuration is a placeholder, since nobody here asked anything."""
        return self.facts.status == "imported"
