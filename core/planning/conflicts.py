"""Whether two passes exclude each other, and why, from what they say of themselves."""

from __future__ import annotations

from core.messages.reason import Reason
from core.pass_api.base import Pass, passes
from core.pass_api.exclusions import ONE_AT_A_TIME


def conflict(one: str, other: str) -> Reason | None:
    """Why the two passes exclude each other, or None."""
    first, second = passes.find(one), passes.find(other)
    if first is None or second is None:
        return None
    alone = next((why for group, why in ONE_AT_A_TIME.items() if group in first.groups & second.groups), None)
    return alone or _excludes(first, second) or _excludes(second, first)


def _excludes(one: Pass, other: Pass) -> Reason | None:
    """Why ``one`` says that it does not go with the other, or None."""
    names = other.groups | {other.id}
    return next((exclusion.why for exclusion in one.excludes if exclusion.of & names), None)


def clause(one: str, others: frozenset[str]) -> Reason | None:
    """Why a pass cannot be on beside others: a short clause, or None."""
    for other in sorted(others):
        if (why := conflict(one, other)) is not None:
            return Reason("planning.conflicts-with", title=passes.get(other).title, why=why)
    return None
