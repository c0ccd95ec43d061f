"""The colours of charts in both themes, for window and exported figures alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

KINDS: Mapping[str, str] = {
    "prefill": "orange",
    "prefill_chunk": "orange",
    "decode": "blue",
    "verify": "purple",
    "forward": "blue",
    "encode": "green",
    "draft": "sand",
}
"""The colour of each kind of ``profilers.trace.KINDS``; marks tell them apart, too (``marks``)."""

STAGES: Mapping[str, str] = {
    "tokenize": "grey",
    "embed": "grey",
    "attention": "blue",
    "mlp": "green",
    "norm": "purple",
    "head": "orange",
    "sample": "pink",
    "transfer": "sand",
    "other": "grey",
}
"""The colour of each stage of ``profilers.trace.STAGES``."""

PERTURBED = "pink"


@dataclass(frozen=True)
class ChartColours:
    """Colours of one theme as ``#rrggbb``. They differ in lightness too, so colour-blind readers can tell them apart.

    ``series`` is for curves without a meaning of their own, by name in their order; ``memory`` for its parts.
    """

    card: str
    grid: str
    text: str
    muted: str
    by_name: Mapping[str, str]
    memory: Mapping[str, str]

    @property
    def series(self) -> tuple[str, ...]:
        return tuple(self.by_name.values())

    @property
    def kinds(self) -> dict[str, str]:
        """The colour of each kind of moment."""
        return {kind: self.by_name[name] for kind, name in KINDS.items()}

    @property
    def stages(self) -> dict[str, str]:
        """The colour of each stage."""
        return {stage: self.by_name[name] for stage, name in STAGES.items()}

    @property
    def perturbed(self) -> str:
        return self.by_name[PERTURBED]


THEMES: Mapping[str, ChartColours] = {
    "dark": ChartColours(
        card="#1b1f26",
        grid="#2b313b",
        text="#e6e9ee",
        muted="#98a2b3",
        by_name={
            "blue": "#4ea1ff",
            "green": "#3fc1a0",
            "orange": "#f2a541",
            "purple": "#c58af9",
            "pink": "#e86a8a",
            "grey": "#8f9bb0",
            "sand": "#f5ee9e",
        },
        memory={
            "other": "#717b8d",
            "framework": "#57606f",
            "weights": "#4080c8",
            "kv_cache": "#359881",
            "activations": "#bb833a",
        },
    ),
    "light": ChartColours(
        card="#ffffff",
        grid="#dde2ea",
        text="#1b2430",
        muted="#5d6b80",
        by_name={
            "blue": "#1769d1",
            "green": "#0b8468",
            "orange": "#b86e00",
            "purple": "#7c3fc4",
            "pink": "#b8325a",
            "grey": "#7a889c",
            "sand": "#5b4300",
        },
        memory={
            "other": "#9ba6b5",
            "framework": "#7d899a",
            "weights": "#518fdd",
            "kv_cache": "#48a38e",
            "activations": "#ca9240",
        },
    ),
}
