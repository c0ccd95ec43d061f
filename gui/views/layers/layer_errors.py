"""The line above the layer table that names the layers which the passes moved furthest from the unoptimized model."""

from __future__ import annotations

import html
from collections.abc import Mapping

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QLabel, QSizePolicy, QWidget

from core.records.run import Run
from gui.theme import Palette
from gui.views import quality_text

WORST = 3
EXPLAINED = "Signal-to-noise ratio of a layer's output against the unoptimized model: the lower, the larger the error"


class LayerErrors(QLabel):
    """Links to the worst layers; hidden where no layer errors are known."""

    layer_selected = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("layerErrors")
        self.setProperty("role", "muted")
        self.setTextFormat(Qt.TextFormat.RichText)
        self.setWordWrap(True)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.setToolTip(EXPLAINED)
        self.setTextInteractionFlags(
            Qt.TextInteractionFlag.LinksAccessibleByMouse | Qt.TextInteractionFlag.LinksAccessibleByKeyboard
        )
        self._known: Mapping[str, float | None] = {}
        self._colour = ""
        self.linkActivated.connect(self.layer_selected)
        self.hide()

    def show_errors(self, sqnr_db: Mapping[str, float | None]) -> None:
        """Name the worst, and say how many layers are exact."""
        self._known = sqnr_db
        self.setVisible(bool(sqnr_db))
        worst = worst_layers(sqnr_db)
        exact = sum(value is None for value in sqnr_db.values())
        links = [_link(path, value, self._colour) for path, value in worst]
        parts = [f"Largest layer errors:&nbsp; {' &nbsp;·&nbsp; '.join(links)}"] if links else []
        parts += [f"{exact}&nbsp;layer{'s' if exact > 1 else ''}&nbsp;exact"] if exact else []
        self.setText(" &nbsp;·&nbsp; ".join(parts))

    def set_palette(self, palette: Palette) -> None:
        """Links keep the colours that they were written with, so they are written again."""
        self._colour = palette.accent
        self.show_errors(self._known)


def _link(path: str, value: float, colour: str) -> str:
    name = html.escape(path)
    return (
        f'<a href="{name}" style="color:{colour}">{name.removeprefix("model.") or "whole model"}</a>&nbsp;{value:.1f}&nbsp;dB'
    )


def worst_layers(sqnr_db: Mapping[str, float | None], most: int = WORST) -> list[tuple[str, float]]:
    """The innermost layers with the lowest ratio, worst first: what holds other measured layers only sums them up."""
    known = [(path, value) for path, value in sqnr_db.items() if value is not None]
    holders = set()
    for path in sqnr_db:
        above = path
        while above:
            above = above.rpartition(".")[0]
            holders.add(above)
    inner = [(path, value) for path, value in known if path not in holders]
    return sorted(inner or known, key=lambda item: item[1])[:most]


def no_layer_errors(run: Run) -> str:
    """Why a run, or one of its layers, has no layer error."""
    quality = run.facts.quality
    if quality is None:
        return quality_text.told(run).why
    if not quality.layer_sqnr_db:
        return "the quality measurement gave no layer errors"
    return "this layer has no counterpart in the unoptimized model, or gives no single tensor"
