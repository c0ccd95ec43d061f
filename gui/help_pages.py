"""First steps, keys and glossary: pages of the Help menu, shown beside the window so that nothing waits for them."""

from __future__ import annotations

import html
from collections.abc import Iterable

from PySide6.QtWidgets import QDialog, QLineEdit, QTextBrowser, QWidget

from core.glossary import GLOSSARY, Term, find
from gui.about import page

STEPS = (
    ("Choose a model", "in the sidebar. The starter model comes with the program, so nothing has to be downloaded."),
    ("Press Run (F5).", "The model is loaded and warmed up, and the charts follow. Esc stops it; what was measured is kept."),
    (
        "Read the tiles",
        "from the left: tokens per second, time to the first token, time per token. Hover over one for its definition. A grey "
        "number is of warm-up; a dash says why something was not measured.",
    ),
    (
        "Look where the time goes:",
        "the bars sum up a moment by stage, the layer clock shows each layer over time, and Layers (2) lists them all. A click "
        "on a layer selects it everywhere.",
    ),
    (
        "Switch on a pass",
        "and run again. Its row says what it changed, and the Quality cost tile what it did to the answers.",
    ),
    (
        "Let two setups take turns",
        "in Compare (3) › A/B test, where it matters which one is faster: two runs recorded apart meet different weather.",
    ),
    ("Come back later:", "every run is in the session file as soon as it is measured; Sessions (4) lists them."),
)
MORE_KEYS = (
    ("Moving about", "Tab, Shift+Tab", "To the next or the previous control"),
    ("Moving about", "Alt+F, Alt+R, Alt+V, Alt+H", "Open a menu"),
    ("Charts", "↑ ↓", "Select the layer above or below, in the layer clock"),
    ("Charts", "Wheel, drag, double click", "Zoom, pan, back to the whole"),
    ("Charts", "Menu key", "Save, copy or reset the chart"),
    ("Passes", "Space", "Switch a pass on or off; fold or unfold a group"),
    ("Passes", "← →", "Fold or unfold the group"),
)


def show_first_steps(parent: QWidget) -> QDialog:
    """How to get from here to an answer."""
    items = "".join(f"<li><p><b>{html.escape(what)}</b> {html.escape(how)}</p></li>" for what, how in STEPS)
    return page(parent, "First steps", "firstStepsPage", _browser(f"<ol>{items}</ol>"), (620, 520))


def show_keys(parent: QWidget, commands: Iterable[tuple[str, str, str]]) -> QDialog:
    """All keys. ``commands``: group, keys and what they do, of the menus."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for group, keys, what in (*commands, *MORE_KEYS):
        groups.setdefault(group, []).append((keys, what))
    parts = []
    for group, rows in groups.items():
        cells = "".join(
            f"<tr><td style='padding: 3px 24px 3px 0'><b>{html.escape(keys)}</b></td><td>{html.escape(what)}</td></tr>"
            for keys, what in rows
        )
        parts.append(f"<h4>{html.escape(group)}</h4><table>{cells}</table>")
    return page(parent, "Keys", "keysPage", _browser("".join(parts)), (560, 620))


def show_glossary(parent: QWidget) -> QDialog:
    """Every word that the window uses, with a field to look for one."""
    field = QLineEdit()
    field.setObjectName("glossaryField")
    field.setPlaceholderText(f"Look for one of {len(GLOSSARY)} words")
    field.setAccessibleName("Search the glossary")
    field.setClearButtonEnabled(True)
    browser = _browser(_terms(GLOSSARY))
    browser.setObjectName("glossaryText")
    field.textChanged.connect(lambda words: browser.setHtml(_terms(find(words)) or "<p>There is no such word here.</p>"))
    dialog = page(parent, "Glossary", "glossaryPage", browser, (620, 600), above=field)
    field.setFocus()
    return dialog


def _terms(terms: Iterable[Term]) -> str:
    parts = []
    for term in terms:
        also = f" ({', '.join(term.also)})" if term.also else ""
        parts.append(f"<p><b>{html.escape(term.word)}</b>{html.escape(also)}<br>{html.escape(term.explained)}</p>")
    return "".join(parts)


def _browser(text: str) -> QTextBrowser:
    browser = QTextBrowser()
    browser.setOpenLinks(False)
    browser.setHtml(text)
    return browser
