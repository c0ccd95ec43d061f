"""The headline of a quality cost: the worse of the two ways in which a text was read, named; and where two texts disagree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from core.analysis.two_samples import apart, fisher_risk, welch_risk
from core.records.run import Estimate, Quality

BULK, DECODE = "bulk", "decode"
PATHS: Mapping[str, str] = {BULK: "read in one go", DECODE: "while decoding"}
"""The ways in which a text is read: all of a window at once, and token by token with the run's cache and compiled step."""

PREFIXES: Mapping[str, str] = {BULK: "", DECODE: "decode_"}
SECOND = "second_"
"""Before the names of figures that were measured on the second text."""

KINDS: Mapping[str, tuple[str, bool]] = {
    "kld": ("kld_mean", False),
    "cosine": ("cosine_mean", True),
    "disagreement": ("same_top", True),
    "tokens": ("token_agreement", True),
}
"""Which figure a kind of cost is made of, and whether it is one minus that figure."""

FALSE_ALARMS = 0.05
"""The chance that two texts which cost the same are said to disagree, over all figures that are compared."""

_COMPARED = ("kld_mean", "decode_kld_mean", "same_top", "decode_same_top", "cosine_mean")
MOST_COUNTED = 10_000_000
"""More positions than anybody measures; a file that says more of them would only cost memory."""

_AMOUNTS = ("kld_mean", "decode_kld_mean")
_SHARES = ("same_top", "decode_same_top")


@dataclass(frozen=True)
class Headline:
    """What a run's passes cost, in one number.

    ``name`` of the figure it is, ``cost`` with 0 for none, ``kind`` one of ``KINDS``. ``path`` is "bulk" or "decode", whichever
    is worse, "" where there is but one way; ``by_path`` has the figure of each, and ``costs`` the same as costs.
    """

    name: str
    figure: Estimate
    cost: float
    kind: str
    path: str
    by_path: Mapping[str, Estimate]
    costs: Mapping[str, float]


def headline(quality: Quality) -> Headline | None:
    """The worse of bulk and decode in the first kind of figure that was measured; None where there is no figure.

    A path whose logits are no numbers has a share of equal first choices and no divergence. It is the worse one then, and that
    share is the headline: a divergence of the other path would hide it.
    """
    figures = quality.figures
    for kind, (name, inverted) in KINDS.items():
        found = {path: figures[prefix + name] for path, prefix in PREFIXES.items() if prefix + name in figures}
        broken = [path for path, prefix in PREFIXES.items() if path not in found and f"{prefix}same_top" in figures]
        if not found or (kind == "kld" and broken):
            continue
        costs = {path: max(0.0, 1 - one.value if inverted else one.value) for path, one in found.items()}
        path = max(costs, key=lambda one: (costs[one], one == DECODE))  # of equal ones the one that the run's tokens took
        told = path if len(found) > 1 or path == DECODE else ""
        return Headline(PREFIXES[path] + name, found[path], costs[path], kind, told, found, costs)
    return None


def worse_top(quality: Quality) -> Estimate | None:
    """The share of equal first choices on the path of the headline, else the only one there is."""
    found = headline(quality)
    prefix = PREFIXES[found.path] if found is not None and found.path else ""
    return quality.figures.get(f"{prefix}same_top", quality.figures.get("same_top"))


def disagreements(quality: Quality) -> dict[str, tuple[Estimate, Estimate]]:
    """Figures of the first and second text, by name, that differ by more than chance allows (``FALSE_ALARMS`` in all).

    What is independent is a window of a text (a sentence or an example, for models that are given those): positions of one
    window depend on each other. So means are compared by Welch's t with as many values as there are windows; divergences by
    their logarithms, since their scatter is in proportion to them. A share must differ by Fisher's exact test too: where hardly
    any position differs, a handful of windows may happen to be all alike. A figure without an error, or from a file that does
    not say of how many windows, is left out: nobody can tell then.
    """
    pairs = {
        name: (quality.figures[name], quality.figures[SECOND + name])
        for name in _COMPARED
        if name in quality.figures and SECOND + name in quality.figures
    }
    risks = {name: _risk(name, *pair) for name, pair in pairs.items()}
    told = apart({name: risk for name, risk in risks.items() if risk is not None}, FALSE_ALARMS)
    return {name: pair for name, pair in pairs.items() if name in told}


def _risk(name: str, one: Estimate, other: Estimate) -> float | None:
    """The chance that figures of two equal texts lie so far apart; None: it cannot be told."""
    windows = (one.windows or 0, other.windows or 0)
    if one.error is None or other.error is None or min(windows) < 2:
        return None
    if not all(map(math.isfinite, (one.value, other.value, one.error, other.error))):
        return None
    values, errors = (one.value, other.value), (one.error, other.error)
    if name in _AMOUNTS and min(values) > 0:
        errors = errors[0] / values[0], errors[1] / values[1]
        values = math.log(values[0]), math.log(values[1])
    skewed = name == "cosine_mean"
    risk = welch_risk(abs(values[0] - values[1]), (errors[0], windows[0]), (errors[1], windows[1]), skewed=skewed)
    if name not in _SHARES:
        return risk
    counted, others = _counted(one), _counted(other)
    return None if counted is None or others is None else max(risk, fisher_risk(counted, others))


def _counted(figure: Estimate) -> tuple[int, int] | None:
    """How many of how many positions a share says; None where it does not say of how many, or nonsense (a damaged file)."""
    if figure.n is None or not 0 < figure.n <= MOST_COUNTED or not 0 <= figure.value <= 1:
        return None
    return round(figure.value * figure.n), figure.n
