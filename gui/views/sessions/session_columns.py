"""The columns of the session's list of runs: what each says of a run, and what it is sorted by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core import units
from core.analysis import metrics
from core.analysis.metrics import Metric
from core.pass_api.base import title_of_id
from gui.views import quality_text
from gui.views.saved_runs import Head, Headline, started

LATER = "…"
"""Stands where a run was not read yet."""

Known = Headline | None
"""The numbers that only reading the whole run tells; None: not read yet."""

ROOMY = 1000
"""Width of the list from which on there is room for columns that are not needed first."""


@dataclass(frozen=True)
class Column:
    """One column. ``key`` None: what was not measured, which stands behind all others either way."""

    title: str
    width: int  # pixels at first; a number makes its column as wide as it needs
    text: Callable[[Head, Known], str]
    key: Callable[[Head, Known], Any]
    tip: Callable[[Head, Known], str] | None = None  # None: the text
    number: bool = False
    roomy: int = 0  # left out where the list is narrower than this, in px
    editable: bool = False
    least: int | None = None  # pixels down to which it gives way to numbers; None: not

    @property
    def whole(self) -> bool:
        """Whether its text is short and stays whole; a number without its middle is another."""
        return self.number or self.title in ("Started", "Status")


def model_of(head: Head) -> str:
    """The model's name, or its spec where it was never loaded."""
    return str(head.facts.model.name if head.facts.model is not None else head.config.model.spec)


def passes_of(head: Head) -> str:
    """The passes that were switched on."""
    return ", ".join(title_of_id(choice.id) for choice in head.config.passes) or "none"


def name_of(head: Head) -> str:
    """What the run is called."""
    return head.name or f"run {head.id}"


def words_of(head: Head) -> str:
    """All that a search looks into, in small letters."""
    ids = " ".join(choice.id for choice in head.config.passes)  # what is typed may be what scripts call it
    parts = (name_of(head), model_of(head), passes_of(head), ids, head.status, head.note, started(head.created))
    return "\n".join(parts).casefold()


def _read(of: Callable[[Headline], float | None], text: Callable[[Any], str], missing: str, told: str) -> dict[str, Any]:
    """A number of ``Headline``: its text, its key and where it comes from."""

    def value(known: Known) -> float | None:
        return None if known is None else of(known)

    return {
        "text": lambda _head, known: LATER if known is None else text(value(known)),
        "key": lambda _head, known: value(known),
        "tip": lambda _head, known: "not read yet" if known is None else told if value(known) is not None else missing,
        "number": True,
    }


_ABSENT = {
    metrics.FIRST: "no clean first token",
    metrics.LATER: "no clean token after a first",
    metrics.WHOLE: "no clean request",
}
"""Why a metric has no number, by what it is made of."""


def _of_metric(metric: Metric) -> Column:
    """The column of a metric; a rate is called by its unit, which is shorter than what it is a rate of."""
    time = metric.unit == "ns"
    read = _read(
        lambda known: known.metrics.get(metric.id),
        units.of_unit(metric.unit) if time else _number,
        _ABSENT.get(metric.made_of, "not measured"),
        f"median of clean moments: {metric.definition}",
    )
    seldom = metric.made_of == metrics.WHOLE  # it follows from the others
    return Column(metric.title if time else metric.unit, 68 if time else 56, **read, roomy=ROOMY if seldom else 0)


def _number(value: float | None) -> str:
    return units.DASH if value is None else units.number(value)


def _status_tip(head: Head) -> str:
    return str(head.facts.error or head.status)


def _quality_cell(head: Head, _known: Known) -> str:
    found = quality_text.told(head)  # asks for nothing but facts and config
    return " ".join(part for part in (found.value, found.unit) if part) or units.DASH


def _quality_tip(head: Head, _known: Known) -> str:
    found = quality_text.told(head)
    return found.sentence or found.why


def _quality_key(head: Head, _known: Known) -> float | None:
    from core.analysis.quality_headline import headline

    quality = head.facts.quality
    found = None if quality is None else headline(quality)
    return None if found is None else found.cost


COLUMNS: tuple[Column, ...] = (
    Column("Run", 180, lambda head, _: name_of(head), lambda head, _: name_of(head).casefold(), editable=True),
    Column(
        "Started",
        92,
        lambda head, _: started(head.created),
        lambda head, _: (head.created, head.id),
        lambda head, _: head.created,
        roomy=ROOMY,
    ),
    Column("Model", 110, lambda head, _: model_of(head), lambda head, _: model_of(head).casefold(), roomy=ROOMY, least=76),
    Column("Passes", 110, lambda head, _: passes_of(head), lambda head, _: passes_of(head), least=76),
    *(_of_metric(one) for one in metrics.METRICS if one.listed),
    Column(
        "Memory",
        70,
        lambda head, _: units.size(head.facts.rss_peak_bytes),
        lambda head, _: head.facts.rss_peak_bytes,
        lambda head, _: "peak of the process" if head.facts.rss_peak_bytes else "not measured",
        number=True,
        roomy=ROOMY,
    ),
    Column("Quality", 84, _quality_cell, _quality_key, _quality_tip, number=True),
    Column(
        "Noise",
        60,
        **_read(
            lambda known: known.perturbed_share,
            units.percent,
            "no measured moment",
            "share of moments that something disturbed",
        ),
        roomy=ROOMY,
    ),
    Column("Status", 76, lambda head, _: head.status, lambda head, _: head.status, lambda head, _: _status_tip(head)),
    Column("Note", 90, lambda head, _: head.note, lambda head, _: head.note.casefold(), editable=True, least=60),
)
TITLES = tuple(column.title for column in COLUMNS)
NAME, STARTED, MODEL, PASSES = (TITLES.index(title) for title in ("Run", "Started", "Model", "Passes"))
TTFT, TPOT, QUALITY, STATUS, NOTE = (TITLES.index(title) for title in ("TTFT", "TPOT", "Quality", "Status", "Note"))
