"""Gaps between visible tokens: which moments lie in one, what they took together, and how many tokens came at its end."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from profilers.trace import Array


def tokens_given(moments: Mapping[str, Array]) -> Array:
    """Tokens per sequence that became visible with each moment: none without a latency, several where guesses were right."""
    return np.where(moments["latency_ns"] >= 0, 1 + np.maximum(moments["accepted"], 0), 0)


def gap_tags(moments: Mapping[str, Array]) -> Array:
    """The tags of each moment; one that gave a token has those of its whole gap, so that a traced draft makes it traced."""
    tags = moments["tags"]
    starts = _starts(moments)
    if starts is None:
        return tags
    rows = _last_rows(starts, len(tags))
    found = tags.copy()
    found[rows] = np.bitwise_or.reduceat(tags, starts)
    return found


def before_token(moments: Mapping[str, Array], column: str) -> Array:
    """By moment that gave a token the sum of a column over those of its gap that gave none (drafts, chunks, an encoder).

    0 for all other moments. Only for columns that every moment has.
    """
    found = np.zeros(len(moments["tags"]), np.int64)
    starts = _starts(moments)
    if starts is not None:
        silent = np.where(moments["latency_ns"] < 0, moments[column], 0)
        rows = _last_rows(starts, len(found))
        found[rows] = np.where(moments["latency_ns"][rows] >= 0, np.add.reduceat(silent, starts), 0)
    return found


def _starts(moments: Mapping[str, Array]) -> Array | None:
    """First row of each gap, in order; None where every moment is a gap of its own (or there are none)."""
    given = moments["latency_ns"] >= 0
    if given.all():
        return None
    starts = np.ones(len(given), bool)
    starts[1:] = given[:-1] | (moments["request"][1:] != moments["request"][:-1])
    return np.flatnonzero(starts)


def _last_rows(starts: Array, count: int) -> Array:
    return np.append(starts[1:], count) - 1
