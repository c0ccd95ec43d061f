"""What counts as a slow file of tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.slow import is_slow

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("name", "slow"),
    [
        ("test_units.py", False),
        ("test_house.py", False),
        ("test_starting.py", True),  # starts processes
        ("test_ticks.py", True),  # imports torch
        ("test_gui_window.py", True),
        ("test_catalogue.py", True),  # loads models through the benchmarks
    ],
)
def test_a_file_is_slow_by_what_it_loads(name: str, slow: bool) -> None:
    assert is_slow(HERE / name) is slow


def test_a_file_is_slow_by_what_a_module_beside_it_loads(tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    for text, slow in (("from tests.tiny import subject", True), ("from tests.synthetic import synthetic_run", False)):
        file.write_text(text)
        is_slow.cache_clear()
        assert is_slow(file) is slow
