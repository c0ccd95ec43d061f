"""The search space of a pass: what a tuner may set its options to, from the same declaration that the form shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.pass_api.options import Option, declared


@dataclass(frozen=True)
class Categorical:
    """One of several values without an order between them."""

    choices: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """A number from ``low`` to ``high``, both included, in steps of ``step`` from ``low``; None: of any size."""

    low: float
    high: float
    step: float | None
    kind: type  # int or float


def search_space(options: type | None) -> dict[str, Categorical | Range]:
    """What each option of a dataclass may be, by name.

    Options that have no end are left out: texts, paths, and numbers that only a minimum is known of. None, with which a pass
    decides by itself, is one of the choices where it is allowed, and no part of a range.
    """
    found = {name: _dimension(option) for name, option in declared(options).items()}
    return {name: dimension for name, dimension in found.items() if dimension is not None}


def _dimension(option: Option) -> Categorical | Range | None:
    choices = (True, False) if option.kind is bool else option.choices
    if choices is not None:
        return Categorical((None, *choices) if option.optional else choices)
    if option.minimum is None or option.maximum is None:
        return None
    return Range(option.minimum, option.maximum, option.step or (1 if option.kind is int else None), option.kind)
