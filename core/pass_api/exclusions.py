"""Which passes exclude each other, and why: groups that passes say they belong to, and what each says it does not go with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from core.messages.reason import Reason


class Group(StrEnum):
    """What several passes have in common, so that others need not know each of them."""

    PRUNES = "prunes"  # takes structure or weights out of the model
    CASTS = "casts"  # sets the precision
    QUANTIZES = "quantizes"  # replaces layers by ones with smaller weights
    GUESSES = "guesses"  # lets tokens be guessed first
    CACHES = "caches"  # brings a KV cache of another kind
    COMPILES = "compiles"
    REPLACES_TORCH = "replaces torch"  # another engine runs the model
    NEEDS_TORCH = "needs torch"  # works on the model as torch runs it


@dataclass(frozen=True)
class Exclusion:
    """A pass does not go with passes of these groups, nor with these ids (which only a pass itself may name)."""

    of: frozenset[str]
    why: Reason  # a clause


ONE_AT_A_TIME = {
    Group.CASTS: Reason("pass_api.both-set-precision"),
    Group.QUANTIZES: Reason("pass_api.both-replace-layers"),
    Group.GUESSES: Reason("pass_api.one-way-of-guessing"),
    Group.REPLACES_TORCH: Reason("pass_api.one-engine"),
}
"""Groups of which no two passes go together, and why."""

RUNS_ELSEWHERE = Exclusion(frozenset({Group.NEEDS_TORCH}), Reason("pass_api.runs-elsewhere"))
"""What every pass of ``Group.REPLACES_TORCH`` excludes."""
