"""JSON without NaN and infinity, which JSON does not have: what is no number is null."""

from __future__ import annotations

import json
import math
from typing import Any


def strict(value: Any, **options: Any) -> str:
    """As ``json.dumps`` with ``options``; numbers that are none (from a file that somebody changed) become null."""
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, (list, tuple)) else value
