"""What earlier versions wrote as a plain sentence and the program asks about: made the reason that it is today."""

from __future__ import annotations

import re
from dataclasses import replace

from core.messages.reason import TEXT, Reason, of_text
from core.pass_api.base import PassReport
from core.records.run import Quality, file_is_quantized

_FILE_IS_QUANTIZED = re.compile(r"The model's file holds its weights in (.{1,200}) already, so this is what .*", re.DOTALL)


def recognised(quality: Quality) -> Quality:
    """The quality with such notes as reasons; all others stay the sentences that they are."""
    return replace(quality, notes=tuple(map(_recognised, quality.notes)))


def without_empty(report: PassReport) -> PassReport:
    """The report, with no prediction where an earlier version wrote an empty one."""
    return replace(report, prediction=None) if report.prediction == of_text("") else report


def _recognised(note: Reason) -> Reason:
    found = _FILE_IS_QUANTIZED.fullmatch(str(note.facts.get("text"))) if note.code == TEXT else None
    return note if found is None else file_is_quantized(found[1])
