"""A file of prompts: one a line, or JSON Lines whose objects have a ``prompt``."""

from __future__ import annotations

import json
from pathlib import Path

from core import paths
from core.errors import Refusal

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
            raise Refusal(f"{file} is too large for a set of prompts; give a file of at most {MOST_BYTES >> 20} MB.")
        lines = paths.read_text(file).splitlines()
    except FileNotFoundError as error:
        raise Refusal(f"There is no file {file} with prompts; check the path.") from error
    except UnicodeDecodeError as error:
        raise Refusal(f"{file} is not UTF-8 text; save the prompts as UTF-8, one a line.") from error
    except OSError as error:
        raise Refusal(f"{file} cannot be read ({error.strerror}); give another file.") from error
    kept = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    in_json = file.suffix.lower() in (".jsonl", ".json", ".ndjson")
    prompts = tuple(_in_object(file, number, line) if in_json else line.strip() for number, line in kept)
    if not prompts:
        raise Refusal(f"{file} holds no prompts; write one a line.")
    odd = next((prompt for prompt in prompts if "\0" in prompt or not _is_whole(prompt)), None)
    if odd is not None:
        raise Refusal(f"{file} holds a prompt with characters that no text has; save it as plain UTF-8 text.")
    if len(prompts) > MOST_PROMPTS:
        raise Refusal(f"{file} holds {len(prompts):,} prompts, more than one batch takes; give at most {MOST_PROMPTS:,}.")
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
        raise Refusal(f"Line {number} of {file} is not JSON; write an object with a prompt on each line.") from error
    prompt = value.get("prompt") if isinstance(value, dict) else None
    if not isinstance(prompt, str) or not prompt.strip():
        raise Refusal(f'Line {number} of {file} has no text under "prompt"; write an object with a prompt on each line.')
    return prompt
