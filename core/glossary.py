"""The words that Tickscope uses, each with what it means: one list for the window, the command line and the documents."""

from __future__ import annotations

from typing import NamedTuple

from core.analysis import metrics
from core.messages.catalogue import translated


class Term(NamedTuple):
    """A word, other words under which it is looked for, and one or two sentences about it."""

    word: str
    also: tuple[str, ...]
    meaning: str

    @property
    def explained(self) -> str:
        """The meaning in the language that is spoken; the word itself is that of the field."""
        return translated(f"term.{self.word.lower().replace(' ', '-')}.meaning", self.meaning)


def _metric(metric_id: str, also: tuple[str, ...], more: str = "", *, word: str = "") -> Term:
    """The term for a metric, which means what its declaration says, and ``more``."""
    return Term(word or metrics.title(metric_id), also, f"{metrics.explained(metric_id)} {more}".rstrip())


GLOSSARY = (
    Term(
        "moment",
        ("step", "forward pass"),
        "One forward pass of the whole model: a prefill, a decode step, a verification of guessed tokens, or one call of "
        "an encoder. Everything that is measured belongs to a moment.",
    ),
    Term(
        "clean",
        (),
        "A moment in which no layer was timed, so that nothing of the instruments is in it. Headline numbers come from "
        "clean moments alone.",
    ),
    Term(
        "traced",
        ("layer clock",),
        "A moment in which every layer was timed. Traced and clean moments alternate; layer times are scaled to the clean "
        "ones.",
    ),
    Term(
        "perturbed",
        ("disturbed", "noise"),
        "A moment in which the machine was not ours: other programs computed, the system took the processor away, or the "
        "window painted. It is kept and shown, and left out of headline numbers.",
    ),
    Term(
        "warm-up",
        ("cold", "settling"),
        "Requests before those that count. The first ones are slower: memory is touched for the first time, caches are "
        "empty, kernels are chosen. What is shown of them is provisional.",
    ),
    Term(
        "prefill",
        (),
        "The moment that reads the whole prompt at once and gives the first token. It is bound by arithmetic.",
    ),
    Term(
        "decode",
        (),
        "A moment that makes one more token. It reads every weight for a single token, so it is usually bound by memory.",
    ),
    _metric("ttft_ns", ("time to first token",)),
    _metric("tpot_ns", ("time per output token",)),
    _metric("itl_ns", ("inter-token latency", "gap"), "Its 95th percentile shows stutter that TPOT hides."),
    _metric("e2e_ns", ("end to end",)),
    Term(
        "p50, p95",
        ("percentile", "median"),
        "Half of the values lie below p50, the median; 95 % lie below p95.",
    ),
    Term(
        "95 % interval",
        ("±", "confidence", "n"),
        "Where the true median lies in 95 of 100 such runs. n is how many values it comes from; with too few there is a "
        "range and no interval.",
    ),
    Term(
        "observer effect",
        ("overhead",),
        "What watching costs: traced moments against the clean ones beside them, in this very run. Headline numbers do "
        "not contain it.",
    ),
    Term(
        "A/B test",
        ("interleaved", "verdict"),
        "Two setups take turns within one process, so that whatever the machine does falls on both alike. Only an A/B test "
        "says faster or slower; two runs recorded apart do not.",
    ),
    Term(
        "A/A floor",
        ("noise floor",),
        "An A/B test of a setup against itself: what differs then is this machine's noise. A smaller difference means nothing "
        "here.",
    ),
    Term(
        "KLD",
        ("Kullback-Leibler divergence", "quality cost"),
        "How far the optimized model's next-token probabilities are from the original's, in nats: 0 is equal, 0.01 is "
        "hardly to be noticed, 0.1 is.",
    ),
    Term(
        "SQNR",
        ("layer error",),
        "Signal to quantization noise of one layer's output, in decibels: the higher, the closer to the original.",
    ),
    Term(
        "pass",
        ("optimization",),
        "One optimization that can be switched on: it checks whether it fits the model and the machine, changes the "
        "model, and reports what it changed.",
    ),
    Term(
        "lossless",
        (),
        "A pass that claims to change no token; the run checks it.",
    ),
    Term(
        "predicted gain",
        ("roofline",),
        "How much faster a pass should make a moment, from the model's shapes and this machine's ceilings.",
    ),
    Term(
        "KV cache",
        (),
        "Keys and values of all earlier positions, kept so that they are not computed again. It grows with every token, "
        "and every decode reads all of it.",
    ),
    Term(
        "stage",
        (),
        "The part of the model that a layer belongs to: embedding, attention, MLP, norm, head; sampling is outside of it.",
    ),
    Term(
        "total and self",
        ("share",),
        "Total is the time of a layer with all that is inside it; self is its own, without what it calls.",
    ),
    _metric("cycles_per_token", ("IPC", "counters"), "IPC is instructions per cycle.", word="cycles per token"),
    _metric("rss_peak_bytes", ("resident", "RSS"), "On an accelerator the tile has the device's peak.", word="peak memory"),
    _metric("joules_per_token", ("joules", "RAPL"), word="energy per token"),
    Term(
        "session",
        ("file",),
        "A file of runs. Every run is saved into it as it happens, so that a crash loses at most two seconds.",
    ),
)


def find(words: str) -> tuple[Term, ...]:
    """The terms with these letters in their name, their other names or their meaning; the best matches first."""
    wanted = words.strip().lower()

    def rank(term: Term) -> int:
        names = (term.word.lower(), *(other.lower() for other in term.also))
        if any(name.startswith(wanted) for name in names):
            return 0
        return 1 if any(wanted in name for name in names) else 2 if wanted in term.explained.lower() else 3

    return tuple(sorted((term for term in GLOSSARY if rank(term) < 3), key=rank))
