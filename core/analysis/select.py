"""Which moments count: the one filter behind every headline number, layer table and comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from core.records.run import Run
from profilers.trace import KINDS, Array, Tag

SET_ASIDE = Tag.WARMUP | Tag.COLD | Tag.COMPILE | Tag.GC | Tag.PROFILED
"""Moments with one of these tags never count, whatever else they are."""

LEAST_CALM = 2


def tagged(rows: Mapping[str, Array], tags: Tag) -> Array:
    """Which rows (of moments or requests) carry at least one of the tags."""
    return (rows["tags"] & int(tags)) != 0


def warming(run: Run) -> Array:
    """Which moments are of warm-up. An imported trace knows of none; there it is the step that was found to be cold."""
    return tagged(run.trace.moments, Tag.COLD if run.imported else Tag.WARMUP)


def of_kind(moments: Mapping[str, Array], *kinds: str) -> Array:
    """Which moments are of one of the kinds."""
    return np.isin(moments["kind"], [KINDS.index(kind) for kind in kinds])


def counted(moments: Mapping[str, Array], where: Array | None = None, wanted: Tag = Tag.CLEAN) -> Array:
    """The moments that a statistic is made of, as a mask.

    They carry ``wanted`` (``CLEAN`` for headline latency, ``TRACED`` for layers), are not warm-up, cold, compiling or
    garbage-collecting, and lie in ``where``. Perturbed and settling ones are left out as long as two others remain (one alone
    has no spread, and no ratio can be made of it).
    """
    other = Tag.TRACED if wanted == Tag.CLEAN else Tag.CLEAN
    chosen = tagged(moments, wanted) & ~tagged(moments, SET_ASIDE | other)
    if where is not None:
        chosen &= where
    for unwanted in (Tag.PERTURBED | Tag.SETTLING, Tag.PERTURBED):
        calm = chosen & ~tagged(moments, unwanted)
        if calm.sum() >= LEAST_CALM or calm.sum() == chosen.sum():
            return calm
    return chosen


def all_disturbed(moments: Mapping[str, Array], where: Array) -> bool:
    """Whether a statistic of these has nothing but perturbed moments: nothing calm was there to be counted instead."""
    found = counted(moments, where)
    return bool(found.any()) and bool(tagged(moments, Tag.PERTURBED)[found].all())


def warming_up(run: Run) -> Run | None:
    """A run that has nothing but warm-up yet, as if that counted: its first numbers, which nobody should wait for.

    The first, cold request counts as long as it is the only one. None for any other run.
    """
    facts = run.facts
    if facts.status != "running" or facts.warmup_done is not None or not len(run.trace.moments["tags"]):
        return None
    ended = int((run.trace.requests["end_ns"] >= 0).sum())
    waived = int(Tag.WARMUP if ended > 1 else Tag.WARMUP | Tag.COLD)
    moments, requests = ({**rows, "tags": rows["tags"] & ~waived} for rows in (run.trace.moments, run.trace.requests))
    return replace(run, trace=replace(run.trace, moments=moments, requests=requests))


def first_tokens(moments: Mapping[str, Array]) -> Array:
    """Which moments gave their request's first token (a chunked prefill gives none before its last chunk)."""
    token = moments["latency_ns"] >= 0
    rows = np.flatnonzero(token)
    _, position = np.unique(moments["request"][rows], return_index=True)
    first = np.zeros(len(token), bool)
    first[rows[position]] = True
    return first


def kinds_present(moments: Mapping[str, Array]) -> tuple[str, ...]:
    """The kinds that occur, in the order of ``KINDS``."""
    present = np.bincount(moments["kind"], minlength=len(KINDS))
    return tuple(kind for kind, rows in zip(KINDS, present, strict=True) if rows)


def main_kind(moments: Mapping[str, Array]) -> str:
    """The kind that the run is about, else the one that is there most.

    For generation decode, or verify where that is as frequent (tokens are guessed); for encoders forward.
    """
    present = np.bincount(moments["kind"], minlength=len(KINDS))
    decode, verify = present[KINDS.index("decode")], present[KINDS.index("verify")]
    if decode or verify:
        return "verify" if verify >= decode else "decode"
    if present[KINDS.index("forward")]:
        return "forward"
    return KINDS[int(present.argmax())] if present.any() else "decode"
