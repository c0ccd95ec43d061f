"""What a run's passes cost in quality, as a table of its report."""

from __future__ import annotations

from typing import Any

from core import units
from core.analysis.quality_headline import SECOND
from core.commands.section import Section

Json = dict[str, Any]

_FIGURES = (
    ("KLD, mean", "kld_mean", units.number),
    ("KLD, 99 of 100 below", "kld_p99", units.number),
    ("KLD, largest", "kld_max", units.number),
    ("same first choice", "same_top", units.percent),
    ("ln of the perplexity ratio", "ln_ppl_ratio", units.number),
    ("RMS Δp", "rms_dp", units.percent),
    ("KLD, mean, while decoding", "decode_kld_mean", units.number),
    ("same first choice, while decoding", "decode_same_top", units.percent),
    ("tokens equal before the first other", "token_agreement", units.percent),
    ("cosine, mean", "cosine_mean", units.number),
    ("cosine, least", "cosine_min", units.number),
    ("same neighbours", "neighbours", units.percent),
    ("accuracy", "accuracy", units.percent),
    ("accuracy before", "accuracy_before", units.percent),
)
"""Figures of ``core.records.run.Quality`` in reading order; others follow by their name."""


def cost(summary: Json) -> Section:
    """The table; one line with the reason where it was not measured, and nothing for a run without passes."""
    found = summary["quality"]
    if found is None:
        why = next((item["why"] for item in summary["unavailable"] if item["what"] == "quality"), "")
        missing = f"not measured: {why}" if why else "not measured"
        return Section("Quality cost", ("",), [(missing,)] if summary["passes"] else [])
    rows = []
    if told := found.get("headline"):
        form = units.number if "kld" in told["figure"] or "cosine" in told["figure"] else units.percent
        error = units.DASH if told["error"] is None else f"± {form(told['error'])}"
        rows.append((f"headline: {_titled(told['figure'])}", form(told["value"]), error))
    if found["lossless"] is not None:
        rows.append(("greedy tokens", "equal tokens" if found["lossless"] else "other tokens, though they should be equal", ""))
    second = found.get("second_text") or ""
    listed = (*_FIGURES, *((f"{title} ({second})", f"{SECOND}{name}", form) for title, name, form in _FIGURES))
    known = {name for _, name, _ in listed}
    others = tuple((name.replace("_", " "), name, units.number) for name in found["figures"] if name not in known)
    for title, name, formatted in (*listed, *others):
        if name in found["figures"]:
            one = found["figures"][name]
            error = units.DASH if one["error"] is None else f"± {formatted(one['error'])}"
            rows.append((title, formatted(one["value"]), error))
    return Section("Quality cost", ("", "", "error"), rows, " ".join((_where(found), *_texts(found), *found["notes"])).strip())


def _titled(name: str) -> str:
    """A figure's title in the table."""
    return next((title for title, known, _ in _FIGURES if known == name), name.replace("_", " "))


def _where(found: Json) -> str:
    if not found["positions"]:
        return ""
    more = f" and {found['second_positions']} of {found['second_text']}" if found.get("second_text") else ""
    return f"{found['positions']} positions of {found['text']}{more}, against {found['baseline']}."


def _texts(found: Json) -> list[str]:
    """A sentence where the two texts do not agree."""
    names = found.get("texts_disagree") or ()
    if not names:
        return []
    told = ", ".join(_titled(name) for name in names)
    return [f"The two texts disagree by more than chance allows: {told}. Look at both."]
