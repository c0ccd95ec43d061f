"""Sets an end to every query of a session file, because the file may have been made by somebody who means harm."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from core.messages.reason import Reason

LONGEST_S = 60.0
"""How long one look into a session file, or one change of it, may take; millions of rows take a few seconds."""

AGAIN_S = 0.02
"""A reader asks several times, so it is interrupted until it leaves."""

MOST_ROW_BYTES = 8 << 30
"""Largest run that is read, as columns in memory: 100 million layer calls. A file of some MB can unpack to more."""

MOST_TEXT_BYTES = 256 << 20
"""Most text that one run may hold in names, labels and outputs."""

ROW_BYTES: Mapping[str, int] = {"requests": 36, "moments": 150, "spans": 56, "operators": 90, "counter_samples": 20}
"""Memory that a row of the long tables takes once it is read (the sum of the columns' widths)."""

TEXTS: Mapping[str, str] = {
    "layers": "4 * (strlen(path) + strlen(type) + strlen(stage)) + 100",
    "names": "4 * strlen(text) + 60",
    "tracks": "4 * (strlen(name) + strlen(unit)) + 100",
    "instants": "4 * (strlen(track) + strlen(label)) + 150",
    "outputs": "4 * (coalesce(strlen(text), 0) + strlen(finish_reason)) + 40 * len(token_ids) + 40 * len(vector) + 100",
}
"""Bytes that a row of the tables that become Python objects takes, as SQL. Long texts are there four times on the way to a
chart: in DuckDB, as its result, as Python's, and once more where they are shown."""


class Late:
    """Whether the query was ended because it took too long."""

    def __init__(self) -> None:
        self._set = threading.Event()

    def __bool__(self) -> bool:
        return self._set.is_set()

    def tell(self) -> None:
        """It was."""
        self._set.set()


@contextmanager
def limited(cursor: Any, *, late: Late | None = None) -> Iterator[Late]:
    """Interrupts what runs on ``cursor`` (DuckDB raises then) once ``LONGEST_S`` have passed; ``late`` is told of it."""
    late = Late() if late is None else late
    over = threading.Event()

    def interrupt() -> None:
        late.tell()
        while not over.is_set():
            cursor.interrupt()
            over.wait(AGAIN_S)

    watch = threading.Timer(LONGEST_S, interrupt)
    watch.name = "tickscope-query-limit"
    watch.daemon = True
    watch.start()
    try:
        yield late
    finally:
        over.set()
        watch.cancel()
        watch.join()


def check_size(cursor: Any, run: int) -> None:
    """``ValueError`` with a clause if a run would take more memory than any that was measured, before it takes it."""
    rows = 0
    for table, width in ROW_BYTES.items():
        (count,) = cursor.execute(f"SELECT count(*) FROM main.{table} WHERE run = ?", [run]).fetchone()
        rows += count * width
    text = 0
    for table, length in TEXTS.items():
        (amount,) = cursor.execute(f"SELECT coalesce(sum({length}), 0) FROM main.{table} WHERE run = ?", [run]).fetchone()
        text += int(amount)
    if rows > MOST_ROW_BYTES:
        raise ValueError(Reason("session.rows-take", gib=rows >> 30))
    if text > MOST_TEXT_BYTES:
        raise ValueError(Reason("session.texts-take", mib=text >> 20))
