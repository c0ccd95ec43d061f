"""What counts as a slow file of tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.slow import is_slow
from tests.support.folders import ROOT


@pytest.mark.parametrize(
    ("name", "slow"),
    [
        ("core/test_units.py", False),
        ("house/test_house.py", False),
        ("house/test_starting.py", True),  # starts processes
        ("profilers/test_ticks.py", True),  # imports torch
        ("gui/test_gui_window.py", True),
        ("core/passes/test_catalogue.py", True),  # loads models through the benchmarks
    ],
)
def test_a_file_is_slow_by_what_it_loads(name: str, slow: bool) -> None:
    assert is_slow(ROOT / "tests" / name) is slow


def test_a_file_is_slow_by_what_a_module_beside_it_loads(tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    for text, slow in (
        ("from tests.support.tiny import subject", True),
        ("from tests.support.synthetic import synthetic_run", False),
    ):
        file.write_text(text)
        is_slow.cache_clear()
        assert is_slow(file) is slow
