"""What all views share: run on show, selected layer, pair to compare, theme. Views know this object and not each other."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from core.records.run import Run


class ViewState(QObject):
    """Set through the methods; each says so by a signal when something really changed."""

    layer_selected = Signal(str)  # dotted path; "" is none
    run_changed = Signal(object)  # Run, or None: no run yet
    live_changed = Signal(bool)  # True: the views follow the worker; False: a saved run is on show
    pair_changed = Signal(object)  # tuple of two Runs, or None
    theme_changed = Signal(str)  # "light", "dark" or "system"

    def __init__(self, theme: str = "system", parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._layer = ""
        self._run: Run | None = None
        self._live = True
        self._pair: tuple[Run, Run] | None = None
        self._theme = theme

    @property
    def layer(self) -> str:
        """Dotted path of the selected layer, "" for none."""
        return self._layer

    @property
    def current_run(self) -> Run | None:
        """The run on show, live or saved."""
        return self._run

    @property
    def live(self) -> bool:
        """Whether the views follow the worker."""
        return self._live

    @property
    def pair(self) -> tuple[Run, Run] | None:
        """The two runs laid side by side."""
        return self._pair

    @property
    def theme(self) -> str:
        """The chosen theme, "light", "dark" or "system"."""
        return self._theme

    def select_layer(self, path: str) -> None:
        """A click on a layer anywhere selects it everywhere; the same again lets go of nothing."""
        if path != self._layer:
            self._layer = path
            self.layer_selected.emit(path)

    def open_run(self, run: Run) -> None:
        """Show a saved run in every view."""
        self._set_live(False)
        self._run = run
        self.run_changed.emit(run)

    def follow(self) -> None:
        """Go back to what the worker does, as at a run's start."""
        if not self._live:
            self._run = None
            self._set_live(True)
            self.run_changed.emit(None)

    def show_live(self, run: Run | None) -> None:
        """The bridge's newest snapshot of the live run. No signal: the bridge calls the visible views itself."""
        if self._live:
            self._run = run

    def compare(self, pair: tuple[Run, Run] | None) -> None:
        """Lay two runs side by side."""
        self._pair = pair
        self.pair_changed.emit(pair)

    def set_theme(self, name: str) -> None:
        """Choose "light", "dark" or "system"."""
        if name != self._theme:
            self._theme = name
            self.theme_changed.emit(name)

    def _set_live(self, live: bool) -> None:
        if live != self._live:
            self._live = live
            self.live_changed.emit(live)
