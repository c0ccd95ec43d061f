"""What a pass is: it checks, applies, and reports what it changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, Protocol

from core.config import PassConfig
from core.messages.catalogue import translated
from core.messages.reason import Reason
from core.models.base import ModelFacts
from core.pass_api.exclusions import Exclusion, Group
from core.pass_api.subject import Subject
from core.registry import Registry
from core.targets.base import TargetFacts


class Phase(IntEnum):
    """When a pass applies, whatever the order of clicks."""

    PROCESS = 0
    STRUCTURE = 1
    MASK = 2
    HEAL = 3
    KERNEL = 4
    PRECISION = 5
    QUANTIZE = 6
    PLACE = 7
    GENERATION = 8
    COMPILE = 9
    ENGINE = 10

    @property
    def title(self) -> str:
        """The heading of its passes in lists, in the language that is spoken."""
        return translated(f"phase.{_TITLES[self].lower().replace(' ', '-')}.title", _TITLES[self])


_TITLES = {
    Phase.PROCESS: "Process",
    Phase.STRUCTURE: "Structure",
    Phase.MASK: "Structure",
    Phase.HEAL: "Structure",
    Phase.KERNEL: "Kernels",
    Phase.PRECISION: "Precision",
    Phase.QUANTIZE: "Quantization",
    Phase.PLACE: "Placement",
    Phase.GENERATION: "Cache and decoding",
    Phase.COMPILE: "Compilation",
    Phase.ENGINE: "Other engines",
}


@dataclass(frozen=True)
class PassContext:
    """All a pass may look at when it is asked whether it can be used; no torch needed."""

    model: ModelFacts | None  # None: no model chosen yet; then only the machine and the other passes speak
    target: TargetFacts
    others: frozenset[str]  # ids of the other passes that are on


CPU_ONLY = Reason("pass_api.cpu-only")


def none_because(why: Reason) -> Reason:
    """Instead of a prediction: ``why`` is a clause with its full stop."""
    return Reason("pass_api.none-because", why=why)


def none_from(basis: Reason) -> Reason:
    """Instead of a prediction: what it does not follow from, and why not, in a clause with its full stop."""
    return Reason("pass_api.none-from", basis=basis)


def none_can_be_given(why: Reason) -> Reason:
    """Instead of a prediction: ``why`` is a clause with its full stop."""
    return Reason("pass_api.none-can-be-given", why=why)


def without_cache(context: PassContext) -> Reason | None:
    """Why a pass that needs the model's growing KV cache cannot be used, as a short clause, or None."""
    if context.model is not None and not context.model.keeps_cache:
        return Reason("pass_api.cache-off")
    return None


@dataclass(frozen=True)
class PassReport:
    """What a pass did. ``kernels`` are names seen in a profiled forward of this very model, never assumed.

    ``predicted`` is by moment kind (``prefill``, ``decode``, ``forward``) the gain to be expected from bytes and operations,
    time before over time after, and ``prediction`` the sentence that says what it rests on or why none can be given.
    ``notes`` are sentences for people about what is special: graph breaks, an untied head, "quality only on this target".
    """

    id: str
    title: str
    options: Mapping[str, Any]
    changed_modules: int
    summary: Reason  # for people: "210 layers → int8, 538 → 202 MB"
    kernels: tuple[str, ...] = ()
    weight_bytes_before: int = 0
    weight_bytes_after: int = 0
    apply_ns: int = 0
    notes: tuple[Reason, ...] = ()
    predicted: Mapping[str, float] = field(default_factory=dict)
    prediction: Reason | None = None


class Pass(Protocol):
    """One optimization. ``options`` is its frozen options dataclass (``None``: no options); one declaration feeds the
    form, the command line, validation, the file and the search space. Field metadata: ``pass_api.options.DECLARED``.

    The attributes with a default are what the rest of the program asks about a pass, so that nobody above ``core.passes`` knows
    one by its id. A pass of ours inherits them from here.
    """

    id: str
    title: str
    summary: str  # one line for the list
    phase: Phase
    options: ClassVar[type | None]
    changes_weights: bool  # True: switching it off means loading the original again
    lossless: ClassVar[bool]  # claims the same tokens as the unoptimized model (held to it by the quality instrument)

    unpredictable: ClassVar[Reason | None] = None
    """Why its gain follows from neither bytes nor operations, a sentence; None: it is predicted from what it does to layers."""

    groups: ClassVar[frozenset[Group]] = frozenset()
    excludes: ClassVar[tuple[Exclusion, ...]] = ()
    """What it does not go with, besides what goes for its groups; of several the first counts. One of a pair says it."""

    reads_in_windows: ClassVar[bool] = False  # a text longer than the model can see is read in pieces
    casts_on_call: ClassVar[bool] = False  # weights are cast to the option ``dtype`` whenever they are multiplied
    one_graph: ClassVar[bool] = False  # its moments run as one compiled graph, in which the layer clock may tick
    sets_threads: ClassVar[bool] = False  # torch computes with another number of threads than the target says

    @property
    def may_abort(self) -> bool:
        """Whether it compiles, exports or hands the model to native code, which may end the process where it is first tried."""
        return self.phase in (Phase.COMPILE, Phase.ENGINE)

    def check(self, context: PassContext) -> Reason | None:
        """Why it cannot be used here, as a short clause ("conflicts with bfloat16"), or None."""
        ...

    def apply(self, subject: Subject, options: Any) -> PassReport:
        """Change ``subject``; ``Refusal`` if nothing could be changed. ``kernels`` and byte counts are filled by the caller."""
        ...


passes: Registry[Pass] = Registry("pass", "core.passes")


def title_of(one: Pass) -> str:
    """What people call a pass, in the language that is spoken; English stands in its own file."""
    return translated(f"pass.{one.id}.title", one.title)


def summary_of(one: Pass) -> str:
    """Its one line for lists, in the language that is spoken."""
    return translated(f"pass.{one.id}.summary", one.summary)


def any_pass(choices: Iterable[PassConfig], is_so: Callable[[Pass], bool]) -> bool:
    """Whether one of the passes chosen is so. A pass that this version does not know (of another one's file) is not."""
    return any(one is not None and is_so(one) for one in (passes.find(choice.id) for choice in choices))


def title_of_id(pass_id: str) -> str:
    """What people call a pass; the id of one that this version does not know (of another one's file)."""
    known = passes.find(pass_id)
    return pass_id if known is None else title_of(known)
