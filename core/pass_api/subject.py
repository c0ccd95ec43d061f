"""What passes work on: a loaded model, how it is executed, and how to undo what was changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.messages.reason import Reason
from core.progress import Progress
from profilers.tick_op import TickClock

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Windows:
    """How an encoder reads a text longer than it can see: ``size`` tokens at a time, of which ``overlap`` were seen before.

    ``keep`` says what becomes of positions seen twice: ``centre`` takes them from the window where they are farther from the
    edge, ``mean`` the average.
    """

    size: int
    overlap: int
    keep: str


@dataclass
class CompiledStep:
    """What replaces the model's forward in single-token decode moments, or in all of them: a compiled graph, say.

    ``ticked`` is the same for traced moments: a graph with the ticks of ``ticks`` in it; both are None where there is none.
    """

    call: Callable[..., Any]
    every: bool = False  # for every forward (of models that do not generate)
    ticked: Callable[..., Any] | None = None
    ticks: TickClock | None = None


@dataclass(frozen=True)
class Runtime:
    """What replaced torch's own ("ONNX Runtime 1.31"): the model's forward calls it, and the model's weights are let go."""

    name: str
    weight_bytes: int | None = None  # what it holds; None: the model's own weights
    clock: Any | None = None  # its own profiler as a layer clock
    census: Callable[[], Mapping[str, Mapping[str, int]]] | None = None  # the kernels that it ran, by layer path


@dataclass
class Execution:
    """How the model is executed: plainly, until a pass says otherwise.

    ``untickable`` is the sentence that says why there are no layer times of a compiled step or a runtime. (It may also be set
    by the first call of a ticked step, which then runs the graph without ticks from there on.)
    """

    threads: int
    generation: dict[str, Any] = field(default_factory=dict)  # extra arguments of ``generate``
    windows: Windows | None = None  # of encoders: a text longer than ``size`` is read in pieces
    drafts: list[torch.nn.Module] = field(default_factory=list)  # they guess tokens; their forwards are ``draft`` moments
    step: CompiledStep | None = None
    runtime: Runtime | None = None
    untickable: Reason | None = None

    def is_compiled(self, width: int, context: int) -> bool:
        """Whether a forward of ``width`` new positions after ``context`` cached ones runs as a compiled graph."""
        return self.step is not None and (self.step.every or (width == 1 and context > 0))


@dataclass
class Subject:
    """The loaded model with what it was loaded for. Passes change it in place.

    ``undo`` is called (``close``, the last first) before the model is used without the passes; only needed for what is not in
    the weights, which are reloaded. ``changed_by`` names, by module path, the pass that changed that module last (only passes
    that change kernels).
    """

    model: torch.nn.Module
    task: str
    execution: Execution
    max_length: int  # prompt and new tokens of the workload about to run
    batch: int
    tokenizer: Any | None = None  # the source's, where it has one
    original: Callable[[], torch.nn.Module] | None = None  # loads the model without passes once more, beside this one
    progress: Progress = field(default_factory=Progress)  # passes that take long report to it and look whether to stop
    undo: ExitStack = field(default_factory=ExitStack)
    changed_by: dict[str, str] = field(default_factory=dict)
    afterwards: dict[str, Callable[[], tuple[Reason, ...]]] = field(
        default_factory=dict
    )  # notes known after the run, by pass id
