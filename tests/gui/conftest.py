"""What tests of the window share: windows on a fake program."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gui_window import close_window, make_window


@pytest.fixture
def open_window(qtbot: Any, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """Makes windows that share their settings; all are closed in the end."""
    made: list[Any] = []

    def make() -> Any:
        made.append(make_window(tmp_path / "settings.ini"))
        return made[-1]

    yield make
    for window in made:
        close_window(window)
    made.clear()
    gc.collect()
