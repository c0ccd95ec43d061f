"""Light and dark: the one palette every widget and chart takes its colours from, and the style sheet made of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from string import Template
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QFont, QFontDatabase, QFontInfo, QPalette

import resources

if TYPE_CHECKING:
    from PySide6.QtWidgets import QApplication

THEMES = ("system", "light", "dark")
FAMILY = "Inter"

_DARK_SERIES = {
    "blue": "#4ea1ff",
    "green": "#3fc1a0",
    "orange": "#f2a541",
    "purple": "#c58af9",
    "pink": "#e86a8a",
    "grey": "#8f9bb0",
    "sand": "#f5ee9e",
}
_LIGHT_SERIES = {
    "blue": "#1769d1",
    "green": "#0b8468",
    "orange": "#b86e00",
    "purple": "#7c3fc4",
    "pink": "#b8325a",
    "grey": "#7a889c",
    "sand": "#5b4300",
}


def _by_kind(series: dict[str, str]) -> dict[str, str]:
    """The colour of each kind of ``profilers.trace.KINDS``; charts give them marks of their own, too."""
    return {
        "prefill": series["orange"],
        "prefill_chunk": series["orange"],
        "decode": series["blue"],
        "verify": series["purple"],
        "forward": series["blue"],
        "encode": series["green"],
        "draft": series["sand"],
    }


def _by_stage(series: dict[str, str]) -> dict[str, str]:
    """The colour of each stage of ``profilers.trace.STAGES``."""
    return {
        "tokenize": series["grey"],
        "embed": series["grey"],
        "attention": series["blue"],
        "mlp": series["green"],
        "norm": series["purple"],
        "head": series["orange"],
        "sample": series["pink"],
        "transfer": series["sand"],
        "other": series["grey"],
    }


@dataclass(frozen=True)
class Palette:
    """Colours as ``#rrggbb``. Series differ in lightness too, so colour-blind readers can tell them apart."""

    name: str  # "light" or "dark"
    background: str  # behind the cards
    card: str  # cards, sidebar, header, status bar
    raised: str  # tab bar, quiet buttons
    entry: str  # line edits, spin boxes
    border: str
    grid: str  # chart grid lines
    text: str
    muted: str  # labels, second lines; 4.5:1 on card
    disabled: str
    accent: str
    on_accent: str
    good: str
    warn: str
    bad: str
    on_bad: str
    series: tuple[str, ...]  # for curves without a meaning of their own, in order
    stages: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    memory: dict[str, str] = field(default_factory=dict)  # other, framework, weights, kv_cache, activations


DARK = Palette(
    name="dark",
    background="#14171c",
    card="#1b1f26",
    raised="#242a33",
    entry="#14171c",
    border="#2b313b",
    grid="#2b313b",
    text="#e6e9ee",
    muted="#98a2b3",
    disabled="#6d7480",
    accent="#4ea1ff",
    on_accent="#0b1220",
    good="#3fc1a0",
    warn="#f2a541",
    bad="#e86a8a",
    on_bad="#ffffff",
    series=tuple(_DARK_SERIES.values()),
    stages=_by_stage(_DARK_SERIES),
    kinds=_by_kind(_DARK_SERIES),
    memory={"other": "#717b8d", "framework": "#57606f", "weights": "#4080c8", "kv_cache": "#359881", "activations": "#bb833a"},
)
LIGHT = Palette(
    name="light",
    background="#f6f7f9",
    card="#ffffff",
    raised="#eef1f5",
    entry="#f6f7f9",
    border="#dde2ea",
    grid="#dde2ea",
    text="#1b2430",
    muted="#5d6b80",
    disabled="#939ba7",
    accent="#1769d1",
    on_accent="#ffffff",
    good="#0b8468",
    warn="#b86e00",
    bad="#b8325a",
    on_bad="#ffffff",
    series=tuple(_LIGHT_SERIES.values()),
    stages=_by_stage(_LIGHT_SERIES),
    kinds=_by_kind(_LIGHT_SERIES),
    memory={"other": "#9ba6b5", "framework": "#7d899a", "weights": "#518fdd", "kv_cache": "#48a38e", "activations": "#ca9240"},
)


def palette(name: str) -> Palette:
    """The palette of "light" or "dark"."""
    return LIGHT if name == "light" else DARK


def resolve(app: QApplication, name: str) -> str:
    """Say "light" or "dark" for a theme name; "system" asks the desktop, and is dark where it does not say."""
    if name != "system":
        return name
    return "light" if app.styleHints().colorScheme() == Qt.ColorScheme.Light else "dark"


def load_fonts() -> None:
    """Make the bundled fonts known, so that the window reads the same on a machine without any."""
    for font in resources.fonts():
        QFontDatabase.addApplicationFontFromData(font)


def base_pixels(app: QApplication) -> float:
    """The text size everything is scaled from: 13 px where the desktop's own text has the usual size."""
    system = QFontDatabase.systemFont(QFontDatabase.SystemFont.GeneralFont)
    points = system.pointSizeF()
    dots = app.primaryScreen().logicalDotsPerInch() if app.primaryScreen() else 96.0
    pixels = points * dots / 72 if points > 0 else float(system.pixelSize())
    return min(26.0, max(13.0, pixels))


def scaled(font: QFont, factor: float, least: int = 9) -> QFont:
    """``font`` in another size. A font given in points has no pixel size of its own, so its real one is asked for."""
    other = QFont(font)
    other.setPixelSize(max(least, round(QFontInfo(font).pixelSize() * factor)))
    return other


def stylesheet(colours: Palette, pixels: float = 13.0) -> str:
    """The style sheet of ``resources/theme/app.qss`` with these colours; text sizes follow ``pixels``."""
    values = {name: value for name, value in asdict(colours).items() if isinstance(value, str)}
    sizes = {"tiny": 10.5, "small": 11.5, "normal": 13.0, "large": 15.0, "huge": 22.0}
    values |= {f"size_{name}": str(round(size * pixels / 13)) for name, size in sizes.items()}
    values |= {f"icon_{icon}": resources.path(f"icons/{icon}.svg") for icon in ("down", "up", "right", "check")}
    return Template(resources.text("theme/app.qss")).substitute(values)


def apply(app: QApplication, name: str) -> Palette:
    """Give the application the palette and the font of a theme ("light", "dark" or "system"); returns the palette in use.

    Before any widget is made, or texts that are measured early are measured in the desktop's font. The style sheet is not
    the application's: one for all 1,500 widgets, most of them out of sight, took over a second (see ``gui.theme_switch``).
    """
    hints = app.styleHints()
    if name == "system":
        hints.unsetColorScheme()
    else:
        hints.setColorScheme(Qt.ColorScheme.Light if name == "light" else Qt.ColorScheme.Dark)
    colours = palette(resolve(app, name))
    pixels = base_pixels(app)
    font = QFont(FAMILY)
    font.setPixelSize(round(pixels))
    font.setFeature(QFont.Tag("tnum"), 1)
    if app.font() != font:
        app.setFont(font)
    app.setPalette(_qt_palette(colours))
    return colours


def _qt_palette(colours: Palette) -> QPalette:
    """The same colours for what the style sheet does not reach: dialogs, selection, links, placeholder text."""
    qt = QPalette(QColor(colours.card))
    role = QPalette.ColorRole
    for key, value in (
        (role.Window, colours.background),
        (role.Base, colours.card),
        (role.AlternateBase, colours.background),
        (role.Button, colours.raised),
        (role.WindowText, colours.text),
        (role.Text, colours.text),
        (role.ButtonText, colours.text),
        (role.ToolTipBase, colours.raised),
        (role.ToolTipText, colours.text),
        (role.Highlight, colours.accent),
        (role.HighlightedText, colours.on_accent),
        (role.Link, colours.accent),
        (role.PlaceholderText, colours.disabled),
    ):
        qt.setColor(key, QColor(value))
    for key in (role.WindowText, role.Text, role.ButtonText):
        qt.setColor(QPalette.ColorGroup.Disabled, key, QColor(colours.disabled))
    return qt
