"""What this is, and how its files are made: pages of the Help menu, shown beside the window so that nothing waits for them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from PySide6.QtCore import Qt
from PySide6.QtGui import QFontDatabase
from PySide6.QtWidgets import QDialog, QDialogButtonBox, QLabel, QPlainTextEdit, QVBoxLayout, QWidget

ABOUT = """<h3>Tickscope {version}</h3>
<p>Shows where every clock tick of a transformer's inference goes,<br>and which optimization is worth it on this machine.</p>
<p>Apache License 2.0. Text is set in Inter (SIL Open Font License 1.1).</p>"""
SCHEMA = """A session is a DuckDB database (schema version {number}); any DuckDB client can query it while Tickscope is closed.
Times are nanoseconds since the run's start. What was not measured is NULL, never 0.
Tags add up: 1 cold, 2 warm-up, 4 clean, 8 traced, 16 compile, 32 garbage collection, 64 perturbed,
128 settling after a pause, 256 under the operator profiler.

Median clean decode latency of every run, in milliseconds:
  SELECT run, median(duration_ns) / 1e6 FROM moments WHERE kind = 'decode' AND (tags & 319) = 4 GROUP BY run ORDER BY run;

{tables}"""


def show_about(parent: QWidget) -> QDialog:
    """Version and licences."""
    try:
        number = version("tickscope")
    except PackageNotFoundError:
        number = "(not installed)"
    text = QLabel(ABOUT.format(version=number))
    text.setTextInteractionFlags(Qt.TextInteractionFlag.TextBrowserInteraction)
    return page(parent, "About Tickscope", "aboutPage", text)


def show_schema(parent: QWidget) -> QDialog:
    """The tables of the session file."""
    from core.session.schema import SCHEMA_VERSION, definitions

    text = QPlainTextEdit(SCHEMA.format(number=SCHEMA_VERSION, tables=definitions()))
    text.setReadOnly(True)
    text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
    text.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
    return page(parent, "Session file schema", "schemaPage", text, (900, 560))


def page(
    parent: QWidget, title: str, name: str, content: QWidget, size: tuple[int, int] | None = None, above: QWidget | None = None
) -> QDialog:
    """A page with a Close button, and no larger than the window it belongs to."""
    dialog = QDialog(parent)
    dialog.setObjectName(name)
    dialog.setWindowTitle(title)
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
    buttons.rejected.connect(dialog.close)
    column = QVBoxLayout(dialog)
    for widget in (above, content, buttons):
        if widget is not None:
            column.addWidget(widget)
    if size is not None:
        dialog.resize(min(size[0], parent.width()), min(size[1], parent.height()))
    dialog.show()
    return dialog
