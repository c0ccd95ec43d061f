"""The card around every chart: title, legend, menu button, and what it says while there is nothing to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import shiboken6
from PySide6.QtCore import QEvent, QObject, QPoint, Qt
from PySide6.QtGui import QContextMenuEvent, QPixmap, QResizeEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QSizePolicy, QStackedLayout, QToolButton, QVBoxLayout, QWidget

from core.notices import Status
from core.records.run import Run
from gui.charts.menu import ChartFile, ChartMenu
from gui.charts.plot import Painted, PaintMeter, Plot
from gui.plain import Label
from gui.theme import Palette

START_HINT = "Load a model and press Run"
RUN_HINT = "Press Run"
"""Instead of it, where a model is loaded already."""


def start_hint(hint: str, status: Status) -> str:
    """What to say where nothing is yet: ``hint``, but not to load where a model is loaded; or what is going on."""
    if status.state not in ("idle", "ready"):
        return f"{status.text or 'Getting ready'}…"
    return hint.replace(START_HINT, RUN_HINT) if status.state == "ready" else hint


class Card(QFrame):
    """A framed panel with a head line: title at the left, a muted note at the right."""

    def __init__(self, title: str, object_name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName(object_name)
        self.setProperty("card", True)
        self.setAccessibleName(title)
        self.title = Label(title, self)
        self.title.setProperty("role", "title")
        self.head_buttons: list[QWidget] = []
        self._notes: tuple[str, ...] = ()
        self.note = Label(self)
        self.note.setProperty("role", "muted")
        self.note.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.note.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.head = QHBoxLayout()
        self.head.setSpacing(8)
        self.head.addWidget(self.title)
        self.head.addWidget(self.note, 1)
        self.box = QVBoxLayout(self)
        self.box.setContentsMargins(12, 8, 10, 8)
        self.box.setSpacing(4)
        self.box.addLayout(self.head)

    def set_note(self, *texts: str) -> None:
        """The muted text at the right of the head line, longest first: the first that fits is shown."""
        self._set_note(Qt.TextFormat.PlainText, texts)

    def set_legend(self, *markup: str) -> None:
        """As ``set_note``, with markup of our own: coloured marks and words, and nothing that comes from a file."""
        self._set_note(Qt.TextFormat.RichText, markup)

    def _set_note(self, form: Qt.TextFormat, texts: tuple[str, ...]) -> None:
        if texts != self._notes or form != self.note.textFormat():
            self._notes = texts
            self.note.setTextFormat(form)
            self._fit_note()

    def _fit_note(self) -> None:
        beside = [self.title, *self.head_buttons]
        taken = sum(widget.sizeHint().width() + self.head.spacing() for widget in beside if not widget.isHidden())
        room = self.contentsRect().width() - 24 - taken
        for text in self._notes:
            self.note.setText(text)
            if self.note.sizeHint().width() <= room:
                return
        self.note.setText("")

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit_note()

    def set_palette(self, palette: Palette) -> None:
        """Repaint in other colours."""


class Chart(Card):
    """One chart of a run. Subclasses fill ``body`` and draw; everything that charts have in common is here.

    ``figure_name`` is the chart's name in ``core.export.figures``.
    """

    figure_name = ""

    def __init__(self, title: str, object_name: str, hint: str, parent: QWidget | None = None) -> None:
        super().__init__(title, object_name, parent)
        self.run: Run | None = None
        self.palette_in_use: Palette | None = None
        self.plots: list[Plot] = []
        self.painted: list[Painted] = []
        self._hint_text = hint
        self._wait_text = ""
        self._paint_meter: PaintMeter | None = None
        self._readable: list[QWidget] = []
        self.body = QWidget(self)
        self.hint = Label(self)
        self.hint.setProperty("role", "hint")
        self.hint.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.hint.setWordWrap(True)
        self.hint.setTextFormat(Qt.TextFormat.PlainText)
        self._stack = QStackedLayout()
        self._stack.addWidget(self.hint)
        self._stack.addWidget(self.body)
        self.box.addLayout(self._stack, 1)
        self.menu = ChartMenu(self, self)
        self.menu_button = QToolButton(self)
        self.menu_button.setText("⋯")
        self.menu_button.setToolTip("Save, copy or reset this chart")
        self.menu_button.setAccessibleName(f"{title}: chart menu")
        self.menu_button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.menu_button.clicked.connect(self._open_menu_at_button)
        self.head.addWidget(self.menu_button)
        self.head_buttons.append(self.menu_button)
        self.explain("")

    @property
    def hover_text(self) -> str:
        """What is shown beside the pointer now, "" for nothing."""
        return next((plot.readout.text() for plot in self.plots if not plot.readout.isHidden()), "")

    @property
    def paint_meter(self) -> PaintMeter | None:
        """Told after every painting how many nanoseconds it took."""
        return self._paint_meter

    def set_paint_meter(self, meter: PaintMeter | None) -> None:
        """Count the painting of everything in this card."""
        self._paint_meter = meter
        for plot in self.plots:
            plot.paint_meter = meter
        for widget in self.painted:
            widget.paint_meter = meter

    def adopt(self, plot: Plot) -> Plot:
        """Make a plot part of this chart: its right click opens the chart's menu, its painting is counted."""
        plot.paint_meter = self._paint_meter
        plot.setAccessibleName(self.title.text())
        plot.viewport().setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        plot.viewport().customContextMenuRequested.connect(lambda at: self.menu.popup(plot.viewport().mapToGlobal(at)))
        self.plots.append(plot)
        self.let_focus(plot)
        return plot

    def let_focus(self, widget: QWidget) -> None:
        """The keyboard reaches the chart through this widget, and a screen reader its values."""
        if not widget.focusPolicy() & Qt.FocusPolicy.TabFocus:
            widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        widget.setAccessibleName(self.title.text())
        widget.installEventFilter(self)
        self._readable.append(widget)

    def spoken(self) -> str:
        """What the chart shows, in a sentence or two."""
        return ""

    def tell_values(self) -> None:
        """Put what the chart shows where a screen reader finds it."""
        text = self.explanation or self.spoken()
        self._readable = [one for one in self._readable if shiboken6.isValid(one)]  # tracks come and go
        for widget in (self, *self._readable):
            if widget.accessibleDescription() != text:
                widget.setAccessibleDescription(text)

    def show_run(self, run: Run | None) -> None:
        """Draw the run as it is now; None: say how to get one."""
        self.run = run
        if run is None:
            self.explain("")
            return
        self.explain(self.draw(run))
        if run.facts.status != "running":  # else as soon as someone comes to it: nobody reads along at five pictures a second
            self.tell_values()

    def draw(self, run: Run) -> str | None:
        """Put the run's data into the plot; returns a sentence instead where there is nothing to draw."""
        return None

    def say_status(self, status: Status) -> None:
        """Where a chart would be while nothing is there yet: how to start, or what is going on."""
        self._wait_text = start_hint(self._hint_text, status)
        if self.run is None:
            self.explain("")

    def explain(self, text: str | None) -> None:
        """Show the chart (None), a sentence ("" for how to start)."""
        if text is not None:
            wanted = text or self._wait_text or self._hint_text
            if self.hint.text() != wanted:
                self.hint.setText(wanted)
        page = 1 if text is None else 0
        self.note.setVisible(page == 1)
        if self._stack.currentIndex() != page:
            self._stack.setCurrentIndex(page)

    @property
    def explanation(self) -> str:
        """The sentence on show instead of the chart, "" while the chart is."""
        return self.hint.text() if self._stack.currentIndex() == 0 else ""

    def set_palette(self, palette: Palette) -> None:
        """Repaint in other colours; the data stays."""
        self.palette_in_use = palette
        for plot in self.plots:
            plot.set_palette(palette)
        self.recolour(palette)
        if self.run is not None:
            self.show_run(self.run)

    def recolour(self, palette: Palette) -> None:
        """Give the chart's own items their colours."""

    def reset_view(self) -> None:
        """Back from zoom and pan to the whole chart."""
        for plot in self.plots:
            plot.reset()

    def table(self) -> Mapping[str, Sequence[Any]]:
        """The drawn data as columns of equal length, for the clipboard: the same as in the CSV file."""
        return {} if self.run is None else self.table_of(self.run)

    def table_of(self, run: Run) -> Mapping[str, Sequence[Any]]:
        """What this chart shows of a run, as columns of equal length. Any thread may ask."""
        from core.export.figures import chart_table

        return chart_table(self.figure_name, run)

    def file(self) -> ChartFile | None:
        """What would be saved now; None while there is nothing to save."""
        run, palette = self.run, self.palette_in_use
        if run is None:
            return None

        def write_image(path: Path) -> None:
            from core.export.figures import write_figure  # matplotlib is slow to import and rarely wanted

            write_figure(self.figure_name, run, path, "light" if palette is None else palette.name)

        def write_data(path: Path) -> None:
            from core.export.files import write_table

            write_table(self.table_of(run), path)

        return ChartFile(f"{run.name or 'run'} {self.figure_name}", write_image, write_data)

    def picture(self) -> QPixmap:
        """The card as it looks now, without its menu button."""
        self.menu_button.hide()
        picture = self.grab()
        self.menu_button.show()
        return picture

    def _open_menu_at_button(self) -> None:
        self.menu.popup(self.menu_button.mapToGlobal(QPoint(0, self.menu_button.height())))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() in (QEvent.Type.FocusIn, QEvent.Type.FocusOut) and any(watched is one for one in self._readable):
            focused = event.type() == QEvent.Type.FocusIn
            if focused:
                self.tell_values()
            if bool(self.property("focused")) != focused:
                self.setProperty("focused", focused)
                self.style().unpolish(self)
                self.style().polish(self)
        return super().eventFilter(watched, event)

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        self.menu.popup(event.globalPos())
