"""How exported charts look: fonts, and the frame with title, run and legend around every chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import resources
from core.messages.reason import Reason
from core.plain_text import visible
from core.presentation.palette import THEMES, ChartColours
from core.records.run import Run

WIDTH_IN = 9.6
MARGIN_IN = 0.36
HEADER_IN = 0.86  # title and subtitle above the axes
FOOTER_IN = 0.72  # axis label and provenance below
DPI = 200


_FALLBACKS = ("PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "DejaVu Sans")


@cache
def _inter(weight: str) -> Path | None:
    path = Path(resources.__path__[0]) / "fonts" / f"Inter-{weight}.otf"
    return path if path.is_file() else None


@cache
def _characters(path: Path) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(path)).get_charmap())


def font(text: str, size: float, weight: str = "Regular") -> Any:
    """The bundled font for ``text``, or system fonts where it lacks a character (Chinese run names, say)."""
    from matplotlib.font_manager import FontProperties, fontManager

    path = _inter(weight)
    if path is not None and all(ord(character) in _characters(path) for character in text):
        return FontProperties(fname=str(path), size=size)
    there = set(fontManager.get_font_names())
    families = [name for name in _FALLBACKS if name in there]
    return FontProperties(family=families, size=size, weight="normal" if weight == "Regular" else "bold")


@dataclass
class ChartFrame:
    """A figure with its header; charts make axes in it by inches and write in its fonts."""

    figure: Any
    look: ChartColours
    width_in: float
    height_in: float

    def text(self, x_in: float, y_in: float, text: str, *, size: float = 8.5, weight: str = "Regular", **options: Any) -> Any:
        """Text at inches from the left and from the top."""
        options = {"color": self.look.text, "ha": "left", "va": "baseline"} | options
        x, y, text = x_in / self.width_in, 1 - y_in / self.height_in, visible(text)
        return self.figure.text(x, y, text, fontproperties=font(text, size, weight), **options)

    def axes(self, *, left: float, right: float, top: float = HEADER_IN, bottom: float = FOOTER_IN) -> Any:
        """Axes at so many inches from each side, with only what a reader needs: tick labels and horizontal grid lines."""
        w, h = self.width_in, self.height_in
        axes = self.figure.add_axes((left / w, bottom / h, (w - left - right) / w, (h - top - bottom) / h))
        axes.set_facecolor(self.look.card)
        for side in ("top", "right", "left", "bottom"):
            axes.spines[side].set_visible(False)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, pad=6, colors=self.look.muted)
        return axes

    def ticks(
        self, axis: Any, values: Sequence[float], labels: Sequence[str], *, grid: bool = False, size: float = 8.5
    ) -> None:
        """Ticks of an x or y axis, labelled in the chart's font."""
        labels = [visible(label) for label in labels]
        axis.set_ticks(list(values), labels=labels)
        for label, text in zip(axis.get_ticklabels(), labels, strict=True):
            label.set_fontproperties(font(text, size))
            label.set_color(self.look.muted)
        if grid:
            axis.grid(True, color=self.look.grid, linewidth=0.8)

    def axis_label(self, axis: Any, text: str) -> None:
        """What an axis is, with its unit."""
        axis.set_label_text(text, fontproperties=font(text, 8.5), color=self.look.muted)

    def legend(self, entries: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """One line of symbols and words, right-aligned beside the title; each entry is a text and a marker's options."""
        from matplotlib.lines import Line2D

        x_in = self.width_in - MARGIN_IN
        renderer = self.figure.canvas.get_renderer()
        for text, marker in reversed(entries):
            drawn = self.text(x_in, 0.45, text, color=self.look.muted, ha="right")
            x_in -= drawn.get_window_extent(renderer).width / self.figure.dpi + 0.1
            at = ([x_in / self.width_in], [1 - 0.41 / self.height_in])
            self.figure.add_artist(Line2D(*at, linestyle="none", **({"markersize": 5.5} | marker)))
            x_in -= 0.2

    def empty(self, sentence: str) -> None:
        """Says in the middle why there is nothing to see."""
        self.text(self.width_in / 2, self.height_in / 2, sentence, size=10, color=self.look.muted, ha="center")


def frame(title: str, run: Run, theme: str, height_in: float = 4.6) -> ChartFrame:
    """An empty figure with title, run and provenance; ``ValueError`` for a theme that does not exist."""
    return framed(title, subtitle(run), provenance(run), theme, height_in)


def framed(title: str, below: str, made_by: str, theme: str, height_in: float = 4.6) -> ChartFrame:
    """As ``frame``, for a figure that is not of one run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if theme not in THEMES:
        raise ValueError(Reason("export.no-theme", theme=theme, known=tuple(sorted(THEMES))))
    look = THEMES[theme]
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, facecolor=look.card)
    FigureCanvasAgg(figure)  # no pyplot: nothing global, and any thread may draw
    made = ChartFrame(figure, look, WIDTH_IN, height_in)
    made.text(MARGIN_IN, 0.45, title, size=12.5, weight="SemiBold")
    made.text(MARGIN_IN, 0.67, below, color=look.muted)
    made.text(WIDTH_IN - MARGIN_IN, height_in - 0.2, made_by, size=6.5, color=look.muted, ha="right")
    return made


def subtitle(run: Run) -> str:
    """Run, model, passes and target in one line."""
    facts = run.facts
    model = facts.model.name if facts.model else run.config.model.spec
    passes = " + ".join(report.title for report in facts.passes) or ("" if run.imported else "no passes")
    target = facts.target.title if facts.target else "" if run.imported else run.config.target.id.upper()
    threads = f", {facts.threads} threads" if facts.threads else ""
    status = "" if facts.status == "finished" else facts.status
    parts = (run.name, model, passes, f"{target}{threads}", status)
    return " · ".join(_short(part, 48) for part in parts if part)


def provenance(run: Run) -> str:
    """What made the picture, for whoever finds it alone."""
    environment = run.facts.environment
    versions = [f"{name} {environment[name]}" for name in ("torch", "transformers") if environment.get(name)]
    return " · ".join(["Tickscope", *versions, run.created[:10]])


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
