"""What a row of the pass list says beyond its title: tooltip, what a run did with the pass, and how to install it."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING

from core import units
from core.messages.reason import Reason
from core.pass_api.base import Pass, PassReport, summary_of, title_of
from gui.setup.baselines import Gains

if TYPE_CHECKING:
    from core.planning.gains import Prediction

LOSSLESS = "Claims the same tokens as the unoptimized model; the quality measurement holds it to that"
MOST_KERNELS = 6
DASH = units.DASH
ROUGH = "Rough: other programs computed while layers were tried"


def install_command(reason: Reason | None) -> str:
    """The command that a reason gives as the remedy, or ""."""
    return str(reason.facts.get("command", "")) if reason is not None else ""


def short_reason(reason: Reason) -> str:
    """The reason without the command, which has a button of its own."""
    return str(reason.facts["why"]) if install_command(reason) else str(reason)


NOT_INTERLEAVED = (
    "Not interleaved: the run without passes was recorded at another time, so a drift of the machine is in this figure. "
    "An A/B test decides."
)
INTERLEAVED = "The run without passes took turns with this one in the A/B test; Compare has the verdict with its interval."


def gain_text(report: PassReport, measured: Gains, alone: bool) -> str:
    """``decode: predicted 1.90×, not interleaved 1.72×``, by kind of moment; "" where nothing was predicted or measured.

    ``measured`` are the gains of the whole run over the unoptimized model; they are this pass's only where it was ``alone``.
    """
    by_kind, how = measured.by_kind, "in the A/B test" if measured.interleaved else "not interleaved"
    kinds = dict.fromkeys((*report.predicted, *(by_kind if alone else ())))
    told = []
    for kind in kinds:
        parts = [f"predicted {units.ratio(report.predicted[kind])}"] if kind in report.predicted else []
        if kind in by_kind and (alone or parts):
            parts.append(f"{how} {units.ratio(by_kind[kind])}{'' if alone else ' with all passes'}")
        if parts:
            told.append(f"{kind.replace('_', ' ')}: {', '.join(parts)}")
    return "; ".join(told)


def predicted_line(found: Prediction | None) -> str:
    """The beginning of a row's second line: ``predicted 1.90×``, ``predicted —``; "" where nobody has looked yet."""
    if found is None:
        return ""
    return f"predicted {DASH if found.gain is None else units.ratio(found.gain)}"


def foretold(found: Prediction | None) -> list[str]:
    """What is predicted for a pass before it runs, and what that rests on, in lines; or why nothing is."""
    if found is None:
        return []
    if found.gain is None:
        return [f"Predicted gain  {DASH}  {found.why}"]
    kinds = ", ".join(f"{kind.replace('_', ' ')} {units.ratio(gain)}" for kind, gain in found.by_kind.items())
    lines = [f"Predicted, not measured: {units.ratio(found.gain)} for a whole request ({kinds}), alone on the model as loaded"]
    if found.rough:
        lines.append(ROUGH)
    return [*lines, str(found.rests_on)] if found.rests_on else lines


def details(report: PassReport, measured: Gains, alone: bool) -> list[str]:
    """What a run did with the pass: a line each for the change, the gain, its notes and the kernels that ran."""
    lines = [str(report.summary)]
    gain = gain_text(report, measured, alone)
    if gain:
        lines.append(f"Gain  {gain}")
    if measured.by_kind:
        lines.append(INTERLEAVED if measured.interleaved else NOT_INTERLEAVED)
    elif report.predicted:
        lines.append("A run without passes gives a figure beside the predicted one; an A/B test decides.")
    if report.prediction:
        lines.append(str(report.prediction))
    lines += map(str, report.notes)
    if report.kernels:
        more = len(report.kernels) - MOST_KERNELS
        lines.append(f"Kernels  {', '.join(report.kernels[:MOST_KERNELS])}{f' and {more} more' if more > 0 else ''}")
    return lines


def tooltip(one: Pass, reason: str, lines: Iterable[str]) -> str:
    """The whole of it, wrapped: title, why it is refused, what it is, what it did."""
    parts = [f"<b>{html.escape(title_of(one))}</b>"]
    if reason:
        parts.append(f"Not available: {html.escape(reason, quote=False)}")
    parts.append(html.escape(summary_of(one), quote=False))
    if one.lossless:
        parts.append(f"Lossless. {LOSSLESS}.")
    parts += [html.escape(line, quote=False) for line in lines]
    return f"<qt>{'<br>'.join(parts)}</qt>"
