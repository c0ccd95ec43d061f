"""Speculation: how many guessed tokens were right, at which place of a guess, and what guessing cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.analysis.select import of_kind, tagged
from core.analysis.token_intervals import before_token, gap_tags
from core.records.run import Run
from profilers.trace import Array, Tag

_APART = Tag.WARMUP | Tag.PROFILED


@dataclass(frozen=True)
class Speculation:
    """What guessing brought. ``drafted`` and ``accepted`` are tokens per sequence, ``verifies`` the forwards that checked some.

    ``accepted_share`` of the guessed tokens were right (vLLM's acceptance rate); ``tokens_per_verify`` became visible with a
    forward that checked guesses, its own one included; ``by_position`` is the share of forwards with more than p guesses of
    which more than p were right; ``draft_share`` is the time of drafting forwards over that of the tokens they led to. None:
    nothing was guessed, or no forward drafts (prompt lookup guesses without one).
    """

    accepted_share: float | None
    tokens_per_verify: float | None
    by_position: tuple[float, ...]
    draft_share: float | None
    drafted: int
    accepted: int
    verifies: int


def speculation(run: Run) -> Speculation | None:
    """What guessing brought in the measured requests; None for a run in which nothing is ever guessed."""
    moments = run.trace.moments
    known = (moments["drafted"] >= 0) & (moments["latency_ns"] >= 0)
    if not known.any():
        return None
    checked = known & (moments["drafted"] > 0) & ~tagged(moments, _APART)
    drafted, accepted = moments["drafted"][checked], np.maximum(moments["accepted"][checked], 0)
    total = int(drafted.sum())
    return Speculation(
        accepted_share=float(accepted.sum() / total) if total else None,
        tokens_per_verify=float(accepted.mean() + 1) if total else None,
        by_position=_by_position(drafted, accepted),
        draft_share=_draft_share(run),
        drafted=total,
        accepted=int(accepted.sum()),
        verifies=int(checked.sum()),
    )


def _by_position(drafted: Array, accepted: Array) -> tuple[float, ...]:
    if not len(drafted):
        return ()
    longest = int(drafted.max())
    tried, right = (_longer(np.minimum(tokens, longest), longest) for tokens in (drafted, accepted))
    return tuple(float(share) for share in right / tried)  # a longest guess has every shorter place, so none is 0


def _longer(tokens: Array, longest: int) -> Array:
    """How many are more than 0, 1, … and ``longest`` - 1."""
    return np.bincount(tokens, minlength=longest + 1)[::-1].cumsum()[::-1][1:]


def _draft_share(run: Run) -> float | None:
    """Of clean gaps; of traced ones where there is nothing else."""
    moments = run.trace.moments
    draft = of_kind(moments, "draft")
    if not draft.any():
        return None
    tags = gap_tags(moments)
    whole = (moments["latency_ns"] >= 0) & ~tagged({"tags": tags}, _APART)
    clean = whole & ~tagged({"tags": tags}, Tag.TRACED)
    rows = clean if clean.any() else whole
    spent_ns = int(moments["latency_ns"][rows].sum())
    drafts = before_token({**moments, "draft_ns": np.where(draft, moments["duration_ns"], 0)}, "draft_ns")
    return float(drafts[rows].sum() / spent_ns) if spent_ns > 0 else None
