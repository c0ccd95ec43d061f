"""Where the program and its sample sessions lie, for tests in whatever folder they are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "tests" / "data"
