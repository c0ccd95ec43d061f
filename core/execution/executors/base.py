"""What a place to carry out runs is called, what it is good for, and how its carrier is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.registry import Registry

if TYPE_CHECKING:  # a list of the choices must not import what carries runs out
    from core.clock.gate import Gate
    from core.execution.carriers.base import Carrier
    from core.execution.jobs.base import Listener


@dataclass(frozen=True)
class Executor:
    """A choice of "Runs" in the window and of ``--executor``.

    Attributes:
        title, hint: of the choice.
        short: what is said of a run that was carried out there, "" where it need not be told.
        place: in lists; the first is the default.
        survives: whether the window lives on when the model's process dies.
        make: its carrier, for a gate and a listener.
    """

    id: str
    title: str
    hint: str
    short: str
    place: int
    survives: bool
    make: Callable[[Gate, Listener], Carrier]


executors: Registry[Executor] = Registry("executor", "core.execution.executors")

DEFAULT = "local"


def listed() -> tuple[Executor, ...]:
    """All of them, the default first."""
    return tuple(sorted(executors, key=lambda one: one.place))


def survivor() -> str:
    """The id of the first executor that a crash of the model leaves alone."""
    return next(one.id for one in listed() if one.survives)


def in_short(executor: str) -> str:
    """What is said of a run that was carried out there; its id where this program does not know it (a newer one's file)."""
    found = executors.find(executor)
    return executor if found is None else found.short
