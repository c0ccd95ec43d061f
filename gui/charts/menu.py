"""What can be done with any chart: save its picture or data, copy them, reset the view."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol

from PySide6.QtGui import QAction, QGuiApplication, QPixmap
from PySide6.QtWidgets import QFileDialog, QMenu, QWidget

from core.error_text import first_line
from core.plain_text import csv_cell, csv_number, visible
from gui.last_folder import short_path, use_folder, within

PICTURES = "PNG picture (*.png);;SVG drawing (*.svg);;PDF document (*.pdf)"
DATA = "CSV table (*.csv)"


class ChartFile(NamedTuple):
    """What a chart can be saved as now: a name to suggest, and two ways to write it that any thread may go."""

    name: str
    write_image: Callable[[Path], None]
    write_data: Callable[[Path], None]


class Drawn(Protocol):
    """What can be saved, copied and reset: a ``Chart``."""

    @property
    def explanation(self) -> str: ...

    @property
    def paint_meter(self) -> Callable[[int], None] | None: ...

    def file(self) -> ChartFile | None: ...

    def picture(self) -> QPixmap: ...

    def table(self) -> Mapping[str, Sequence[Any]]: ...

    def reset_view(self) -> None: ...


AskPath = Callable[[QWidget, str, str, str], Path | None]


def ask_path(parent: QWidget, title: str, suggested: str, filters: str) -> Path | None:
    """A file to write, from the system's dialog; None if the user thought better of it. Tests replace it."""
    name, chosen = QFileDialog.getSaveFileName(parent, title, suggested, filters)
    if not name:
        return None
    path = Path(name)
    return path if path.suffix else path.with_suffix(chosen[chosen.rindex("*") + 1 : -1])


def as_tsv(table: Mapping[str, Sequence[Any]]) -> str:
    """Columns as tab-separated text with a head line, as spreadsheets paste it. Not measured is an empty cell."""
    lines = ["\t".join(map(_cell, table))]
    lines += ["\t".join(_cell(value) for value in row) for row in zip(*table.values(), strict=True)]
    return "\n".join(lines) + "\n"


class ChartMenu(QMenu):
    """The menu of one chart. Files are drawn on a short thread of their own; ``poll`` tells how it went."""

    def __init__(self, chart: Drawn, parent: QWidget) -> None:
        super().__init__(parent)
        self._chart, self._parent = chart, parent
        self._results: SimpleQueue[tuple[str, Path | None, int]] = SimpleQueue()
        self._writers: list[threading.Thread] = []
        self.ask_path: AskPath = ask_path
        self.save_image = self._action("Save image…", self._save_image)
        self.save_data = self._action("Save data…", self._save_data)
        self.addSeparator()
        self.copy_image = self._action("Copy image", self._copy_image)
        self.copy_data = self._action("Copy data", self._copy_data)
        self.addSeparator()
        self.reset_view = self._action("Reset view", chart.reset_view)
        self.aboutToShow.connect(self._allow)

    @property
    def busy(self) -> bool:
        """Whether a file is still being written."""
        return any(writer.is_alive() for writer in self._writers)

    def poll(self) -> tuple[str, Path | None] | None:
        """How the last save went, once, with the file if it is there. Called on the GUI thread by the slow tick."""
        self._writers = [writer for writer in self._writers if writer.is_alive()]
        try:
            text, path, duration_ns = self._results.get_nowait()
        except Empty:
            return None
        if self._chart.paint_meter is not None:
            # Drawing a file takes the interpreter from the worker as painting does, so it counts as a disturbance too.
            self._chart.paint_meter(duration_ns)
        return text, path

    def join(self, timeout_s: float) -> None:
        """Wait for files that are still being written (on close)."""
        for writer in self._writers:
            writer.join(timeout_s)

    def _action(self, text: str, call: Callable[[], None]) -> QAction:
        action = self.addAction(text)
        action.triggered.connect(lambda: call())
        return action

    def _allow(self) -> None:
        has_data = self._chart.file() is not None and not self._chart.explanation
        for action in (self.save_image, self.save_data, self.copy_image, self.copy_data, self.reset_view):
            action.setEnabled(has_data)

    def _save_image(self) -> None:
        file = self._chart.file()
        if file is not None:
            self._save("Save image", f"{file.name}.png", PICTURES, file.write_image)

    def _save_data(self) -> None:
        file = self._chart.file()
        if file is not None:
            self._save("Save data", f"{file.name}.csv", DATA, file.write_data)

    def _save(self, title: str, suggested: str, filters: str, write: Callable[[Path], None]) -> None:
        path = self.ask_path(self._parent, title, within(suggested), filters)
        if path is None:
            return
        use_folder(path.parent)
        writer = threading.Thread(target=self._work, args=(write, path), name="chart-file", daemon=True)
        self._writers.append(writer)
        writer.start()

    def _work(self, write: Callable[[Path], None], path: Path) -> None:
        start_ns = time.perf_counter_ns()
        try:
            write(path)
        except Exception as error:  # noqa: BLE001 - whatever matplotlib raises: a save that failed is told, never passed over
            text, made = f"{path.name} could not be written: {first_line(error)}", None
        else:
            text, made = f"Saved {short_path(path)}", path
        self._results.put((text, made, time.perf_counter_ns() - start_ns))

    def _copy_image(self) -> None:
        QGuiApplication.clipboard().setPixmap(self._chart.picture())

    def _copy_data(self) -> None:
        QGuiApplication.clipboard().setText(as_tsv(self._chart.table()))


def _cell(value: Any) -> str:
    if value is None or value != value:  # NaN stands for "not measured" in float columns
        return ""
    if isinstance(value, float):
        return csv_number(value)
    return csv_cell(visible(str(value)))  # it is pasted into spreadsheets
