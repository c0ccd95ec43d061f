"""The bottom line: what is going on, how far it is, how long it will take, and what the process uses."""

from __future__ import annotations

from dataclasses import replace

import psutil
from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QProgressBar, QToolButton, QWidget

from core import units
from core.notices import Status
from gui.plain import Label, plain_tip

LOG_OPEN, LOG_CLOSED = "Log ▾", "Log ▴"
MOST_PIXELS = 560
PROGRESS = 250  # its width where there is room
ROOMY = 1200  # the bar has room for what follows, too
MOST_LEFT_S = 100 * 3600
TITLES = {
    "idle": "Idle",
    "loading": "Loading",
    "ready": "Ready",
    "preparing": "Preparing",
    "running": "Running",
    "cancelling": "Cancelling",
}


class StatusBar(QFrame):
    """Only shows; ``refresh_machine`` reads the process's memory."""

    skip_asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("statusBar")
        self.setFixedHeight(32)
        self._held = 0  # pixels that the text has taken since this began
        self._own = self._process = psutil.Process()
        self._total_bytes = psutil.virtual_memory().total
        self.state = _label("statusState")
        self.text = _label("statusText")
        self.text.setMaximumWidth(MOST_PIXELS + 8)
        self.text.setMinimumWidth(60)
        self.progress = QProgressBar()
        self.progress.setObjectName("progressBar")
        self.progress.setTextVisible(False)
        self.progress.setRange(0, 1000)
        self.progress.setFixedWidth(PROGRESS)
        self.progress.setAccessibleName("Progress")
        self.left = _label("timeLeft")
        self.left.setMinimumWidth(70)
        self.skip = _button("skipWarmupButton", "Skip warm-up", "Measure from the next request on, warm or not")
        self.skip.clicked.connect(lambda: self.skip_asked.emit())
        self.memory = _label("memoryUse", "Memory of this process, of all the machine has")
        self.cores = _label("coreCount", "Logical processors that this process may use")
        self.log = _button("logToggle", LOG_CLOSED)
        self.log.setCheckable(True)
        row = QHBoxLayout(self)
        row.setContentsMargins(14, 0, 10, 0)
        row.setSpacing(14)
        row.addWidget(self.state)
        row.addWidget(self.text)
        row.addWidget(self.progress)
        row.addWidget(self.left)
        row.addWidget(self.skip)
        row.addStretch(1)
        for widget in (self.memory, self.cores, self.log):
            row.addWidget(widget)
        self.log.toggled.connect(lambda is_open: self.log.setText(LOG_OPEN if is_open else LOG_CLOSED))
        self.show_status(Status())
        self.refresh_machine()

    def show_status(self, status: Status, model_name: str = "") -> None:
        """``model_name`` is what stands there while nothing is going on."""
        busy = status.state not in ("idle", "ready")
        self.state.setText(f"● {TITLES.get(status.state, status.state.capitalize())}")
        kind = "busy" if busy else "quiet"
        if self.state.property("state") != kind:
            self.state.setProperty("state", kind)
            self.state.style().unpolish(self.state)
            self.state.style().polish(self.state)
        if not busy:
            self._held = 0
        self.progress.setVisible(busy)
        self.left.setVisible(busy and status.state != "cancelling")  # of what will not be done there is none left
        self.skip.setVisible(status.state == "running" and status.warming)
        self.left.setText(_left(status, roomy=self.width() >= ROOMY))
        doing = status.text if status.text.rstrip(". …") != TITLES.get(status.state) else ""
        self._set_text(doing if busy else model_name or "no model is loaded", hold=busy)
        # Unknown is an empty bar: Qt's moving "busy" one would repaint all the time, beside the clock too.
        self.progress.setValue(round(1000 * min(1.0, max(0.0, status.fraction or 0.0))))
        self.left.setToolTip(plain_tip(status.left))

    def show_cores(self, threads: int | None) -> None:
        """How many logical processors there are."""
        self.cores.setText("" if threads is None else "1 core" if threads == 1 else f"{threads} cores")

    def refresh_machine(self, model_in: int | None = None) -> None:
        """Read the memory (about 30 µs) of the process that the model is in: of that number, or this one."""
        try:
            if model_in is None:
                self._process = self._own
            elif self._process.pid != model_in:
                self._process = psutil.Process(model_in)
            held = self._process.memory_info().rss
        except psutil.Error:  # it has just ended
            held = self._own.memory_info().rss
        self.memory.setText(f"{units.size(held)} of {units.size(self._total_bytes)}")
        whose = "the process that the model is in" if model_in is not None else "this process"
        self.memory.setToolTip(plain_tip(f"Memory of {whose}, of all the machine has"))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.progress.setFixedWidth(min(PROGRESS, max(PROGRESS // 3, self.width() // 6)))

    def _set_text(self, text: str, *, hold: bool) -> None:
        """While something is going on the field only grows, so that the bar beside it keeps its place."""
        metrics = self.text.fontMetrics()
        shown = metrics.elidedText(text, Qt.TextElideMode.ElideRight, self._room())
        self._held = max(self._held, metrics.horizontalAdvance(shown) + 2) if hold else 0
        self.text.setMinimumWidth(min(max(60, self._held), self._room() + 2))
        self.text.setText(shown)
        self.text.setToolTip(plain_tip(text))

    def _room(self) -> int:
        """How wide the text may be beside everything else in the bar."""
        beside = [self.state, self.memory, self.cores, self.log]
        if not self.skip.isHidden():
            beside.append(self.skip)
        left = max(self.left.minimumWidth(), self.left.sizeHint().width())
        busy = 0 if self.progress.isHidden() else self.progress.width() + left + 2 * 14
        fixed = busy + 5 * 14 + 24
        taken = fixed + sum(widget.sizeHint().width() for widget in beside)
        return max(120, min(MOST_PIXELS, self.width() - taken))


def _left(status: Status, *, roomy: bool) -> str:
    """Time left, where anybody can know it: not while a graph is compiled, and not once it has become absurd."""
    if status.seconds_left is not None and 0 <= status.seconds_left < MOST_LEFT_S:
        return status.left if roomy else replace(status, then=()).left
    return "compiling" if status.compiling else ""


def _label(name: str, explanation: str = "") -> Label:
    label = Label()
    label.setObjectName(name)
    label.setToolTip(plain_tip(explanation))
    return label


def _button(name: str, text: str, explanation: str = "") -> QToolButton:
    button = QToolButton()
    button.setObjectName(name)
    button.setText(text)
    button.setToolTip(plain_tip(explanation))
    return button
