"""JSON that came with somebody's model or data: decoded in one place, with limits, what is wrong told in a sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import Refusal
from core.messages.reason import Reason
from core.paths import read_bytes, why

MOST_BYTES = 64 << 20
"""Of a JSON file: an index of the largest models has 10 MB, a tokenizer of a quarter of a million tokens 35."""


def decoded(text: str | bytes) -> Any:
    """The JSON value of a text.

    Raises:
        ValueError: it is none, or it is nested deeper or has longer numbers than any that was meant (``str()`` says which).
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; ``Refusal`` if it holds none."""
    remedy = "download or save the model again"
    try:
        if path.stat().st_size > MOST_BYTES:
            raise Refusal(Reason("models.json-too-large", path=str(path), most_bytes=MOST_BYTES >> 20, remedy=remedy))
        value = decoded(read_bytes(path, MOST_BYTES))
    except Refusal:
        raise
    except (OSError, ValueError) as error:
        raise Refusal(Reason("models.json-unreadable", path=str(path), problem=why(error), remedy=remedy)) from error
    if not isinstance(value, dict):
        raise Refusal(Reason("models.no-json-object", path=str(path), remedy=remedy))
    return value


def part(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under ``key``; an empty one where there is none, or something else."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def words(value: Any) -> list[str]:
    """The strings in a list; none where it is no list."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
