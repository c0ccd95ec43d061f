"""The marks by which charts tell kinds of moments apart without colour, for window and exported figures alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Mark(NamedTuple):
    """One shape: as pyqtgraph, matplotlib and a line of text name it, how large it is beside a plain dot, and what it says."""

    qt: str
    matplotlib: str
    sign: str
    scale: float = 1.0
    meaning: str = ""


DOT = Mark("o", "o", "●")

KINDS: Mapping[str, Mark] = {
    "prefill": Mark("d", "d", "◆", 1.8, "reads the prompt"),
    "prefill_chunk": Mark("d", "d", "◆", 1.8, "reads a part of the prompt"),
    "verify": Mark("o", "o", "●", 1.2, "checks guessed tokens"),
    "encode": Mark("s", "s", "■", 1.6, "an encoder reads the input"),
    "draft": Mark("t", "v", "▼", 1.2, "an assistant guesses tokens"),
}
"""Kinds with marks of their own; every other kind has ``DOT``. Filled where a moment was clean, hollow where it was traced."""

PERTURBED = Mark("x", "x", "×", 1.4)
ABOVE = Mark("t1", "^", "▲", 1.6)


def of_kind(kind: str) -> Mark:
    """The mark of a kind of moment."""
    return KINDS.get(kind, DOT)
