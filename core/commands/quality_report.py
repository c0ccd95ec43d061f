"""What a run's passes cost in quality, as a table of its report."""

from __future__ import annotations

from typing import Any

from core import units
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
"""Figures of ``core.session.run.Quality`` in reading order; others follow by their name."""


def cost(summary: Json) -> Section:
    """The table; one line with the reason where it was not measured, and nothing for a run without passes."""
    found = summary["quality"]
    if found is None:
        why = next((item["why"] for item in summary["unavailable"] if item["what"] == "quality"), "")
        missing = f"not measured: {why}" if why else "not measured"
        return Section("Quality cost", ("",), [(missing,)] if summary["passes"] else [])
    rows = []
    if found["lossless"] is not None:
        rows.append(("greedy tokens", "equal tokens" if found["lossless"] else "other tokens, though they should be equal", ""))
    known = {name for _, name, _ in _FIGURES}
    others = tuple((name.replace("_", " "), name, units.number) for name in found["figures"] if name not in known)
    for title, name, formatted in (*_FIGURES, *others):
        if name in found["figures"]:
            one = found["figures"][name]
            error = units.DASH if one["error"] is None else f"± {formatted(one['error'])}"
            rows.append((title, formatted(one["value"]), error))
    where = f"{found['positions']} positions of {found['text']}, against {found['baseline']}." if found["positions"] else ""
    return Section("Quality cost", ("", "", "error"), rows, " ".join((where, *found["notes"])).strip())
