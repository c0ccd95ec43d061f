"""Text of others (names, notes, paths, labels from files) is shown as the characters it is made of and never acts."""

from __future__ import annotations

import re

_CONTROLS = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "␡"}
_WRITTEN_OUT = (
    *range(0x80, 0xA0),  # the other set of control characters: 0x9b begins a terminal's commands as Escape does
    *(0x061C, 0x200B, 0x200E, 0x200F, 0x2028, 0x2029, 0xFEFF),
    *range(0x202A, 0x202F),  # they turn the direction of what follows, so that a name reads as another
    *range(0x2060, 0x2070),
    *range(0xFFF9, 0xFFFC),
)
_SHOWN = _CONTROLS | {code: f"\\u{code:04x}" for code in _WRITTEN_OUT}
_SHOWN_IN_LINES = {code: text for code, text in _SHOWN.items() if chr(code) not in "\n\t"}
_SUSPECT = re.compile("[" + "".join(map(re.escape, map(chr, _SHOWN))) + "\ud800-\udfff]")

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MARKDOWN = re.compile(r"[&<>\[\]`|\\]")


def visible(text: str, *, lines: bool = False) -> str:
    """``text`` with control, direction and invisible characters made visible (␛ for Escape), so that they do nothing.

    With ``lines``, line breaks and tabs stay as they are (prose); in one line of text they could forge the next.
    """
    if not _SUSPECT.search(text):
        return text
    shown = text.translate(_SHOWN_IN_LINES if lines else _SHOWN)
    return shown.encode("utf-8", "backslashreplace").decode()  # halves of a character have no bytes


def csv_cell(text: str) -> str:
    """A text for a CSV cell: a spreadsheet would carry out what begins like a formula, so that gets an apostrophe in front."""
    stripped = text.lstrip(" \n\v\f")
    if (text.startswith(_FORMULA) or stripped.startswith(_FORMULA)) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text


def csv_number(value: float) -> str:
    """A number for a CSV cell that reads back as it was: the shortest that does, a whole one without its ``.0``."""
    return repr(float(value)).removesuffix(".0")


def markdown(text: str, *, lines: bool = False) -> str:
    """A text for Markdown: no markup, no link, no picture, no HTML comes of it."""

    def shown(found: re.Match[str]) -> str:
        return f"&#{ord(found[0])};" if found[0] in "<>&" else f"\\{found[0]}"

    return _MARKDOWN.sub(shown, visible(text, lines=lines))
