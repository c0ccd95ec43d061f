"""The strip above the views that says they show a saved run, with the way back to the live one."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPushButton, QWidget

from core.records.run import Run
from gui.elided import Elided


class SavedStrip(QFrame):
    """Hidden while the views follow the worker."""

    back_asked = Signal()
    setup_asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("savedStrip")
        self.text = Elided(where=Qt.TextElideMode.ElideMiddle)  # the end says whether it finished
        self.back = QPushButton("Back to live")
        self.back.setObjectName("backToLive")
        self.back.clicked.connect(lambda: self.back_asked.emit())
        use = QPushButton("Use this setup")
        use.setObjectName("useSetup")
        use.setToolTip("Fill the sidebar with what this run was asked to do: model, passes, workload and instruments")
        use.clicked.connect(lambda: self.setup_asked.emit())
        row = QHBoxLayout(self)
        row.setContentsMargins(12, 4, 6, 4)
        row.addWidget(self.text, 1)
        row.addWidget(use)
        row.addWidget(self.back)
        self.hide()

    def show_run(self, run: Run | None, live: Run | None = None) -> None:
        """Name the saved run; None hides the strip. ``live`` is where the way back leads; from a trace just read, nowhere."""
        self.setVisible(run is not None)
        if run is not None:
            name = run.name or "without a name"
            self.text.setText(
                f"Imported trace {run.id} · {name}" if run.imported else f"Saved run {run.id} · {name} · {run.facts.status}"
            )
            self.back.setVisible(live is None or (live.id, live.created) != (run.id, run.created))
