"""What the layer table says that its times rest on: how many traced moments, and whether their order may be chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from core.analysis.layers import basis
from core.records.run import Run
from gui.charts.card import START_HINT

LISTED = f"{START_HINT}: every layer of the model is listed here with its time."
DOUBTFUL = "layers may stand in this order by chance"


class BasisNote(NamedTuple):
    """A line for the head of the table. ``doubtful``: it has to be seen in a narrow window too."""

    text: str = ""
    doubtful: bool = False


def basis_note(run: Run | None, kind: str, rows: Sequence[Mapping[str, Any]]) -> BasisNote:
    """Of one kind's rows. Ranks by one disturbed moment looked as sure as those by a hundred."""
    scaled = rows[0].get("scaled_to", "clean") if rows else "clean"
    how = f"scaled to {scaled}" if scaled == "clean" else "not scaled"
    found = basis(run, kind) if run is not None else None
    if found is None:
        return BasisNote(f"median moment, {how}")
    told = f"median {found}, {how}"
    return BasisNote(f"⚠ {told}: {DOUBTFUL}", True) if found.doubtful else BasisNote(told)
