"""``python -m tests.write_docs``: writes the tables of the docs that a declaration in the code is the source of."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from core.analysis import metrics
from core.records import conditions

DOCS = Path(__file__).parent.parent / "docs"
TABLES: dict[tuple[str, str], Callable[[], list[str]]] = {
    ("measures.md", "metrics"): metrics.table_of_docs,
    ("measures.md", "conditions"): conditions.table_of_docs,
}
"""What writes each table, by page and by the name in the comments around it."""


def filled(page: str, name: str, lines: list[str]) -> str:
    """The page with these lines between ``<!-- name -->`` and ``<!-- end -->``."""
    before, rest = page.split(f"<!-- {name} -->\n")
    _, after = rest.split("<!-- end -->", maxsplit=1)
    return "\n".join([f"{before}<!-- {name} -->", *lines, f"<!-- end -->{after}"])


def main() -> None:
    """Write all of them."""
    for (page, name), lines in TABLES.items():
        path = DOCS / page
        path.write_text(filled(path.read_text(encoding="utf-8"), name, lines()), encoding="utf-8")
        sys.stdout.write(f"{page}: {name}\n")


if __name__ == "__main__":
    main()
