"""The tiles above the charts: the headline numbers of a run, each with what it is, how sure it is, or why it is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from core import units
from gui.theme import Palette

Json = Mapping[str, Any]
TILE_WIDTH = 118
NO_RUN = "no run yet"


class Reading(NamedTuple):
    """What a tile shows: the number and its unit, the line below, and how it is meant ("good", "warn" or "")."""

    value: str
    unit: str
    sub: str
    tone: str = ""


def missing(why: str) -> Reading:
    """Not measured: a dash and the reason."""
    return Reading(units.DASH, "", why)


class Spec(NamedTuple):
    """One tile: its object name, label, definition, and how it reads a summary."""

    name: str
    label: str
    definition: str
    read: Callable[[Json], Reading]


def _spread(summary: Json, name: str) -> Json:
    found = summary.get("metrics", {}).get(name)
    return found if isinstance(found, Mapping) else {}


def _why(summary: Json, *words: str) -> str:
    """The reason that the summary gives for something missing, "" for none."""
    for item in summary.get("unavailable", ()):
        if any(word in str(item["what"]).lower() for word in words):
            return str(item["why"])
    return ""


def _certainty(spread: Json, show: Callable[[float | None], tuple[str, str]]) -> str:
    """``± 0.4 · n 5``: half the width of the 95 % interval in the value's unit, and how many samples."""
    count = f"n {spread.get('n', 0)}"
    low, high, median = spread.get("low"), spread.get("high"), spread.get("median")
    if low is None or high is None or median is None:
        return count
    half = (high - low) / 2
    unit = show(median)[1]
    number, its_unit = show(half)
    return f"± {number}{'' if its_unit == unit else ' ' + its_unit} · {count}"


def _running(summary: Json) -> bool:
    return summary.get("status") == "running"


def _waiting(summary: Json, what: str) -> str:
    return f"waiting for {what}" if _running(summary) else f"no clean {what}"


def _encoder(summary: Json) -> bool:
    return summary.get("model", {}).get("task") not in (None, "", "text-generation")


def _ttft(summary: Json) -> Reading:
    spread = _spread(summary, "ttft_ns")
    if spread.get("median") is None:
        why = "encoders give none" if _encoder(summary) else _waiting(summary, "prefill")
        return missing(_why(summary, "ttft") or why)
    return Reading(*units.split_duration(spread["median"]), _certainty(spread, units.split_duration))


def _tpot(summary: Json) -> Reading:
    spread = _spread(summary, "tpot_ns")
    if spread.get("median") is None:
        if _encoder(summary):
            return _forward(summary)
        return missing(_why(summary, "tpot") or _waiting(summary, "decode"))
    return Reading(*units.split_duration(spread["median"]), _certainty(spread, units.split_duration))


def _forward(summary: Json) -> Reading:
    spread = _spread(summary, "e2e_ns")
    if spread.get("median") is None:
        return missing("encoders give none")
    return missing(f"encoder: {units.duration(spread['median'])} a call")


def _itl(summary: Json) -> Reading:
    """The highest percentile that there are enough gaps for, else the median with the maximum."""
    spread = _spread(summary, "itl_ns")
    if spread.get("median") is None:
        why = "encoders give none" if _encoder(summary) else _waiting(summary, "decode")
        return missing(_why(summary, "itl") or why)
    if spread.get("p95") is not None:
        return Reading(*units.split_duration(spread["p95"]), f"p95 · {spread['n']} gaps")
    return Reading(*units.split_duration(spread["median"]), f"median · {spread['n']} gaps")


def _decode(summary: Json) -> Reading:
    spread = _spread(summary, "decode_tokens_per_s")
    if spread.get("median") is None:
        spread = _spread(summary, "input_tokens_per_s")
        if spread.get("median") is not None:
            return Reading(*units.split_rate(spread["median"]), "input tokens")
        return missing(_why(summary, "decode") or _waiting(summary, "decode"))
    batch = summary.get("workload", {}).get("batch", 1)
    sub = _certainty(spread, units.split_rate)
    return Reading(*units.split_rate(spread["median"]), sub if batch == 1 else f"batch {batch} · {sub}")


def _memory(summary: Json) -> Reading:
    memory = summary.get("memory", {})
    on_device = memory.get("device_peak_bytes")
    peak = on_device if on_device is not None else memory.get("rss_peak_bytes")
    if peak is None:
        return missing(_why(summary, "memory") or "not sampled in this run")
    weights = memory.get("weights_bytes")
    return Reading(*units.split_size(peak), "weights not known" if weights is None else f"weights {units.size(weights)}")


def _observer(summary: Json) -> Reading:
    effects = summary.get("observer_effect", {})
    effect = next((effects[kind] for kind in ("decode", "forward", "prefill") if effects.get(kind)), None)
    paused = f"paused {units.duration(effects['paused_ns'])}" if effects.get("paused_ns") else "no pause"
    if effect is None:
        return missing(_why(summary, "observer") or _waiting(summary, "traced pair"))
    change = units.signed_percent(effect["ratio"]).removesuffix(" %")
    tone = "good" if abs(effect["ratio"] - 1) < 0.02 else "warn"
    return Reading(change, "%", paused, tone)


SPECS = (
    Spec(
        "statTTFT",
        "TTFT",
        "Time to first token: from the accepted request to the first token, tokenisation included. "
        "Median of clean, warm requests; ± is half the bootstrap 95 % interval, n the number of requests.",
        _ttft,
    ),
    Spec(
        "statTPOT",
        "TPOT p50",
        "Time per output token of one request: (end-to-end − TTFT) / (tokens − 1), from its clean moments. "
        "Median over requests; n is their number. AIPerf calls this number ITL.",
        _tpot,
    ),
    Spec(
        "statITL",
        "ITL",
        "Inter-token latency: each gap between two tokens, pooled over all requests, as vLLM defines it. "
        "Name clash: AIPerf's ITL is our TPOT, and vLLM's ITL is about AIPerf's ICL. "
        "p95 is shown from 130 gaps on; below that, the median.",
        _itl,
    ),
    Spec(
        "statDecode",
        "Decode",
        "Decoded tokens per second: (tokens − 1) × batch / (end-to-end − TTFT). Median over requests.",
        _decode,
    ),
    Spec(
        "statPeakMemory",
        "Peak memory",
        "The most memory that was in use: the device's peak on an accelerator, else the resident memory of the process.",
        _memory,
    ),
    Spec(
        "statObserver",
        "Observer effect",
        "What watching costs: median traced moment against median clean moment of this run. Headline numbers come from clean "
        "moments only, so this is not in them. Pauses for painting stop the clock.",
        _observer,
    ),
)


class Tile(QFrame):
    """One headline number."""

    def __init__(self, spec: Spec, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.spec = spec
        self.reading = Reading("", "", "")
        self.setObjectName(spec.name)
        self.setProperty("card", True)
        self.setAccessibleName(spec.label)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.label = QLabel(spec.label, self)
        self.label.setProperty("role", "muted")
        self.value = QLabel(self)
        self.unit = QLabel(self)
        self.unit.setProperty("role", "muted")
        self.sub = QLabel(self)
        self.sub.setProperty("role", "muted")
        for label in (self.label, self.sub):
            label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        line = QHBoxLayout()
        line.setSpacing(5)
        line.addWidget(self.value, 0, Qt.AlignmentFlag.AlignBottom)
        line.addWidget(self.unit, 1, Qt.AlignmentFlag.AlignBottom)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(11, 7, 6, 7)
        layout.setSpacing(1)
        layout.addWidget(self.label)
        layout.addLayout(line)
        layout.addWidget(self.sub)
        self._palette: Palette | None = None
        self.setMinimumWidth(TILE_WIDTH - 18)
        self.show_reading(missing(NO_RUN))

    def show_summary(self, summary: Json | None) -> None:
        """The tile's number from a run's summary; None: there is no run."""
        self.show_reading(missing(NO_RUN) if summary is None else self.spec.read(summary))

    def show_reading(self, reading: Reading) -> None:
        """Put a reading on the tile; costs nothing while it stays the same."""
        if reading == self.reading:
            return
        tone_changed = reading.tone != self.reading.tone
        self.reading = reading
        self.value.setText(reading.value)
        self.unit.setText(reading.unit)
        self._fit_sub()
        said = f"{reading.value} {reading.unit}".strip() if reading.value != units.DASH else "not measured"
        self.setAccessibleDescription(f"{said}, {reading.sub}. {self.spec.definition}")
        self.setToolTip(f"<b>{self.spec.label}</b>: {said}<br>{reading.sub}<br><br>{self.spec.definition}")
        if tone_changed:
            self._colour()

    def set_palette(self, palette: Palette) -> None:
        self._palette = palette
        font = self.font()
        font.setPixelSize(round(self._base_pixels() * 1.72))
        font.setBold(True)
        self.value.setFont(font)
        self._colour()

    def _base_pixels(self) -> float:
        pixels = self.font().pixelSize()
        return pixels if pixels > 0 else self.font().pointSizeF() * 4 / 3

    def _colour(self) -> None:
        palette = self._palette
        if palette is not None:
            colour = {"good": palette.good, "warn": palette.warn}.get(self.reading.tone, palette.text)
            size = round(self._base_pixels() * 1.72)
            self.value.setStyleSheet(f"color: {colour}; font-size: {size}px; font-weight: 600;")

    def _fit_sub(self) -> None:
        """The line below, shortened with dots where it does not fit; the whole of it is in the tooltip."""
        room = max(20, self.width() - 19)
        self.sub.setText(self.sub.fontMetrics().elidedText(self.reading.sub, Qt.TextElideMode.ElideRight, room))

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange) and hasattr(self, "_palette"):
            self._fit_sub()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit_sub()


class Tiles(QWidget):
    """All tiles in as many columns as fit."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.tiles = [Tile(spec, self) for spec in SPECS]
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(8)
        self._columns = 0
        self.arrange(len(self.tiles))

    def arrange(self, columns: int) -> None:
        """Lay the tiles out in so many columns."""
        columns = max(1, min(columns, len(self.tiles)))
        if columns == self._columns:
            return
        for column in range(self._columns):
            self._grid.setColumnStretch(column, 0)
        self._columns = columns
        for order, tile in enumerate(self.tiles):
            self._grid.addWidget(tile, order // columns, order % columns)
        for column in range(columns):
            self._grid.setColumnStretch(column, 1)

    def show_summary(self, summary: Json | None) -> None:
        """The numbers of a run, or none."""
        for tile in self.tiles:
            tile.show_summary(summary)

    def set_palette(self, palette: Palette) -> None:
        for tile in self.tiles:
            tile.set_palette(palette)
