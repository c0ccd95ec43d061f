"""Latency per moment: clean and traced, prefill and decode, warm-up and perturbed, each with a mark of its own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QVBoxLayout, QWidget

from core import units
from core.analysis import series
from core.analysis.drawn import without_profiled
from core.presentation import marks
from core.presentation.ticks import nice_limit
from core.records.run import Run
from gui.charts.card import START_HINT, Chart
from gui.charts.moment_range import LEFT_AXIS, RIGHT_STRIP, moment_range
from gui.charts.plot import Plot
from gui.plain import plain_tip
from gui.theme import Palette
from profilers.trace import FIRST, KINDS, PART_OF

PREFILL_KINDS = tuple(KINDS.index(kind) for kind, part in PART_OF.items() if part == FIRST)  # once a request, and long
HEADROOM = 1.06  # the strip above the limit in which outliers are marked


class Dots(NamedTuple):
    """How one sort of moment is drawn."""

    symbol: str
    hollow: bool
    size: float


PLAIN_SIZE = 5
TELLING = [kind for kind in marks.KINDS if kind != "prefill_chunk"]  # a chunk has the marks of a prefill
MARKS = {
    "clean": Dots(marks.DOT.qt, False, PLAIN_SIZE),
    "traced": Dots(marks.DOT.qt, True, PLAIN_SIZE),
    **{
        f"{how} {kind}": Dots(marks.KINDS[kind].qt, how == "traced", PLAIN_SIZE * marks.KINDS[kind].scale)
        for kind in TELLING
        for how in ("clean", "traced")
    },
    "warm-up": Dots(marks.DOT.qt, False, 4),
    "perturbed": Dots(marks.PERTURBED.qt, False, PLAIN_SIZE * marks.PERTURBED.scale),
    "prefill above": Dots(marks.KINDS["prefill"].qt, False, PLAIN_SIZE * marks.KINDS["prefill"].scale),
    "outlier": Dots(marks.ABOVE.qt, False, PLAIN_SIZE * marks.ABOVE.scale),
}


LEGEND = (
    (marks.DOT.sign, "clean", "clean"),
    ("○", "traced", "traced"),
    (marks.KINDS["prefill"].sign, "clean prefill", "prefill"),
)
SEEN = {kind: (marks.KINDS[kind].sign, kind) for kind in TELLING if kind != "prefill"}
ABOVE = (marks.ABOVE.sign, "outlier", "above the axis")
LAST = ((marks.PERTURBED.sign, "perturbed", "perturbed"), (marks.DOT.sign, "warm-up", "warm-up"))


BELOW = {"warm-up": -2, "perturbed": -1}  # under what counts, and dimmer
DIM = 0.55
MEANINGS = {
    "clean": "no layer was timed; headline numbers come from these",
    "traced": "every layer was timed",
    **{kind: marks.KINDS[kind].meaning for kind in TELLING},
    "perturbed": "something else had the machine; left out of headline numbers",
    "warm-up": "before what counts",
    "above the axis": "slower than the axis reaches",
}


class LatencyChart(Chart):
    """Dots over the moment number. The axis ends where most moments are; the few above are marked at the top edge."""

    figure_name = "latency"

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Latency per moment", "latencyChart", f"{START_HINT}: every forward pass becomes a dot here.", parent)
        self.plot = self.adopt(Plot("moment", "ms", whole_x=True, axis_width=LEFT_AXIS, gutter=RIGHT_STRIP, parent=self.body))
        layout = QVBoxLayout(self.body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.plot)
        self.series: series.LatencySeries | None = None
        self.profiled = 0  # moments that ran under torch.profiler, which are not drawn
        self._imported = False
        self.limit_ms = 0.0
        self._provisional = True
        self._run_key: tuple[int, str] | None = None
        self._shown = [(-1, 0.0)] * len(MARKS)  # how many dots of each mark are drawn, and under which limit
        self._values = np.empty(0)
        self._groups = np.empty(0, np.int8)
        self.dots = {
            name: pg.ScatterPlotItem(symbol=mark.symbol, size=mark.size, antialias=True) for name, mark in MARKS.items()
        }
        for order, (name, item) in enumerate(self.dots.items()):
            item.setZValue(BELOW.get(name, order))
            self.plot.addItem(item, ignoreBounds=True)
        self.median_line = pg.PlotCurveItem()
        self.median_line.setZValue(20)
        self.plot.addItem(self.median_line, ignoreBounds=True)
        self._ring = pg.ScatterPlotItem(symbol="o", size=11)
        self._ring.setZValue(30)
        self.plot.addItem(self._ring, ignoreBounds=True)
        self.plot.pointer_moved.connect(self._hover)
        self.plot.pointer_left.connect(self._unhover)
        self.folded = 0  # moments of warm-up that are out of sight
        self.show_warmup = self.menu.addAction("Show warm-up")
        self.show_warmup.setCheckable(True)
        self.show_warmup.toggled.connect(self._refit)

    @property
    def edge_ms(self) -> float:
        """Where moments above the limit are marked."""
        return self.limit_ms * (1 + (HEADROOM - 1) / 2)

    def draw(self, run: Run) -> str | None:
        data, self.profiled = without_profiled(run)
        self._imported = run.facts.status == "imported"
        if not len(data.moment):
            yet = "No moment has been measured yet." if run.facts.status == "running" else "No moment was measured."
            return "The imported trace has no steps." if self._imported else yet
        key = (run.id, run.created)
        if key != self._run_key or len(data.moment) < len(self._values):
            self._run_key, self.limit_ms, self._provisional = key, 0.0, True
            self._shown = [(-1, 0.0)] * len(MARKS)
            self.plot.user_ranged = False
        self.series = data
        self._values = np.where(np.isnan(data.latency_ms), data.duration_ms, data.latency_ms)
        self._sort_into_groups(data)
        limit, provisional = self._robust_limit()
        # Only upwards, so that the axis does not jump; but what the very first prefill set is not what the rest is measured by.
        self.limit_ms = limit if self._provisional else max(self.limit_ms, limit)
        self._provisional = provisional
        self._place_dots(data)
        self._place_median(data)
        low, high, self.folded = moment_range(run, warmup=self.show_warmup.isChecked())
        self.plot.fit(low, high, 0.0, self.limit_ms * HEADROOM)
        self._legend()
        return None

    def spoken(self) -> str:
        data = self.series
        if data is None:
            return ""
        counted = ~data.warmup & ~data.perturbed
        values = self._values[counted if counted.any() else ~data.warmup]
        parts = [f"{len(data.moment)} moments, {np.count_nonzero(data.warmup)} of warm-up"]
        parts.append(f"{np.count_nonzero(data.perturbed & ~data.warmup)} perturbed")
        if data.clean_median_ms is not None:
            parts.append(f"median of clean {data.main_kind} moments {units.duration(data.clean_median_ms * 1e6)}")
        if len(values):
            least, most = units.duration(float(values.min()) * 1e6), units.duration(float(values.max()) * 1e6)
            parts.append(f"from {least} to {most}")
        return ", ".join(parts) + "."

    def recolour(self, palette: Palette) -> None:
        colours = self._colours(palette)
        for name, item in self.dots.items():
            mark = MARKS[name]
            colour = QColor(colours[name])
            colour.setAlphaF(DIM if name in BELOW else 1.0)
            item.setPen(pg.mkPen(colour, width=1.4 if mark.symbol == "x" else 1))
            item.setBrush(pg.mkBrush(palette.card if mark.hollow else colour))
        self.median_line.setPen(pg.mkPen(palette.muted, width=1, style=Qt.PenStyle.DashLine))
        self._ring.setPen(pg.mkPen(palette.text, width=1.5))
        self._ring.setBrush(pg.mkBrush(None))
        self._legend()

    @staticmethod
    def _colours(palette: Palette) -> dict[str, str]:
        """The colour of each mark."""
        named = {f"{how} {kind}": palette.kinds[kind] for kind in marks.KINDS for how in ("clean", "traced")}
        plain = {"clean": palette.series[0], "traced": palette.series[0], "prefill above": palette.kinds["prefill"]}
        return named | plain | {"warm-up": palette.disabled, "perturbed": palette.bad, "outlier": palette.text}

    def _meaning(self, name: str) -> str:
        more = f"; {self.folded} are folded away, the chart's menu shows them" if name == "warm-up" and self.folded else ""
        return MEANINGS[name] + more

    def _refit(self) -> None:
        self.plot.user_ranged = False
        if self.run is not None:
            self.show_run(self.run)

    def _legend(self) -> None:
        """What the marks mean, and what is not drawn: profiled moments are slower and would only squeeze the rest."""
        palette = self.palette_in_use
        if palette is None:
            return
        if self._imported:
            self.set_note("steps of an imported trace", "imported trace")
            return
        colours = self._colours(palette)
        kinds = {KINDS[number] for number in np.unique(self.series.kind)} if self.series is not None else set()
        special = [(mark, f"clean {kind}", name) for kind, (mark, name) in SEEN.items() if kind in kinds]
        above = [ABOVE] if self.dots["outlier"].data.size else []
        entries = (*LEGEND, *special, *above, *LAST)
        self.note.setToolTip(plain_tip("\n".join(f"{mark} {name}: {self._meaning(name)}" for mark, _, name in entries)))
        shown = [f'<span style="color:{colours[key]}">{mark}</span>&nbsp;{name}' for mark, key, name in entries]
        out = [f"{self.profiled} profiled not drawn"] if self.profiled else []
        told = [*shown[:-1], f"{shown[-1]}, {self.folded} folded"] if self.folded else shown
        drawn = [text for text, (_, key, _) in zip(shown, entries, strict=True) if self._is_drawn(key)]
        choices = [[*told, *out], [*shown, *out], shown, drawn, *(drawn[:most] for most in range(len(drawn) - 1, 0, -1))]
        self.set_legend(*("&nbsp; ".join(choice) for choice in choices))

    def _is_drawn(self, name: str) -> bool:
        """Whether the chart has such a mark now: where there is no room for all, these need their meaning."""
        of_kind = {"clean prefill": ("clean prefill", "traced prefill", "prefill above")}
        names = of_kind.get(name, (name, name.replace("clean ", "traced ")))
        return any(len(self.dots[one].data) for one in names)

    def _sort_into_groups(self, data: series.LatencySeries) -> None:
        """Each moment gets the number of its mark in ``MARKS``; later rules win."""
        names = list(MARKS)
        groups = np.where(data.traced, names.index("traced"), names.index("clean")).astype(np.int8)
        for kind in marks.KINDS:
            base = "clean prefill" if kind == "prefill_chunk" else f"clean {kind}"
            groups[data.kind == KINDS.index(kind)] += names.index(base)
        groups[data.perturbed] = names.index("perturbed")
        groups[data.warmup] = names.index("warm-up")
        self._groups = groups

    def _robust_limit(self) -> tuple[float, bool]:
        """A round limit that most moments stay below: one outlier, or a few long prefills, must not flatten the rest.

        The second value says that there is little to go by yet.
        """
        assert self.series is not None
        prefill = np.isin(self.series.kind, PREFILL_KINDS)
        warm = ~self.series.warmup
        rest = self._values[~prefill & warm] if (~prefill & warm).any() else self._values[~prefill]
        first = self._values[prefill & warm] if (prefill & warm).any() else self._values[prefill]
        if not len(rest):
            return nice_limit(1.25 * float(np.median(first))), True
        middle = float(np.median(rest))
        quarter, three_quarters = np.percentile(rest, (25, 75))
        fence = float(three_quarters + 3 * (three_quarters - quarter))  # Tukey's far fence
        top = max(min(float(rest.max()), fence) * 1.08, middle * 1.15)
        if len(first) and float(np.median(first)) <= top * 1.6:
            top = max(top, float(np.median(first)) * 1.15)
        return nice_limit(top), not (~prefill & warm).any()

    def _place_dots(self, data: series.LatencySeries) -> None:
        names = list(MARKS)
        above = self._values > self.limit_ms
        prefill = np.isin(data.kind, PREFILL_KINDS)
        groups = np.where(above, np.where(prefill, names.index("prefill above"), names.index("outlier")), self._groups)
        heights = np.where(above, self.edge_ms, self._values)
        for number, item in enumerate(self.dots.values()):
            chosen = groups == number
            shown = (int(np.count_nonzero(chosen)), self.limit_ms)
            # Moments that are over never change, so a group of as many dots under the same limit is drawn already.
            if shown != self._shown[number]:
                self._shown[number] = shown
                item.setData(x=data.moment[chosen], y=heights[chosen])

    def _place_median(self, data: series.LatencySeries) -> None:
        median = data.clean_median_ms
        palette = self.palette_in_use
        labels: list[tuple[str, str, float, float]] = []
        colour = "#808080" if palette is None else palette.muted
        last = float(data.moment[-1])
        if median is None or median > self.limit_ms:
            self.median_line.setData([], [])
        else:
            self.median_line.setData([-0.5, last + 0.5], [median, median])
            labels.append((f"median\n{units.duration(median * 1e6)}", colour, last + 0.5, median))
        above = self._values > self.limit_ms
        prefill = np.isin(data.kind, PREFILL_KINDS)
        counted = above & prefill & ~data.warmup if (above & prefill & ~data.warmup).any() else above & prefill
        if counted.any():
            text = f"prefill ↑\n{units.duration(float(np.median(self._values[counted])) * 1e6)}"
            labels.append((text, colour, last + 0.5, self.edge_ms))
        outliers = self._values[above & ~prefill]
        if len(outliers):
            text = f"▲ {len(outliers)} up to\n{units.duration(float(outliers.max()) * 1e6)}"
            labels.append((text, colour, last + 0.5, self.edge_ms))
        self.plot.labels.show(labels)

    def _hover(self, x: float, y: float) -> None:
        data = self.series
        if data is None or not len(data.moment):
            return
        across, up = self.plot.pixel_size()
        heights = np.minimum(self._values, self.edge_ms)
        distance = ((data.moment - x) / across) ** 2 + ((heights - y) / up) ** 2
        row = int(distance.argmin())
        if distance[row] > 18**2:
            self._unhover()
            return
        self._ring.setData(x=[float(data.moment[row])], y=[heights[row]])
        self.plot.say(self._describe(row), float(data.moment[row]), float(heights[row]))

    def _unhover(self) -> None:
        self._ring.setData(x=[], y=[])
        self.plot.say("", 0, 0)

    def _describe(self, row: int) -> str:
        data = self.series
        assert data is not None
        how = "imported" if self._imported else "traced" if data.traced[row] else "clean"
        sort = [KINDS[data.kind[row]].replace("_", " "), how]
        sort += ["cold" if self._imported else "warm-up"] if data.warmup[row] else []
        sort += ["perturbed"] if data.perturbed[row] else []
        forward = units.duration(float(data.duration_ms[row]) * 1e6)
        value = units.duration(float(self._values[row]) * 1e6)
        return f"moment {int(data.moment[row])} · {value} ({', '.join(sort)}) · forward {forward}"
