"""Where Tickscope keeps what it can make again: conversions, compiled kernels, compiled graphs."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """``TICKSCOPE_CACHE``, or the user's cache folder."""
    named = os.environ.get("TICKSCOPE_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("tickscope", appauthor=False))
