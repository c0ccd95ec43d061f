"""The headline of a quality cost: the worse of the two ways in which a text was read, named; and where two texts disagree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

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

BEYOND = 2.0
"""Two texts disagree where their figures lie further apart than so many standard errors of their difference."""

_COMPARED = ("kld_mean", "decode_kld_mean", "same_top", "decode_same_top", "cosine_mean")


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
    """Figures of the first and second text, by name, that differ by more than their standard errors allow.

    A figure without an error on either side is left out: nobody can tell then.
    """
    found = {}
    for name in _COMPARED:
        one, other = quality.figures.get(name), quality.figures.get(SECOND + name)
        if one is None or other is None or one.error is None or other.error is None:
            continue
        if abs(one.value - other.value) > BEYOND * math.hypot(one.error, other.error):
            found[name] = (one, other)
    return found
