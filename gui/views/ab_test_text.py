"""An A/B test in words: who is how much faster, how sure that is, how far the A/B test is, and why it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core import units
from core.analysis import metrics
from core.analysis.word import Word
from core.config import RunConfig
from core.pass_api.base import title_of_id
from gui.views import quality_text

if TYPE_CHECKING:
    from core.analysis.verdict import LayerVerdict, Verdict
    from core.execution.ab_test_state import ABTestState
    from core.records.run import Run

NAMES = "ABCDEFGH"
SIGNS = {Word.FASTER: "▲", Word.SLOWER: "▼", Word.UNDECIDED: "≈"}
NO_QUALITY = "not measured; a faster side may answer worse"
FLOOR_HINT = "no noise floor of this machine is known for this workload; Noise floor (A/A) measures it"


@dataclass(frozen=True)
class Headline:
    """One large sentence. ``word`` is a verdict's word, or None where there is no verdict to colour.

    ``detail`` is the metric that it is about, with its interval; "" where there is none.
    """

    text: str
    word: Word | None = None
    detail: str = ""


def pass_names(config: RunConfig) -> str:
    """The passes of a setup, as people list them."""
    return ", ".join(title_of_id(choice.id) for choice in config.passes) or "no passes"


def times(ratio: float) -> str:
    """How many times as fast or slow: three decimals where two would say 1.00 or 1.03."""
    more = max(ratio, 1 / ratio)
    return f"{more:.3f}×" if more < 1.1 else f"{more:.2f}×"


def sentence(side: int, verdict: Verdict | None, *, running: bool) -> Headline:
    """``B is 1.34× faster``, of one side against A."""
    name = NAMES[side]
    if verdict is None or verdict.ratio is None or verdict.ratio <= 0:
        return Headline(f"{name}: nothing to tell yet" if running else f"{name}: too little was measured to tell")
    if not verdict.looked:
        return Headline(f"{name}: measuring, no look at it yet")
    if verdict.word == Word.UNDECIDED:
        told = f"{name}: can't tell yet" if running else f"{name}: can't tell a difference from A"
        return Headline(told, verdict.word, detail(verdict))
    return Headline(f"{name} is {times(verdict.ratio)} {verdict.word.said}", verdict.word, detail(verdict))


def detail(verdict: Verdict) -> str:
    """``TPOT; 95 % interval 1.31× to 1.37×``, of what the sentence says: how many times as fast, or the time over A's."""
    title, low, high = metrics.title(verdict.metric), verdict.low, verdict.high
    if low is None or high is None or low <= 0:
        return f"{title}; too few rounds for an interval"
    if verdict.word == Word.UNDECIDED:
        return f"{title}; 95 % interval {low:.3f} to {high:.3f} of A's time"
    bounds = (1 / high, 1 / low) if verdict.word == Word.FASTER else (low, high)
    digits = 3 if bounds[1] - bounds[0] < 0.05 else 2  # or a narrow interval is one number
    return f"{title}; 95 % interval {bounds[0]:.{digits}f}× to {bounds[1]:.{digits}f}×"


def headlines(state: ABTestState) -> list[Headline]:
    """One sentence a side, or the noise floor of an A/A test."""
    running = state.stopped is None
    if state.config.same:
        if running:
            return [Headline("Measuring the noise floor: one setup against itself")]
        metric = next((one for one in ("tpot_ns", "e2e_ns") if one in state.floors), None)
        if metric is None:
            return [Headline("No noise floor was found: too little was measured")]
        told = f"Noise floor ±{units.percent(state.floors[metric])}: smaller differences cannot be told apart here"
        return [Headline(told, detail=f"{metrics.title(metric)}; those of the other metrics are below")]
    found = {verdict.side: verdict.main for verdict in state.verdicts}
    return [sentence(side, found.get(side), running=running) for side in range(1, len(state.config.sides))]


def round_of(state: ABTestState) -> int:
    """The round under way, or how many there were; from 1."""
    return -(-len(state.order) // len(state.config.sides))


def most_rounds(state: ABTestState) -> int:
    """The cap on rounds; an A/A test has one of its own."""
    from core.execution import ab_test

    return min(state.config.most_rounds, ab_test.FLOOR_ROUNDS) if state.config.same else state.config.most_rounds


def progress(state: ABTestState) -> str:
    """``Round 7 of at most 60``, or how many rounds there were and why it ended."""
    rounds = round_of(state)
    if state.stopped is not None:
        return f"Ended after {rounds} round{'' if rounds == 1 else 's'}: {state.stopped}"
    return (
        f"Round {rounds} of at most {most_rounds(state)}" if rounds else "Warming up; rounds begin when the latency has settled"
    )


def floor_text(state: ABTestState) -> str:
    """The floor that verdicts are held against."""
    if state.config.same:
        known = [f"{metrics.title(name)} ±{units.percent(floor)}" for name, floor in state.floors.items()]
        return "Floor by metric: " + ", ".join(known) if known else "The floor is known when the A/B test is over"
    floor = state.floors.get("tpot_ns", state.floors.get("e2e_ns"))
    return f"Noise floor ±{units.percent(floor)}" if floor is not None else FLOOR_HINT[:1].upper() + FLOOR_HINT[1:]


def interval(found: Verdict | LayerVerdict) -> str:
    """``0.746 (0.731–0.762)``: the side's time over A's, with its 95 % interval."""
    if found.ratio is None:
        return units.DASH
    digits = 3 if found.ratio < 10 else 1
    bounds = "" if found.low is None or found.high is None else f" ({found.low:.{digits}f}–{found.high:.{digits}f})"
    return f"{found.ratio:.{digits}f}{bounds}"


def judged(verdict: Verdict) -> str:
    """``▲ 1.34× faster``; words and signs, so that nothing hangs on colour."""
    if not verdict.looked:
        return "not looked at yet"
    sign = SIGNS[verdict.word]
    if verdict.word != Word.UNDECIDED and verdict.ratio is not None:
        return f"{sign} {times(verdict.ratio)} {verdict.word.said}"
    return f"{sign} {verdict.word.said}"


def quality_costs(state: ABTestState) -> str:
    """The quality cost of each side that has passes, against its model without them."""
    told = []
    for number, config in enumerate(state.config.sides):
        if not config.passes:
            continue
        run = state.runs[number] if number < len(state.runs) else None
        found = None if run is None else quality_text.told(run)
        if found is not None and not found.why:
            told.append(f"{NAMES[number]}: {found.sentence}")
        elif found is not None and run is not None and run.config.quality is not None:
            told.append(f"{NAMES[number]}: {found.why}")
    return f"Quality cost  {'; '.join(told)}" if told else f"Quality cost  {units.DASH}  {NO_QUALITY}"


def side_lines(configs: Sequence[RunConfig]) -> list[str]:
    """``A  no passes`` and so on; the model where the sides' models differ."""
    models = {config.model for config in configs}
    lines = []
    for name, config in zip(NAMES, configs, strict=False):
        model = f" · {config.model.spec}, {config.model.dtype}" if len(models) > 1 else ""
        lines.append(f"{name}  {pass_names(config)}{model}")
    return lines


def verdict_of(runs: Sequence[Run]) -> str:
    """What came of the A/B test in which these runs took turns, baseline first, in a line."""
    from core.analysis.verdict import judge

    trial = runs[0].facts.trial
    if trial is None:  # a file that says of runs that they belong together, and not what they found
        return f"A/B test of {len(runs)} sides"
    floor = trial.floors.get("tpot_ns", trial.floors.get("e2e_ns"))
    if trial.same:
        return "Noise floor (A/A)" if floor is None else f"Noise floor (A/A): ±{units.percent(floor)}"
    ended = runs[0].facts.status != "running"
    verdicts = judge(runs, trial.floors, trial.most_rounds, trial.parts, ended=ended)
    heads = [sentence(one.side, one.main, running=not ended) for one in verdicts]
    said = [f"{one.text} ({one.detail})" if one.detail else one.text for one in heads]
    return f"A/B test of {len(runs)} sides · {' · '.join(said)}"
