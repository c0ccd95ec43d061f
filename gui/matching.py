"""Finding what someone means by a few letters: in order, not necessarily together, better where they begin words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Thing = TypeVar("Thing")

NEXT, WORD, EARLY = 7, 6, 3  # points for a letter that follows the last one, begins a word, stands first of all


def score(wanted: str, text: str) -> int | None:
    """Points for ``wanted`` in ``text``; None if its letters do not occur in this order. "" fits everything."""
    letters = [letter for letter in wanted.lower() if not letter.isspace()]
    lower = text.lower()
    best: dict[int, int] = {-1: 0}  # where the letter before was found, and the points so far
    for letter in letters:
        found: dict[int, int] = {}
        for at, points in best.items():
            place = lower.find(letter, at + 1)
            while place >= 0:
                begins = place == 0 or not lower[place - 1].isalnum()
                gained = points + 1 + NEXT * (place == at + 1 and at >= 0) + WORD * begins + EARLY * (place == 0)
                found[place] = max(gained, found.get(place, 0))
                place = lower.find(letter, place + 1)
        if not found:
            return None
        best = found
    return max(best.values()) * 100 - len(text)


def ranked(wanted: str, things: Sequence[Thing], text: Callable[[Thing], str]) -> list[Thing]:
    """Those that fit, best first; among equals the order stays."""
    if not wanted.strip():
        return list(things)
    scored = [(points, thing) for thing in things if (points := score(wanted, text(thing))) is not None]
    scored.sort(key=lambda entry: -entry[0])
    return [thing for _, thing in scored]
