"""What a pass is: it checks, applies, and reports what it changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from core.models.base import ModelFacts
from core.registry import Registry
from core.targets.base import TargetFacts
from profilers.tick_op import TickClock

if TYPE_CHECKING:
    import torch


class Phase(IntEnum):
    """When a pass applies, whatever the order of clicks."""

    PROCESS = 0
    STRUCTURE = 1
    MERGE = 4
    PRECISION = 5
    QUANTIZE = 6
    GENERATION = 7
    COMPILE = 8


@dataclass(frozen=True)
class PassContext:
    """All a pass may look at when it is asked whether it can be used; no torch needed."""

    model: ModelFacts | None  # None: no model chosen yet; then only the machine and the other passes speak
    target: TargetFacts
    others: frozenset[str]  # ids of the other passes that are on


@dataclass(frozen=True)
class PassReport:
    """What a pass did. ``kernels`` are names seen in a profiled forward of this very model, never assumed."""

    id: str
    title: str
    options: Mapping[str, Any]
    changed_modules: int
    summary: str  # for people: "210 layers → int8, 538 → 202 MB"
    kernels: tuple[str, ...] = ()
    weight_bytes_before: int = 0
    weight_bytes_after: int = 0
    apply_ns: int = 0


@dataclass
class Subject:
    """What passes work on: the loaded model and how it will be run. Passes change it in place.

    ``generation`` are extra arguments of ``generate``. ``decode_forward`` replaces the model's forward in single-token
    decode moments (a compiled graph, say). ``ticked_forward`` is the same for traced ones: a graph with the ticks of
    ``ticks`` in it; both are None where there is none, and ``untickable`` is then the sentence that says why. (It may also be
    set by the first call of ``ticked_forward``, which then runs the graph without ticks from there on.)
    ``changed_by`` names, by module path, the pass that changed that module last (only passes that change kernels).
    ``undo`` holds what must be called before the model is used without the passes (only needed for what is not in the
    weights, which are reloaded).
    """

    model: torch.nn.Module
    task: str
    threads: int
    max_length: int  # prompt and new tokens of the workload about to run
    batch: int
    generation: dict[str, Any] = field(default_factory=dict)
    decode_forward: Callable[..., Any] | None = None
    ticked_forward: Callable[..., Any] | None = None
    ticks: TickClock | None = None
    untickable: str | None = None
    changed_by: dict[str, str] = field(default_factory=dict)
    undo: list[Callable[[], None]] = field(default_factory=list)


class Pass(Protocol):
    """One optimization. ``options`` is its frozen options dataclass (``None``: no options); one declaration feeds the
    form, the command line, validation and the file. Field metadata: ``label``, ``help``, ``minimum``, ``maximum``, ``choices``.
    """

    id: str
    title: str
    summary: str  # one line for the list
    phase: Phase
    options: ClassVar[type | None]
    changes_weights: bool  # True: switching it off means loading the original again

    def check(self, context: PassContext) -> str | None:
        """Why it cannot be used here, as a short clause ("conflicts with bfloat16"), or None."""
        ...

    def apply(self, subject: Subject, options: Any) -> PassReport:
        """Change ``subject``; ``Refusal`` if nothing could be changed. ``kernels`` and byte counts are filled by the caller."""
        ...


passes: Registry[Pass] = Registry("pass", "core.passes")
