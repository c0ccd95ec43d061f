"""Light and dark: the palette that every widget and chart takes its colours from, and the style sheet made of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from string import Template
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QFont, QFontDatabase, QFontInfo, QPalette

import resources
from core.presentation.palette import THEMES as THEMES_OF_CHARTS

if TYPE_CHECKING:
    from PySide6.QtWidgets import QApplication

THEMES = ("system", "light", "dark")
FAMILY = "Inter"


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


def _with_charts(name: str, **others: str) -> Palette:
    """A palette whose charts have the colours that exported figures have."""
    charts = THEMES_OF_CHARTS[name]
    return Palette(
        name=name,
        card=charts.card,
        grid=charts.grid,
        text=charts.text,
        muted=charts.muted,
        series=charts.series,
        stages=charts.stages,
        kinds=charts.kinds,
        memory=dict(charts.memory),
        **others,
    )


DARK = _with_charts(
    "dark",
    background="#14171c",
    raised="#242a33",
    entry="#14171c",
    border="#2b313b",
    disabled="#6d7480",
    accent="#4ea1ff",
    on_accent="#0b1220",
    good="#3fc1a0",
    warn="#f2a541",
    bad="#e86a8a",
    on_bad="#ffffff",
)
LIGHT = _with_charts(
    "light",
    background="#f6f7f9",
    raised="#eef1f5",
    entry="#f6f7f9",
    border="#dde2ea",
    disabled="#939ba7",
    accent="#1769d1",
    on_accent="#ffffff",
    good="#0b8468",
    warn="#b86e00",
    bad="#b8325a",
    on_bad="#ffffff",
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
