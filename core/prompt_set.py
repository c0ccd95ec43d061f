"""A file of prompts: one a line, or JSON Lines whose objects have a ``prompt``."""

from __future__ import annotations

import json
from pathlib import Path

from core import paths
from core.errors import Refusal
from core.messages.reason import Reason

MOST_PROMPTS = 4096
MOST_BYTES = 16 << 20
"""Of a file of prompts: they are kept with each run."""


def read_prompts(path: str | Path) -> tuple[str, ...]:
    """The prompts of a file, in order; lines that are empty do not count.

    Raises:
        Refusal: there is no such file, it is no UTF-8 text, it holds none or too many, or a line of JSON has no ``prompt``.
    """
    file = paths.typed(path)
    try:
        if file.stat().st_size > MOST_BYTES:
            raise Refusal(Reason("prompt_set.too-large", file=str(file), most_mb=MOST_BYTES >> 20))
        lines = paths.read_text(file).splitlines()
    except FileNotFoundError as error:
        raise Refusal(Reason("prompt_set.no-such-file", file=str(file))) from error
    except UnicodeDecodeError as error:
        raise Refusal(Reason("prompt_set.not-utf8", file=str(file))) from error
    except OSError as error:
        raise Refusal(Reason("prompt_set.cannot-be-read", file=str(file), problem=error.strerror)) from error
    kept = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    in_json = file.suffix.lower() in (".jsonl", ".json", ".ndjson")
    prompts = tuple(_in_object(file, number, line) if in_json else line.strip() for number, line in kept)
    if not prompts:
        raise Refusal(Reason("prompt_set.no-prompts", file=str(file)))
    odd = next((prompt for prompt in prompts if "\0" in prompt or not _is_whole(prompt)), None)
    if odd is not None:
        raise Refusal(Reason("prompt_set.odd-characters", file=str(file)))
    if len(prompts) > MOST_PROMPTS:
        raise Refusal(Reason("prompt_set.too-many", file=str(file), n=len(prompts), most=MOST_PROMPTS))
    return prompts


def _is_whole(text: str) -> bool:
    """Whether there is no half of a character in it, which JSON can write and nothing can read."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _in_object(file: Path, number: int, line: str) -> str:
    """The prompt of one line of JSON."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Refusal(Reason("prompt_set.line-not-json", number=number, file=str(file))) from error
    prompt = value.get("prompt") if isinstance(value, dict) else None
    if not isinstance(prompt, str) or not prompt.strip():
        raise Refusal(Reason("prompt_set.line-without-prompt", number=number, file=str(file)))
    return prompt
