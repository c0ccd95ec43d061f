"""Changes to a file as damage, carelessness or malice make them; the same ones for the same random numbers."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any

NUMBERS = (0, 1, 2, 3, 7, 127, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3.5, -0.0, 1e308, float("inf"), float("nan"), 2**31, 2**63, 2**64, 10**30, 10**400),
    *(
        "",
        "x",
        "\0",
        "\ud800",
        "../../etc/passwd",
        "/dev/zero",
        "a" * 5000,
        "=1+1",
        "\x1b[31m",
        "<b>x</b>",
        "1",
        "null",
        "~nobody",
    ),
    *([], {}, [[]], [None], {"a": {"b": []}}, [1, "x", None, {}], [0] * 100),
)


def mutated_bytes(data: bytes, dice: random.Random) -> bytes:
    """One to four changes: bits, numbers where numbers stand, pieces cut out, doubled, moved, put in, and an early end."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        if not changed:
            return bytes(changed)
        dice.choice(_CHANGES)(changed, dice)
    return bytes(changed)


def _bit(data: bytearray, dice: random.Random) -> None:
    data[_place(data, dice)] ^= 1 << dice.randrange(8)


def _byte(data: bytearray, dice: random.Random) -> None:
    data[_place(data, dice)] = dice.randrange(256)


def _number(data: bytearray, dice: random.Random) -> None:
    size, form = dice.choice(((1, "<B"), (2, "<H"), (4, "<I"), (8, "<Q")))
    if len(data) >= size:
        at = min(_place(data, dice), len(data) - size)
        struct.pack_into(form, data, at, dice.choice(NUMBERS) % (1 << 8 * size))


def _cut(data: bytearray, dice: random.Random) -> None:
    at = _place(data, dice)
    del data[at : at + dice.choice((1, 2, 4, 8, 64, 1024))]


def _double(data: bytearray, dice: random.Random) -> None:
    at = _place(data, dice)
    data[at:at] = data[at : at + dice.choice((1, 4, 16, 256))] * dice.choice((1, 1, 2, 50))


def _fill(data: bytearray, dice: random.Random) -> None:
    at = _place(data, dice)
    data[at:at] = bytes(dice.randrange(256) for _ in range(dice.choice((1, 3, 16))))


def _end(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data)) :]


_CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _bit,
    _byte,
    _byte,
    _number,
    _number,
    _cut,
    _double,
    _fill,
    _end,
)


def _place(data: bytearray, dice: random.Random) -> int:
    """Anywhere, but mostly in the beginning, where headers are."""
    return dice.randrange(min(len(data), 400)) if dice.random() < 0.7 else dice.randrange(len(data))


def mutated_json(text: str, dice: random.Random) -> bytes:
    """The value with one to three of its parts changed to something odd; now and then the text itself is damaged."""
    if dice.random() < 0.25:
        return mutated_bytes(text.encode(), dice)
    if dice.random() < 0.02:
        depth = dice.choice((500, 5_000, 100_000))
        opened = dice.choice(("[", '{"a":'))
        return (opened * depth).encode()
    value = json.loads(text)
    for _ in range(dice.choice((1, 1, 2, 3))):
        value = _changed(value, dice)
    written = json.dumps(value)
    return (written if dice.random() < 0.9 else json.dumps(value, ensure_ascii=False)).encode("utf-8", "surrogatepass")


def _changed(value: Any, dice: random.Random) -> Any:
    """One part, somewhere inside, replaced, taken away, doubled or given another name."""
    if isinstance(value, dict) and value and dice.random() < 0.93:
        key = dice.choice(sorted(value))
        what = dice.random()
        if what < 0.12:
            return {name: one for name, one in value.items() if name != key}
        if what < 0.18:
            return value | {str(dice.choice(ODD_VALUES))[:40]: value[key]}
        return value | {key: _changed(value[key], dice)}
    if isinstance(value, list) and value and dice.random() < 0.8:
        place = dice.randrange(len(value))
        return [*value[:place], _changed(value[place], dice), *value[place + 1 :]]
    return dice.choice(ODD_VALUES)
