"""Text of others is plain text everywhere: nothing in the window, the terminal, a table or a picture acts on it."""

from __future__ import annotations

import ast
import csv
import io
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QWidget

from core.cli import main
from core.commands.following import Progress
from core.commands.output import note, table, write
from core.export import figures
from core.export.files import write_table
from core.notices import Status
from core.plain_text import csv_cell, markdown, visible
from gui.plain import Label, markup, plain_tip
from tests.support.sources import modules
from tests.support.synthetic import synthetic_run

TITLE = "\x1b]0;title\x07\x1b[2J"
HTML = '<b>x</b><img src="file:///etc/hostname">'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("model.layers.0", "model.layers.0"),
        ("naïve 模型 🙂", "naïve 模型 🙂"),
        ("\x1b]0;title\x07\x1b[2J", "␛]0;title␇␛[2J"),
        ("a\nb\tc\rd", "a␊b␉c␍d"),
        ("\x9b31m", "\\u009b31m"),
        ("evil\u202egnp.exe", "evil\\u202egnp.exe"),
        ("half \ud800", "half \\ud800"),
        ("\x7f", "␡"),
    ],
)
def test_what_would_act_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown
    visible(text).encode()


def test_prose_keeps_its_lines() -> None:
    assert visible("one\n\ttwo\x1b", lines=True) == "one\n\ttwo␛"


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-cmd", "@SUM(1+1)", "\t=1", "\r=1", " =1", "＝1+1"])
def test_formulas_are_text_in_a_cell(text: str) -> None:
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["-1.5", "+3", "-1e-9", "1+1", "model.layers.0", "", "a=b", "−5"])
def test_numbers_and_names_stay_in_a_cell(text: str) -> None:
    assert csv_cell(text) == text


def test_markdown_makes_nothing_of_it() -> None:
    shown = markdown("<img src=x> [a](b) ![c](d) `e` | f & g")
    assert "<" not in shown
    assert "\\[a\\](b)" in shown
    assert "\\|" in shown


def test_labels_and_tooltips_show_markup_as_text(qtbot) -> None:
    parent = QWidget()
    qtbot.addWidget(parent)
    label = Label(HTML, parent)
    assert label.textFormat() == Qt.TextFormat.PlainText
    assert label.text() == HTML
    label.setText("\x1b<u>")
    assert label.text() == "␛<u>"
    assert Label(parent).parent() is parent
    assert plain_tip("plain") == "plain"
    assert "<img" not in plain_tip(HTML)
    assert markup("<b>{}</b>", HTML).count("<") == 2


def test_a_terminal_is_told_what_there_is_and_obeys_nothing(capsys) -> None:
    write(f"{table(('name', 'n'), [('two' + chr(10) + 'lines', '1'), (TITLE, '22')])}\n{TITLE}\tend")
    note(f"{TITLE}\nsecond")
    stream = io.StringIO()
    Progress(stream).say(TITLE)
    Progress(stream).show(Status("loading", TITLE))
    said = capsys.readouterr()
    for text in (said.out, said.err, stream.getvalue()):
        assert not any(ord(one) < 32 and one not in "\n\t" for one in text)
    assert [line.split()[0] for line in said.out.splitlines()] == ["name", "two␊lines", "␛]0;title␇␛[2J", "␛]0;title␇␛[2J"]
    assert said.err == "␛]0;title␇␛[2J␊second\n"


def test_a_refusal_with_escapes_is_shown(capsys) -> None:
    assert main(["show", f"{TITLE}.tickscope"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_cells_of_a_csv_file_are_text_or_numbers(tmp_path) -> None:
    path = tmp_path / "table.csv"
    write_table({"=1+1": ["=1+1", TITLE, None], "duration_ns": [-1.5, float("nan"), 3]}, path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["'=1+1", "duration (ns)"], ["'=1+1", "-1.5"], ["␛]0;title␇␛[2J", ""], ["", "3"]]


def test_a_name_with_dollars_is_drawn_as_it_is(tmp_path) -> None:
    run = replace(synthetic_run(repeats=2), name=f"$x^$ {TITLE}")
    figure = figures.figure("latency", run)
    path = tmp_path / "latency.svg"
    figures.write_figure("latency", run, path)
    assert any("$x^$ ␛]0;" in text.get_text() for text in figure.texts)
    ElementTree.parse(path)  # "\x1b" would not be XML, and "$x^$" is no formula that matplotlib can set


# What a tooltip may be made of besides text that stands in the source.
SAFE = {"plain_tip", "markup", "tooltip"}
MARKED_UP = {"gui/about.py", "gui/help_pages.py", "gui/views/layers/layer_errors.py", "gui/plain.py"}
"""Modules with markup of their own, which put nothing of others into it unescaped."""


def _fixed(node: ast.expr) -> bool:
    """Whether an argument is text of our own or goes through one of ``SAFE``."""
    if isinstance(node, ast.Constant):
        return True
    if isinstance(node, ast.Name | ast.Attribute):
        return (node.id if isinstance(node, ast.Name) else node.attr).isupper()
    if isinstance(node, ast.Subscript):
        return _fixed(node.value)
    if isinstance(node, ast.IfExp):
        return _fixed(node.body) and _fixed(node.orelse)
    if isinstance(node, ast.BoolOp):
        return any(isinstance(value, ast.Call) and _fixed(value) for value in node.values)
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SAFE


def _loose_tips(tree: ast.AST) -> list[int]:
    """Lines that give Qt a tooltip that may be text of others."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ("setToolTip", "setStatusTip", "setWhatsThis") and not _fixed(node.args[-1]):
                found.append(node.lineno)
            role = ast.unparse(node.args[-1]) if node.args else ""
            if node.func.attr in ("setItemData", "setData") and role.endswith("ToolTipRole"):
                found += [] if _fixed(node.args[-2]) else [node.lineno]
            if node.func.attr == "showText" and not _fixed(node.args[1]):
                found.append(node.lineno)
        if isinstance(node, ast.If) and "ToolTipRole" in ast.unparse(node.test):
            found += [one.lineno for one in node.body if isinstance(one, ast.Return) and one.value and not _fixed(one.value)]
    return found


def test_the_scan_sees_a_loose_tooltip() -> None:
    for line in (
        "button.setToolTip(name)",
        "combo.setItemData(row, text, Qt.ItemDataRole.ToolTipRole)",
        "def data(role):\n    if role == ToolTipRole:\n        return row.path",
    ):
        assert _loose_tips(ast.parse(line))
    assert not _loose_tips(ast.parse("button.setToolTip(plain_tip(name))\nbutton.setToolTip('Close')"))


def test_no_label_tooltip_or_question_of_the_window_takes_text_for_markup() -> None:
    loose = []
    for name, _, tree in modules("gui"):
        if name in MARKED_UP:
            continue
        loose += [f"{name}:{line} tooltip" for line in _loose_tips(tree)]
        for node in ast.walk(tree):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called.split(".")[0] in ("QLabel", "QMessageBox", "QErrorMessage", "QTextBrowser", "QToolTip"):
                loose.append(f"{name}:{node.lineno} {called}")
            if called.rpartition(".")[2] in (
                "setHtml",
                "setMarkdown",
                "TextItem",
                "LabelItem",
                "addLegend",
                "appendHtml",
                "insertHtml",
            ):
                loose.append(f"{name}:{node.lineno} {called}")
    assert loose == []


def test_modules_with_markup_of_their_own_are_few() -> None:
    sources = {name: text for name, text, _ in modules("gui")}
    assert {name for name, text in sources.items() if "QLabel(" in text or "RichText" in text} <= {*MARKED_UP, LEGENDS}
    assert {name for name, text in sources.items() if ".set_legend(" in text} == WITH_LEGEND
    assert issubclass(Label, QLabel)


LEGENDS = "gui/charts/card.py"
WITH_LEGEND = {"gui/charts/latency.py", "gui/charts/speed_quality.py", "gui/views/compare/ab_test_chart.py"}
"""Charts whose legend has coloured marks; their words are ours."""
