"""``python -m tests.write_docs``: writes the tables of the docs that a declaration in the code is the source of."""

from __future__ import annotations

import sys
from collections.abc import Callable

from core import config
from core.analysis import metrics, verdict
from core.records import conditions
from tests.support.folders import ROOT

DOCS = ROOT / "docs"


def table_of_metrics() -> list[str]:
    """The numbers of a run."""
    rows = [f"| {one.title} (`{one.id}`) | {one.unit} | {one.better} | {one.explained} |" for one in metrics.METRICS]
    return ["| metric | unit | better | what it is |", "| --- | --- | --- | --- |", *rows]


def table_of_risks() -> list[str]:
    """How the risk of a false verdict is split over the metrics."""
    judged = metrics.judged()
    whole = sum(one.judged.risk for one in judged if one.judged)
    rows = [f"| {one.title} | {100 * verdict.RISK * one.judged.risk / whole:.2g} % |" for one in judged if one.judged]
    return [f"| metric | of the {100 * verdict.RISK:.0f} % |", "| --- | --- |", *rows]


def table_of_conditions() -> list[str]:
    """What two runs must have alike, and who asks for it."""
    scopes = (conditions.FLOOR, conditions.VERDICT, conditions.POINT)
    rows = []
    for one in conditions.CONDITIONS:
        asked = " | ".join("yes" if scope in one.scopes else "" for scope in scopes)
        rows.append(f"| `{one.id}` | {one.group} | {asked} |")
    return [f"| condition | about | {' | '.join(scopes)} |", "| --- | --- | --- | --- | --- |", *rows]


def table_of_workload() -> list[str]:
    """The fields of a workload."""
    rows = []
    for name, one in config.workload_fields().items():
        kind = f"{one.kind.__name__}{' or null' if one.optional else ''}"
        rows.append(f"| `{name}` | {kind} | {one.label} | {one.help} | {'yes' if one.asked else 'no'} |")
    return ["| key | type | field | what it is | must be alike |", "| --- | --- | --- | --- | --- |", *rows]


TABLES: dict[tuple[str, str], Callable[[], list[str]]] = {
    ("measures.md", "metrics"): table_of_metrics,
    ("measures.md", "risks"): table_of_risks,
    ("measures.md", "conditions"): table_of_conditions,
    ("session-file.md", "workload"): table_of_workload,
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
