"""What a run's passes cost in quality, in words: for the tile, the A/B test page and the charts' tooltips."""

from __future__ import annotations

from typing import NamedTuple

from core import units
from core.analysis.quality_headline import BULK, DECODE, PATHS, SECOND, Headline, disagreements, headline, worse_top
from core.export.speed_quality import cost_text
from core.records.run import Estimate, Quality, Run
from gui.views.saved_runs import Head

GOOD_KLD, BAD_KLD = 0.02, 0.1
GOOD_SHARE, BAD_SHARE = 0.98, 0.9
LEAST = 0.9995e-4
"""Smaller values are told as "< 0.0001" on a tile; the tooltip has them in full."""

DEFINITION = (
    "What the passes cost against the same model without them, on the same text. Language models: mean Kullback-Leibler "
    "divergence over the full vocabulary, from the unoptimized to the optimized model, in nats with its standard error, and "
    "how often both put the same token first; the worse of a text read in one go and of decoding, which uses the cache and the "
    "kernels of the run, both told. Encoders: mean cosine of the embeddings, and the share of neighbours kept. "
    "Classifiers: share of equal answers, and the accuracy on labelled examples. “equal”: the very same tokens, as passes "
    "without loss claim."
)
UNCHANGED = "unoptimized: nothing changed"
IMPORTED = "imported trace"
LATER = "measured at the end"
ALREADY = "records.file-is-quantized"
"""The note that says that the file itself was quantized."""
NOT_ASKED = "not asked for; switch it on in the sidebar"


class Told(NamedTuple):
    """A quality cost: a large value with its unit, what stands below, its tone, and a sentence; or ``why`` there is none."""

    value: str = ""
    unit: str = ""
    below: str = ""
    tone: str = ""
    sentence: str = ""
    why: str = ""


def told(run: Run | Head) -> Told:
    """The quality cost of a run (its head is enough), or why there is none."""
    facts, quality = run.facts, run.facts.quality
    if quality is not None:
        return _told(quality)
    if facts.status == "imported":
        return Told(why=IMPORTED)
    if not facts.passes and not run.config.passes:
        return Told(why=UNCHANGED)
    if run.config.quality is None:
        return Told(why=NOT_ASKED)
    if facts.status == "running":
        return Told(why=LATER)
    reason = facts.why_missing("quality")
    return Told(why=str(reason or "").rstrip(".") or f"not measured (the run is {facts.status})")


def share(value: float) -> str:
    """``96 %``; one decimal where two digits would round a difference away."""
    percent = 100 * value
    return f"{percent:.1f} %" if 98 < percent < 99.95 else f"{percent:.0f} %"


def with_error(figure: Estimate) -> str:
    """``0.012 ± 0.001``."""
    error = f" ± {cost_text(figure.error)}" if figure.error is not None else ""
    return f"{cost_text(figure.value)}{error}"


def _told(quality: Quality) -> Told:
    figures, main = quality.figures, headline(quality)
    if main is not None and main.kind == "kld":
        found = _of_language(quality, main)
    elif "cosine_mean" in figures:
        found = _of_encoder(quality)
    elif "same_top" in figures:
        found = _of_classifier(quality)
    else:
        found = Told()
    if quality.lossless:
        sentence = f"equal: the same tokens as the unoptimized model; {found.sentence}".rstrip("; ")
        found = Told("equal", "", "the same tokens", "good", sentence)
    elif quality.lossless is False:
        agreed = figures.get("token_agreement")
        below = "not the same tokens" if agreed is None else f"{share(agreed.value)} of tokens agree"
        value, unit = (found.value, found.unit) if found.value else ("differs", "")
        sentence = f"the tokens differ from the unoptimized model's although the passes claim none would; {found.sentence}"
        found = Told(value, unit, below, "warn", sentence.rstrip("; "))
    if not found.value:
        agreed = figures.get("token_agreement")
        if agreed is None:
            return Told(why="no figure was found" if not quality.notes else str(quality.notes[0]).rstrip("."))
        found = Told(*_percent(agreed.value), "of tokens agree", "", f"{share(agreed.value)} of greedy tokens agree")
    where = f" (on {quality.text}, {units.count(quality.positions)} positions)" if quality.text else ""
    told = [f"{found.sentence}{where}", *_second(quality)]
    told += [str(note) for note in quality.notes if note.code == ALREADY][:1]
    return found._replace(sentence=". ".join(one.rstrip(".") for one in told))


def _second(quality: Quality) -> list[str]:
    """The same figure on the second text, and whether the two disagree."""
    found = headline(quality)
    other = quality.figures.get(f"{SECOND}{found.name}") if found is not None else None
    if found is None or other is None:
        return []
    told = with_error(other) if found.kind in ("kld", "cosine") else share(other.value)
    apart = "; the two disagree by more than chance allows" if found.name in disagreements(quality) else ""
    return [f"On {quality.second_text} {told}{apart}"]


def _below(quality: Quality, found: Headline) -> str:
    """What stands below a divergence: the way that is meant, the other way, and a text that says otherwise."""
    same, parts = worse_top(quality), []
    if found.path:
        parts.append("decoding" if found.path == DECODE else "bulk")
        parts += [
            f"{'bulk' if path == BULK else 'decoding'} {_small(one)}"
            for path, one in found.by_path.items()
            if path != found.path
        ]
    if found.name in disagreements(quality):
        parts.append(f"{quality.second_text.removeprefix('shipped ')} {_small(quality.figures[SECOND + found.name])}")
    if same is not None:
        parts.append(f"same top {share(same.value)}")
    if found.figure.error is not None and not found.path:
        parts.append(f"± {cost_text(found.figure.error)}")
    return " · ".join(parts)


def _small(figure: Estimate) -> str:
    return "< 0.0001" if 0 < abs(figure.value) < LEAST else cost_text(figure.value)


def _of_language(quality: Quality, found: Headline) -> Told:
    mean, same = found.figure, worse_top(quality)
    tone = "good" if mean.value <= GOOD_KLD else "warn" if mean.value > BAD_KLD else ""
    sentence = f"KLD {with_error(mean)} nats"
    if found.path:
        others = [f"{with_error(one)} {PATHS[path]}" for path, one in found.by_path.items() if path != found.path]
        sentence += f" {PATHS[found.path]}" + "".join(f" (the worse way; {other})" for other in others)
    sentence += f", same top {share(same.value)}" if same is not None else ""
    return Told(_small(mean), "KLD", _below(quality, found), tone, sentence)


def _of_encoder(quality: Quality) -> Told:
    cosine, near = quality.figures["cosine_mean"], quality.figures.get("neighbours")
    below = f"neighbours {share(near.value)}" if near is not None else "mean"
    value = f"{cosine.value:.4f}" if cosine.value > 0.99 else f"{cosine.value:.3f}"
    return Told(value, "cos", below, _tone(cosine.value), f"cosine {value}" + (f", {below}" if near is not None else ""))


def _of_classifier(quality: Quality) -> Told:
    same = worse_top(quality) or quality.figures["same_top"]
    after, before = quality.figures.get("accuracy"), quality.figures.get("accuracy_before")
    parts = ["same answers"]
    if after is not None:
        parts = [f"accuracy {share(after.value)}" + (f", was {share(before.value)}" if before is not None else "")]
    sentence = ", ".join([f"{share(same.value)} of answers are the same", *(parts if after is not None else [])])
    return Told(*_percent(same.value), " · ".join(parts), _tone(same.value), sentence)


def _percent(value: float) -> tuple[str, str]:
    return share(value).removesuffix(" %"), "%"


def _tone(value: float) -> str:
    return "good" if value >= GOOD_SHARE else "warn" if value < BAD_SHARE else ""
